"""Tests on Spark: the one inside Beam's job server, on this machine."""

from __future__ import annotations

from pathlib import Path

from datasets import assert_makes_the_same, assert_reads_containers
from programs import CACHE

JOB_SERVER = CACHE / "spark-job-server-2.62.0.jar"
ENGINE: tuple[str | Path, ...] = (
    *("--runner", "SparkRunner", "--spark_master_url", "local[2]"),
    *("--spark_job_server_jar", JOB_SERVER),
)


def test_the_dataset_is_the_same(url_list, reference, tmp_path):
    assert_makes_the_same(ENGINE, url_list, tmp_path / "dataset", reference, slots=2)


def test_containers(containers, container_reference, tmp_path):
    assert_reads_containers(ENGINE, containers, tmp_path / "dataset", container_reference)
