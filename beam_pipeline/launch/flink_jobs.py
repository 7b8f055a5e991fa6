"""A runner for Flink that submits all jobs of a command through one job server."""

from __future__ import annotations

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
)
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.portability.job_server import JobServer

_servers: dict[str, JobServer] = {}


class OneServerFlinkRunner(FlinkRunner):
    """Beam's runner, which starts a Java process for each job and keeps it until the command ends.

    A list of 14 million images has 28 jobs. Beam's runner for Spark keeps one server, as this does.
    """

    def default_job_server(self, options: PipelineOptions) -> JobServer:
        """Return the server for these options, which is started with its first job."""
        flink = options.view_as(FlinkRunnerOptions)
        server = super().default_job_server(options)
        if flink.flink_submit_uber_jar:
            return server  # not a process, and made for one job
        return _servers.setdefault(f"{flink}{options.view_as(JobServerOptions)}", server)
