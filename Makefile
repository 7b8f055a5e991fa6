# Everything installs into .venv; downloads stay in pip's own cache.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: run test lint soak bench bench-fetching clean

run: .venv/ready  ## Make a small dataset on this machine, from photographs served on loopback
	$(BIN)/python -m examples.sample_run

test: lint  ## Lint, check types, run the tests
	$(BIN)/pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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
