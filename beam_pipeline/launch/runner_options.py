"""Beam's part of the command line, and the settings that each runner needs."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DebugOptions,
    DirectOptions,
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
    SetupOptions,
    SparkRunnerOptions,
    StandardOptions,
)
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import Commit
from beam_pipeline.launch.flink_jobs import OneServerFlinkRunner
from beam_pipeline.process.processors import count_processors, has_gpu
from beam_pipeline.storage import filesystem

_IN_THIS_PROCESS = ("directrunner", "fnapirunner")
_PROCESSES_A_MACHINE = ("no_use_multiple_sdk_containers", "use_multiple_sdk_containers")
_WORKER_MEMORY = "min_ram=4GB"
_MULTI_PROCESSING, _POOL = "multi_processing", "pool"
_WORKERS, _MODE = "--direct_num_workers", "--direct_running_mode"
_KEPT = 60_000  # milliseconds


def parse_options(beam_argv: Sequence[str], processes: int = 1) -> PipelineOptions:
    """Parse Beam's options, check them as Beam does before a graph runs, and complete them.

    Args:
      beam_argv: The arguments for Beam.
      processes: Number of worker processes on this machine if the arguments do not give it. More
        than one worker is as many processes, unless the arguments give another running mode.

    Returns:
      The options, with the settings that the runner needs.

    Raises:
      UsageError: a value is invalid, there is no such runner, or it needs another option.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = PipelineOptions(list(beam_argv))
            options.get_all_options()
            # No class or function of the graph is defined in the main module.
            options.view_as(SetupOptions).save_main_session = False
            beam.Pipeline(runner=make_runner(options), options=options)
    except SystemExit:
        raise UsageError(
            f"{last_line(said.getvalue()).partition('error: ')[2]}. This is one of Beam's options."
        ) from None
    except Exception as error:
        raise UsageError(f"Beam cannot run with these options: {last_line(str(error))}") from error
    if is_in_this_process(options) and not _is_given(_MODE, beam_argv):
        direct = options.view_as(DirectOptions)
        if not _is_given(_WORKERS, beam_argv):
            direct.direct_num_workers = processes
        if direct.direct_num_workers != 1:
            direct.direct_running_mode = _MULTI_PROCESSING
    _share_processors(options)
    if _is_dataflow(options):
        _size_workers(options)
    if not _is_given("--environment_cache_millis", beam_argv):
        # Spark would start a new worker, with a new network, for each stage.
        options.view_as(PortableOptions).environment_cache_millis = _KEPT
    if options.view_as(StandardOptions).no_wait_until_finish and not _has_service(options):
        raise UsageError(
            "--no_wait_until_finish needs a job server that outlives the command. Give its "
            "address as --job_endpoint."
        )
    return options


def _is_given(flag: str, argv: Sequence[str]) -> bool:
    return any(argument.partition("=")[0] == flag for argument in argv)


def name_of(options: PipelineOptions) -> str:
    """Return the name of the runner that the options select.

    Beam's DirectRunner first tries to download Prism, with no time limit, and continues silently if
    that fails. Here, DirectRunner is the one inside Beam's Python package, or the Prism that
    `--prism_location` names.
    """
    # Beam also accepts short names of runners, and the names of its own modules.
    name = re.sub(
        r"^apache_beam\..*\.", "", options.view_as(StandardOptions).runner or "DirectRunner"
    )
    if "." not in name and not name.lower().endswith("runner"):
        name += "Runner"
    if name.lower() not in _IN_THIS_PROCESS:
        return name
    return "PrismRunner" if options.view_as(PrismRunnerOptions).prism_location else "DirectRunner"


def is_in_this_process(options: PipelineOptions) -> bool:
    return name_of(options) == "DirectRunner"


def makes_template(options: PipelineOptions) -> bool:
    """Return whether the job becomes a file from which Dataflow starts it."""
    return bool(options.view_as(GoogleCloudOptions).template_location)


class PartJobs:
    """Gives the job of each part its options.

    On Dataflow, no two jobs that run have the same name. Of the parts in a Flex Template, only the
    last one becomes the file that its launcher expects.
    """

    def __init__(self, options: PipelineOptions):
        self._google = options.view_as(GoogleCloudOptions)
        self._template, self._name = self._google.template_location, self._google.job_name

    def prepare(self, commit: Commit) -> None:
        """Set the options for the job of a part."""
        self._google.template_location = self._template if commit.is_last else None
        is_alone = commit.is_last and (self._template or not commit.index)
        suffix = "" if is_alone else f"-part-{commit.index + 1}"
        self._google.job_name = self._name and f"{self._name}{suffix}"


