"""Spark: the job server's own, on this machine."""

from __future__ import annotations

from datasets import OPTIONS, assert_full_shards, assert_right, assert_same, read_dataset, run_job
from programs import CACHE

JOB_SERVER = CACHE / "spark-job-server.jar"


def test_the_dataset_is_the_same(url_list, reference, tmp_path):
    done = run_job(
        [
            *("--runner", "SparkRunner", "--spark_master_url", "local[2]", "--spark_job_server_jar", JOB_SERVER),
            *("--input", url_list, "--output", tmp_path / "dataset", *OPTIONS),
        ]
    )
    assert done.returncode == 0, done.stderr
    made = read_dataset(tmp_path / "dataset")
    assert_right(made)
    assert_same(made, reference)
    assert_full_shards(made, 2)
