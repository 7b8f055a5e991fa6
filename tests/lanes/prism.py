"""Prism, the runner that Beam writes in Go, given to the DirectRunner as a binary."""

from __future__ import annotations

from datasets import OPTIONS, assert_right, assert_same, read_dataset, run_job
from programs import CACHE

PRISM = CACHE / "prism-2.77.0" / "prism"


def test_the_dataset_is_the_same(url_list, reference, tmp_path):
    done = run_job(
        [
            *("--runner", "DirectRunner", "--prism_location", PRISM),
            *("--input", url_list, "--output", tmp_path / "dataset", *OPTIONS),
        ]
    )
    assert done.returncode == 0, done.stderr
    made = read_dataset(tmp_path / "dataset")
    assert_right(made)
    assert_same(made, reference)