def waits_for_job(options: PipelineOptions) -> bool:
    """Return whether the command waits for the end of the job.

    It does not with `--no_wait_until_finish`, or if it only makes a Dataflow template or an
    executable.
    """
    made = makes_template(options) or options.view_as(PortableOptions).output_executable_path
    return not (made or options.view_as(StandardOptions).no_wait_until_finish)


def job_outlives_command(options: PipelineOptions) -> bool:
    """Return whether the job continues on an engine elsewhere after the command has ended.

    An engine on this machine ends with the command.
    """
    flink, spark = (
        options.view_as(FlinkRunnerOptions).flink_master,
        options.view_as(SparkRunnerOptions).spark_master_url,
    )
    elsewhere = {
        "flinkrunner": not flink.startswith("["),
        "sparkrunner": not spark.startswith("local"),
    }
    return _has_service(options) or elsewhere.get(name_of(options).lower(), False)


def job_page(result: Any, options: PipelineOptions) -> str | None:
    """Return the URL of Dataflow's page of the job; None for other engines and for a template."""
    if not _is_dataflow(options) or not result.has_job:
        return None
    google = options.view_as(GoogleCloudOptions)
    return (
        f"https://console.cloud.google.com/dataflow/jobs/{google.region}/{result.job_id()}"
        f"?project={google.project}"
    )


def _is_dataflow(options: PipelineOptions) -> bool:
    return name_of(options).lower().startswith("dataflow")


def reaches_local_files(options: PipelineOptions) -> bool:
    """Return whether workers can read this machine's files, as far as the options show.

    Those of Dataflow cannot.
    """
    return not _is_dataflow(options) or options.view_as(
        GoogleCloudOptions
    ).dataflow_endpoint.startswith("http://localhost")


def _has_service(options: PipelineOptions) -> bool:
    """Return whether jobs go to a service that the command has not started."""
    return _is_dataflow(options) or bool(options.view_as(PortableOptions).job_endpoint)


def make_runner(options: PipelineOptions) -> Any:
    """Return the runner that the options select, for one graph."""
    if _is_dataflow(options):
        filesystem.check_client("gs://")
    if is_in_this_process(options):
        return FnApiRunner()
    name = name_of(options)
    return OneServerFlinkRunner() if name.lower() == "flinkrunner" else name


def _size_workers(options: PipelineOptions) -> None:
    """Make Dataflow start one process per machine, with enough memory.

    The network and the threads of one process use all processors. The memory hint is for the
    complete job, since steps with different hints are not fused. It is not set with options that
    exclude hints (FlexRS, worker accelerators).
    """
    debug, standard = options.view_as(DebugOptions), options.view_as(StandardOptions)
    if not any(map(debug.lookup_experiment, _PROCESSES_A_MACHINE)):
        debug.add_experiment(_PROCESSES_A_MACHINE[0])
    google = options.view_as(GoogleCloudOptions)
    services = (*(debug.experiments or ()), *(google.dataflow_service_options or ()))
    if google.flexrs_goal or any(service.startswith("worker_accelerator") for service in services):
        return
    if not any(
        hint.lower().replace("-", "_").startswith("min_ram") for hint in standard.resource_hints
    ):
        standard.resource_hints = [*standard.resource_hints, _WORKER_MEMORY]


def choose_processes(config: Config) -> int:
    """Return the number of worker processes on this machine that suits a config.

    The network uses all processors from one process. Everything else is limited by the
    interpreter's lock of a process, which an image needs for a third of its time.
    """
    processors = count_processors()
    if processors <= 2 or (config.has_network and not has_gpu()):
        return 1
    # Each process may have one request to a host in flight.
    return min(processors, config.host_concurrency) if config.input else processors


def has_processes(options: PipelineOptions) -> bool:
    """Return whether the workers on this machine are processes of their own."""
    mode = options.view_as(DirectOptions).direct_running_mode
    return is_in_this_process(options) and mode in (_MULTI_PROCESSING, _POOL)


def count_workers(options: PipelineOptions) -> int:
    """Return the number of worker processes on this machine."""
    direct = options.view_as(DirectOptions)
    return (direct.direct_num_workers or count_processors()) if has_processes(options) else 1


def use_pool(options: PipelineOptions) -> None:
    """Make Beam leave the processes to a `worker_pool.WorkerPool` of `count_workers`."""
    direct = options.view_as(DirectOptions)
    direct.direct_num_workers = count_workers(options)
    direct.direct_running_mode = _POOL


def _share_processors(options: PipelineOptions) -> None:
    """Limit the network of each local worker process to its share of processors and GPU memory."""
    if (workers := count_workers(options)) > 1:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, count_processors() // workers)))
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


def last_line(text: str) -> str:
    """Return the last line of a text that is not blank: of a traceback, the exception."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
