"""Prism, the runner that Beam writes in Go, given to the DirectRunner as a binary."""

from __future__ import annotations

from pathlib import Path

from datasets import assert_makes_the_same
from programs import CACHE

PRISM = CACHE / "prism-2.77.0" / "prism"


def test_the_dataset_is_the_same(url_list, reference, tmp_path):
    engine: list[str | Path] = ["--runner", "DirectRunner", "--prism_location", PRISM]
    assert_makes_the_same(engine, url_list, tmp_path / "dataset", reference, slots=1)
