from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from datasets import (
    CONTAINER_OPTIONS,
    NETWORK,
    OPTIONS,
    Dataset,
    read_dataset,
    run_job,
    write_containers,
    write_list,
)
from origin import Origin

from benchmarks.bench import write_checkpoint

# Without this, pytest would end without stopping the programs that it started.
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: sys.exit(128 + number))


@pytest.fixture(scope="session")
def photographs() -> Iterator[Origin]:
    with contextlib.closing(Origin()) as server:
        yield server


@pytest.fixture(scope="session")
def url_list(photographs: Origin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("list") / "urls.txt"
    write_list(path, photographs)
    return path


@pytest.fixture(scope="session")
def reference(url_list: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Return the dataset that the DirectRunner makes of the list."""
    folder = tmp_path_factory.mktemp("reference") / "dataset"
    done = run_job(["--input", url_list, "--output", folder, *OPTIONS, "--statistics=true"])
    assert done.returncode == 0, done.stderr
    return read_dataset(folder)


@pytest.fixture(scope="session")
def embedded(url_list: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Return the dataset that the DirectRunner makes of the list with the untrained network."""
    folder = tmp_path_factory.mktemp("embedded") / "dataset"
    done = run_job(["--input", url_list, "--output", folder, *OPTIONS, *NETWORK])
    assert done.returncode == 0, done.stderr
    made = read_dataset(folder)
    assert all("image_embedding" in example for _, example in made.examples.values())
    return made


@pytest.fixture(scope="session")
def untrained_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint file with exactly the weights of `untrained`."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "untrained.ckpt")


@pytest.fixture(scope="session")
def containers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return `--images` of one container of each kind."""
    return write_containers(tmp_path_factory.mktemp("containers"))


@pytest.fixture(scope="session")
def container_reference(containers: str, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Return the dataset that the DirectRunner makes of the containers."""
    folder = tmp_path_factory.mktemp("container_reference") / "dataset"
    done = run_job(["--images", containers, "--output", folder, *CONTAINER_OPTIONS])
    assert done.returncode == 0, done.stderr
    return read_dataset(folder)
