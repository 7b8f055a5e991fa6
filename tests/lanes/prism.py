"""Tests on Prism, Beam's runner in Go, passed to the DirectRunner as a binary."""

from __future__ import annotations

import re
from pathlib import Path

from datasets import (
    NETWORK,
    OPTIONS,
    assert_makes_the_same,
    assert_reads_containers,
    assert_same,
    read_dataset,
    run_job,
)
from programs import BEAM, CACHE

PRISM = CACHE / f"prism-{BEAM}" / "prism"
ENGINE: tuple[str | Path, ...] = ("--runner", "DirectRunner", "--prism_location", PRISM)


def test_the_dataset_is_the_same(url_list, embedded, tmp_path):
    assert_makes_the_same(ENGINE, url_list, tmp_path / "dataset", embedded, 1, *NETWORK)


def test_containers(containers, container_reference, tmp_path):
    assert_reads_containers(ENGINE, containers, tmp_path / "dataset", container_reference)


def test_commits_are_jobs_of_their_own(url_list, reference, tmp_path):
    options = [
        "--input",
        url_list,
        "--output",
        tmp_path / "dataset",
        *OPTIONS,
        "--urls_per_commit",
        "30",
    ]
    done = run_job(["--runner", "PrismRunner", "--prism_location", PRISM, *options])
    assert done.returncode == 0, done.stderr
    made = read_dataset(tmp_path / "dataset")
    names = " ".join(file["name"] for file in made.description["files"])
    assert set(re.findall(r"lab_images_(\d{5})-\d{5}-of-", names)) == {"00000", "00001"}
    assert_same(made, reference)
