"""Tests of the job server of Flink. Flink itself runs in the lanes."""

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipeline.launch import runner_options


def server_of(*arguments: str):
    """Return the job server that a job with these arguments is submitted to."""
    options = PipelineOptions(["--runner", "FlinkRunner", *arguments])
    return runner_options.make_runner(options).default_job_server(options)


@pytest.mark.parametrize("master", ["[local]", "localhost:8081", "http://localhost:8081"])
def test_all_jobs_of_a_command_have_one_server(master):
    servers = {server_of("--flink_master", master) for _ in range(3)}
    assert len(servers) == 1


def test_clusters_have_servers_of_their_own():
    masters = ("localhost:8081", "localhost:8082")
    assert len({server_of("--flink_master", master) for master in masters}) == 2


def test_a_jar_that_is_submitted_itself_has_no_shared_server():
    jar = ("--flink_submit_uber_jar", "--flink_master", "localhost:8081")
    assert server_of(*jar) is not server_of(*jar)
