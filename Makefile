# All packages are installed into .venv; pip caches its downloads itself.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/beam_pipeline
# Downloads and builds of the lanes, shared by all checkouts.
LANES := $(CACHE)/lanes
FLINK := 1.19.3
SPARK := 3.5.7
BEAM := $(shell sed -n "s/^apache-beam==//p" constraints.txt)
JOB_SERVERS := 2.62.0
ON_PRISM := .venv/lanes $(LANES)/prism-$(BEAM)/prism
ON_FLINK := .venv/lanes $(LANES)/boot-$(BEAM)/container $(LANES)/flink-$(FLINK)/deps/lib \
	$(LANES)/flink-job-server-$(JOB_SERVERS).jar
ON_SPARK := .venv/lanes $(LANES)/boot-$(BEAM)/container $(LANES)/spark-$(SPARK)/deps/jars \
	$(LANES)/spark-job-server-$(JOB_SERVERS).jar
TORCH_PYTHON = $(CURDIR)/.venv-torch/bin/python
# A process for each processor, which takes the tests of one file after the other.
IN_PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile
MINUTES := 10
ACTIONLINT := $(CACHE)/actionlint-1.7.12/actionlint
# What dataset.examples imports, and webdataset.
READERS := msgspec pillow scikit-image webdataset
# Git's empty tree: a diff against it contains all tracked files.
NOTHING = $(shell git hash-object -t tree /dev/null)

.DEFAULT_GOAL := help
.PHONY: help run test lint docs build lanes test-flink test-spark test-prism test-dataflow test-stores \
	test-export test-grain test-torch soak bench bench-fetching bench-gpu profile clean

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

run: .venv/ready  ## Make a small dataset on this machine, from photographs served on loopback
	$(BIN)/python -m examples.sample_run

test: lint  ## Run the linters, then the tests
	$(BIN)/pytest $(IN_PARALLEL)

