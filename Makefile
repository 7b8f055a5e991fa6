# Everything installs into .venv; downloads stay in pip's own cache.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: run test lint clean

run: .venv/ready  ## Make a small dataset on this machine, from photographs served on loopback
	$(BIN)/python -m examples.sample_run

test: lint  ## Lint, check types, run the tests
	$(BIN)/pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/ready: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build data *.egg-info
