# Everything installs into .venv; downloads stay in pip's own cache.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# What the lanes download and build; it stays from one checkout to the next.
LANES := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/beam_pipeline/lanes
FLINK := 1.19.3
BEAM := $(shell sed -n "s/^apache-beam==//p" constraints.txt)
JOB_SERVERS := 2.62.0

.PHONY: run test lint lanes test-flink test-spark test-prism test-dataflow test-stores soak bench bench-fetching clean

run: .venv/ready  ## Make a small dataset on this machine, from photographs served on loopback
	$(BIN)/python -m examples.sample_run

test: lint  ## Lint, check types, run the tests
	$(BIN)/pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

lanes: test-prism test-flink test-spark test-dataflow test-stores  ## The same graph on other engines, and on object stores

test-flink: .venv/lanes $(LANES)/flink-$(FLINK)/deps/lib $(LANES)/flink-job-server-$(JOB_SERVERS).jar $(LANES)/boot-$(BEAM)/container  ## A Flink cluster on this machine
	$(BIN)/pytest tests/lanes/flink.py

test-spark: .venv/lanes $(LANES)/spark-job-server-$(JOB_SERVERS).jar  ## The Spark inside Beam's job server
	$(BIN)/pytest tests/lanes/spark.py

test-prism: .venv/lanes $(LANES)/prism-$(BEAM)/prism  ## Beam's runner in Go
	$(BIN)/pytest tests/lanes/prism.py

test-dataflow: .venv/lanes  ## Submission to a stand-in for the service
	$(BIN)/pytest tests/lanes/dataflow.py

test-stores: .venv/lanes  ## gs:// and s3://, each an emulator
	$(BIN)/pytest tests/lanes/stores.py

$(LANES)/flink-$(FLINK)/deps/lib: | .venv/lanes
	rm -rf $(LANES)/flink && mkdir -p $(LANES)/flink
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-binary :all: \
		--dest $(LANES)/flink apache-flink-libraries==$(FLINK)
	tar -xzf $(LANES)/flink/apache-flink-libraries-$(FLINK).tar.gz -C $(LANES)/flink
	rm -rf $(LANES)/flink-$(FLINK) && mv $(LANES)/flink/apache-flink-libraries-$(FLINK) $(LANES)/flink-$(FLINK)
	rm -r $(LANES)/flink

$(LANES)/%-job-server-$(JOB_SERVERS).jar:
	mvn --quiet --batch-mode --file tests/lanes/job_servers/$*.xml -Dfolder=$(LANES)/build-$* package
	mv $(LANES)/build-$*/$*-job-server.jar $@
	rm -r $(LANES)/build-$*

$(LANES)/prism-$(BEAM)/prism:
	GOBIN=$(@D) go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$(BEAM)

# The program that starts a worker; Beam's images hold it as /opt/apache/beam/boot.
$(LANES)/boot-$(BEAM)/container:
	GOBIN=$(@D) go install github.com/apache/beam/sdks/v2/python/container@v$(BEAM)

.venv/lanes: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[lanes]'
	touch $@

soak: .venv/ready  ## A long run through everything that can go wrong
	$(BIN)/python -m benchmarks.soak

bench: .venv/ready .venv-img2dataset/ready  ## Speed, memory and size, as ratios; an hour, on a machine that does nothing else
	$(BIN)/python -m benchmarks.bench --img2dataset .venv-img2dataset/bin/python

bench-fetching: .venv/ready .venv-img2dataset/ready  ## Fetching, beside img2dataset
	$(BIN)/python -m benchmarks.fetching --img2dataset .venv-img2dataset/bin/python

.venv-img2dataset/ready: Makefile
	$(PYTHON) -m venv .venv-img2dataset
	.venv-img2dataset/bin/pip install --quiet --disable-pip-version-check img2dataset==1.47.0
	touch $@

.venv/ready: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-img2dataset build data *.egg-info