lint:  ## Run the linters
lint: .venv/ready docs $(if $(shell command -v go),$(ACTIONLINT))
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	git diff --check $(NOTHING)
	$(BIN)/hadolint Dockerfile
	$(BIN)/shellcheck .ci/run examples/flink.sh
	@if test -x $(ACTIONLINT); then set -x; $(ACTIONLINT) .github/workflows/*.yml; else \
		echo "lint: the CI workflow was not checked: building actionlint needs Go." >&2; fi

docs: .venv/ready  ## Build the documentation into site/; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

build: .venv/ready  ## Build the sdist and the wheel into dist/, and check their metadata
	rm -rf dist *.egg-info
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

lanes:  ## Run the tests of other engines, object stores and training libraries
lanes: $(ON_FLINK) $(ON_SPARK) $(ON_PRISM) .venv/lanes .venv-torch/ready
	TORCH_PYTHON=$(TORCH_PYTHON) $(BIN)/pytest $(IN_PARALLEL) $(addprefix tests/lanes/, \
		flink.py spark.py stores.py dataflow.py prism.py exports.py jax_and_grain.py pytorch.py)

test-flink: $(ON_FLINK)  ## Run the graph on a Flink cluster on this machine
	$(BIN)/pytest tests/lanes/flink.py

test-spark: $(ON_SPARK)  ## Run the graph on the Spark in Beam's job server, and on a Spark cluster
	$(BIN)/pytest tests/lanes/spark.py

test-prism: $(ON_PRISM)  ## Run the graph on Prism, Beam's runner in Go
	$(BIN)/pytest tests/lanes/prism.py

test-dataflow: .venv/lanes  ## Submit to a local stand-in for Dataflow, and run what arrives
	$(BIN)/pytest tests/lanes/dataflow.py

test-stores: .venv/lanes  ## Read and write gs:// and s3://, each an emulator
	$(BIN)/pytest tests/lanes/stores.py

test-export: $(ON_PRISM)  ## Export on Prism, and on object stores
	$(BIN)/pytest tests/lanes/exports.py

test-grain: .venv/lanes  ## Read a dataset and its export with Grain, and train with JAX
	$(BIN)/pytest tests/lanes/jax_and_grain.py

test-torch: .venv/lanes .venv-torch/ready  ## Read a dataset and its export with PyTorch, and train
	TORCH_PYTHON=$(TORCH_PYTHON) $(BIN)/pytest tests/lanes/pytorch.py

# An environment of its own: Debian's PyTorch, which needs the NumPy before 2, or what pip installs.
# PyPI has builds for CUDA only, which take gigabytes; Debian's is for processors, 150 MB.
.venv-torch/ready: Makefile
	rm -rf $(@D)
	if /usr/bin/python3 -c 'import torch'; then \
		/usr/bin/python3 -m venv --system-site-packages $(@D) && \
		$(@D)/bin/pip install --quiet --disable-pip-version-check 'numpy<2' $(READERS); \
	else \
		$(PYTHON) -m venv $(@D) && \
		$(@D)/bin/pip install --quiet --disable-pip-version-check torch $(READERS); \
	fi
	touch $@

# Both distributions are published as Python packages.
$(LANES)/flink-$(FLINK)/deps/lib: | .venv/lanes
	$(call unpack,apache-flink-libraries,$(FLINK),$(@D))

$(LANES)/spark-$(SPARK)/deps/jars: | .venv/lanes
	$(call unpack,pyspark,$(SPARK),$(@D))

# Unpack the source distribution of a package: NAME, VERSION, FOLDER/deps.
define unpack
	rm -rf $(LANES)/unpacked $(dir $(3)) && mkdir -p $(LANES)/unpacked
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--no-binary :all: --dest $(LANES)/unpacked $(1)==$(2)
	tar -xzf $(LANES)/unpacked/$(1)-$(2).tar.gz -C $(LANES)/unpacked
	mv $(LANES)/unpacked/$(1)-$(2) $(patsubst %/,%,$(dir $(3)))
	rm -r $(LANES)/unpacked
endef

$(LANES)/%-job-server-$(JOB_SERVERS).jar:
	mvn --quiet --batch-mode --file tests/lanes/job_servers/$*.xml -Dfolder=$(LANES)/build-$* package
	mv $(LANES)/build-$*/$*-job-server.jar $@
	rm -r $(LANES)/build-$*

$(LANES)/prism-$(BEAM)/prism:
	GOBIN=$(@D) go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$(BEAM)

# The program that starts a worker: /opt/apache/beam/boot in Beam's images.
$(LANES)/boot-$(BEAM)/container:
	GOBIN=$(@D) go install github.com/apache/beam/sdks/v2/python/container@v$(BEAM)

$(CACHE)/actionlint-%/actionlint:
	GOBIN=$(@D) go install github.com/rhysd/actionlint/cmd/actionlint@v$*

.venv/lanes: .venv/ready
	$(INSTALL) --constraint constraints.txt --editable '.[lanes]'
	touch $@

soak: .venv/ready  ## Run every kind of input for MINUTES=10, with kills: counts, memory, open files
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES)

bench: .venv/ready .venv-img2dataset/ready  ## Measure speed, memory and size as ratios
	$(BIN)/python -m benchmarks.bench --img2dataset .venv-img2dataset/bin/python

bench-fetching: .venv/ready .venv-img2dataset/ready  ## Measure fetching beside img2dataset
	$(BIN)/python -m benchmarks.fetching --img2dataset .venv-img2dataset/bin/python

bench-gpu: .venv/ready  ## Measure the network and the job on a machine with a GPU
	$(BIN)/python -m benchmarks.gpu

profile: .venv/ready  ## Print where a run without the network holds the interpreter's lock
	$(BIN)/python -m benchmarks.profiling

.venv-img2dataset/ready: Makefile
	$(PYTHON) -m venv .venv-img2dataset
	.venv-img2dataset/bin/pip install --quiet --disable-pip-version-check img2dataset==1.47.0
	touch $@

.venv/ready: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:  ## Remove environments, packages, the documentation and datasets
	rm -rf .venv .venv-img2dataset .venv-torch build data dist site *.egg-info
