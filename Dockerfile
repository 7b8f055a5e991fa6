# One image that launches the job from the Flex Template and runs its workers. docs/dataflow.md
# describes how to build and use it.
#
#   docker build --tag IMAGE .                             without a checkpoint: --checkpoint names
#                                                          a file on gs://, a mounted file or a URL
#   docker build --tag IMAGE --target with_checkpoint .    with the checkpoint
#   docker build --tag IMAGE --target cuda .               with CUDA, for machines with a GPU

FROM gcr.io/dataflow-templates-base/python311-template-launcher-base:20230622_RC00 AS launcher
FROM apache/beam_python3.11_sdk:2.77.0 AS worker

# pdqhash has no wheels for Linux, and the slim image no compiler.
FROM python:3.11-bookworm AS wheels
COPY constraints.txt /wheels/
RUN pip wheel --no-cache-dir --no-deps --constraint /wheels/constraints.txt --wheel-dir /wheels pdqhash

FROM python:3.11-slim-bookworm AS plain
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
COPY --from=worker /opt/apache/beam /opt/apache/beam

WORKDIR /opt/beam_pipeline
COPY pyproject.toml setup.py constraints.txt README.md LICENSE main.py ./
COPY beam_pipeline beam_pipeline
COPY --from=wheels /wheels /wheels
RUN pip install --no-cache-dir --find-links /wheels --constraint constraints.txt '.[aws,gcp]' && pip check

# The launcher runs main.py with the template's parameters. Workers use this environment.
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/opt/beam_pipeline/main.py \
    RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
ENTRYPOINT ["/opt/apache/beam/boot"]

FROM plain AS with_checkpoint
COPY inception_resnet_v2_2016_08_30.ckpt /opt/checkpoint/

# The extra brings the CUDA libraries that this TensorFlow was built with; the driver is the host's.
FROM plain AS cuda
RUN pip install --no-cache-dir --constraint constraints.txt 'tensorflow[and-cuda]' && pip check
ENV TF_FORCE_GPU_ALLOW_GROWTH=true

# Docker builds the last target if none is named.
FROM plain
