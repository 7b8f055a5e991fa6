"""Tests of Beam's options: their values for each runner, and the errors for invalid ones."""

from __future__ import annotations

import os

import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    StandardOptions,
)
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import Commit
from beam_pipeline.launch import runner_options


@pytest.mark.parametrize(
    "arguments",
    [[], ["--runner", "DirectRunner"], ["--runner=direct"], ["--runner", "FnApiRunner"]],
)
def test_the_direct_runner_does_not_look_for_prism(arguments):
    options = PipelineOptions(arguments)
    assert runner_options.is_in_this_process(options)
    assert isinstance(runner_options.make_runner(options), FnApiRunner)


def test_the_direct_runner_takes_the_prism_that_is_given():
    options = PipelineOptions(["--runner", "DirectRunner", "--prism_location", "/opt/prism"])
    assert not runner_options.is_in_this_process(options)
    assert runner_options.make_runner(options) == "PrismRunner"


@pytest.mark.parametrize("name", ["SparkRunner", "DataflowRunner", "PrismRunner"])
def test_other_runners_are_beams(name):
    options = PipelineOptions(["--runner", name])
    assert runner_options.make_runner(options) == runner_options.name_of(options) == name


@pytest.mark.parametrize(
    ("flags", "threads"),
    [
        ("", None),
        ("--direct_num_workers 4", "2"),
        ("--direct_num_workers 4 --direct_running_mode multi_processing", "2"),
        ("--direct_num_workers 9 --direct_running_mode multi_processing", "1"),
        # One per processor.
        (
            "--direct_num_workers 0 --direct_running_mode multi_processing",
            "1",
        ),
    ],
)
def test_networks_of_several_processes_share_the_processors(monkeypatch, flags, threads):
    monkeypatch.setattr(runner_options, "count_processors", lambda: 8)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.pop("TF_NUM_INTRAOP_THREADS", None)
    runner_options.parse_options(flags.split())
    assert os.environ.get("TF_NUM_INTRAOP_THREADS") == threads


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        (["--runner", "FlinkRunner"], 60_000),
        (["--runner", "SparkRunner", "--environment_cache_millis=0"], 0),
    ],
)
def test_engines_keep_workers_between_stages(flags, kept):
    options = runner_options.parse_options(flags).view_as(PortableOptions)
    assert int(options.environment_cache_millis) == kept


def test_no_main_session_is_pickled():
    assert runner_options.parse_options([]).view_as(SetupOptions).save_main_session is False


DATAFLOW = [
    "--runner",
    "DataflowRunner",
    "--project",
    "project",
    "--region",
    "here",
    "--temp_location",
    "gs://bucket/temp",
]


@pytest.mark.parametrize(
    ("flags", "experiments", "hints"),
    [
        ([], ["no_use_multiple_sdk_containers"], ["min_ram=4GB"]),
        (
            ["--experiments=use_multiple_sdk_containers", "--resource_hint=min_ram=8GB"],
            ["use_multiple_sdk_containers"],
            ["min_ram=8GB"],
        ),
        (
            ["--resource_hints=accelerator=type:nvidia-l4;count:1;install-nvidia-driver"],
            ["no_use_multiple_sdk_containers"],
            ["accelerator=type:nvidia-l4;count:1;install-nvidia-driver", "min_ram=4GB"],
        ),
        # With these options the service accepts no hints.
        (
            ["--experiments=worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"],
            [
                "worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver",
                "no_use_multiple_sdk_containers",
            ],
            [],
        ),
        (["--flexrs_goal=COST_OPTIMIZED"], ["no_use_multiple_sdk_containers"], []),
    ],
)
def test_dataflow_starts_one_process_a_machine_with_room_for_the_network(
    monkeypatch, flags, experiments, hints
):
    # Google's client is an optional dependency.
    monkeypatch.setattr(runner_options, "make_runner", lambda options: FnApiRunner())
    options = runner_options.parse_options([*DATAFLOW, *flags])
    assert options.view_as(DebugOptions).experiments == experiments
    assert options.view_as(StandardOptions).resource_hints == hints


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("", "DirectRunner"),
        ("--runner direct", "DirectRunner"),
        ("--runner FnApiRunner", "DirectRunner"),
        ("--runner DirectRunner --prism_location /bin/prism", "PrismRunner"),
        ("--runner spark", "sparkRunner"),
        ("--runner apache_beam.runners.portability.flink_runner.FlinkRunner", "FlinkRunner"),
        ("--runner somebody.elses.Runner", "somebody.elses.Runner"),
    ],
)
def test_names_of_runners(flags, name):
    assert runner_options.name_of(PipelineOptions(flags.split())) == name


@pytest.mark.parametrize(
    ("options", "processors", "gpu", "processes"),
    [
        ({"checkpoint": "none", "images": "folder"}, 2, False, 1),
        ({"checkpoint": "none", "images": "folder"}, 8, False, 8),
        ({"checkpoint": "none", "input": "urls.txt"}, 64, False, 16),
        ({"checkpoint": "none", "input": "urls.txt", "host_concurrency": 4}, 64, False, 4),
        ({"images": "folder"}, 8, False, 1),
        ({"images": "folder"}, 8, True, 8),
    ],
)
def test_a_run_without_the_network_on_processors_takes_a_process_for_each(
    monkeypatch, options, processors, gpu, processes
):
    monkeypatch.setattr(runner_options, "count_processors", lambda: processors)
    monkeypatch.setattr(runner_options, "has_gpu", lambda: gpu)
    assert runner_options.choose_processes(Config(output="out", **options)) == processes


@pytest.mark.parametrize(
    ("flags", "workers"),
    [
        ("", 4),
        ("--direct_num_workers=1", 1),
        ("--direct_num_workers 3", 3),
        ("--direct_num_workers 3 --direct_running_mode multi_processing", 3),
        ("--direct_running_mode multi_threading", 1),
        ("--runner FlinkRunner", 1),
    ],
)
def test_the_number_of_processes_that_a_user_gives_counts(monkeypatch, flags, workers):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    options = runner_options.parse_options(flags.split(), processes=4)
    assert runner_options.count_workers(options) == workers
    assert runner_options.has_processes(options) == (workers > 1)
    if "Flink" in flags:
        assert options.view_as(DirectOptions).direct_num_workers == 1


def test_the_pool_has_a_process_for_each_processor_if_none_is_given(monkeypatch):
    monkeypatch.setattr(runner_options, "count_processors", lambda: 8)
    options = PipelineOptions(
        ["--direct_num_workers", "0", "--direct_running_mode", "multi_processing"]
    )
    runner_options.use_pool(options)
    assert options.view_as(DirectOptions).direct_num_workers == 8
    assert runner_options.count_workers(options) == 8


@pytest.mark.parametrize(
    ("flags", "workers"),
    [
        ("--direct_num_workers 4", 1),
        ("--direct_num_workers 4 --direct_running_mode multi_threading", 1),
        ("--direct_num_workers 4 --direct_running_mode multi_processing", 4),
        ("--direct_num_workers 0 --direct_running_mode multi_processing", 8),
    ],
)
def test_commits_grow_with_the_processes_that_each_of_them_starts(monkeypatch, flags, workers):
    monkeypatch.setattr(runner_options, "count_processors", lambda: 8)
    assert runner_options.count_workers(PipelineOptions(flags.split())) == workers


@pytest.mark.parametrize(
    ("flags", "reached"),
    [
        ("", True),
        ("--runner FlinkRunner --flink_master host:8081", True),  # its workers may mount the folder
        ("--runner DataflowRunner", False),
        ("--runner DataflowRunner --dataflow_endpoint http://localhost:8080", True),
    ],
)
def test_whose_workers_see_this_machines_files(flags, reached):
    assert runner_options.reaches_local_files(PipelineOptions(flags.split())) is reached


@pytest.mark.parametrize(
    ("flags", "waits"),
    [
        ([], True),
        (["--no_wait_until_finish"], False),
        (["--runner", "DataflowRunner", "--template_location", "gs://bucket/template"], False),
        (["--runner", "FlinkRunner", "--output_executable_path", "job.jar"], False),
    ],
)
def test_who_waits_for_the_job(flags, waits):
    assert runner_options.waits_for_job(PipelineOptions(flags)) is waits


NAMED = ("--runner", "DataflowRunner", "--job_name", "photographs")


@pytest.mark.parametrize(
    ("flags", "jobs"),
    [
        (
            NAMED,
            [
                ("photographs-part-1", None),
                ("photographs-part-2", None),
                ("photographs-part-3", None),
            ],
        ),
        (
            (*NAMED, "--template_location", "gs://bucket/job"),
            [
                ("photographs-part-1", None),
                ("photographs-part-2", None),
                ("photographs", "gs://bucket/job"),
            ],
        ),
        (NAMED[:2], [(None, None)] * 3),
    ],
)
def test_the_names_of_the_jobs_of_parts_and_which_one_is_a_template(flags, jobs):
    options = PipelineOptions(list(flags))
    part_jobs = runner_options.PartJobs(options)
    google = options.view_as(GoogleCloudOptions)
    for index, expected in enumerate(jobs):
        part_jobs.prepare(Commit(index, (), is_last=index == 2))
        assert (google.job_name, google.template_location) == expected


def test_the_job_of_the_only_part_has_the_name_that_was_given():
    options = PipelineOptions(list(NAMED))
    runner_options.PartJobs(options).prepare(Commit(0, ()))
    assert options.view_as(GoogleCloudOptions).job_name == "photographs"


@pytest.mark.parametrize(
    ("flags", "outlives"),
    [
        ("--runner DataflowRunner", True),
        ("--runner FlinkRunner --flink_master host:8081", True),
        ("--runner FlinkRunner", False),
        ("--runner SparkRunner", False),
        ("--runner SparkRunner --spark_master_url spark://host:7077", True),
        ("--runner PrismRunner", False),
        ("--runner PortableRunner --job_endpoint host:8099", True),
        ("--runner flink --flink_master host:8081", True),
        ("--runner apache_beam.runners.dataflow.dataflow_runner.DataflowRunner", True),
    ],
)
def test_which_jobs_outlive_the_command(flags, outlives):
    assert runner_options.job_outlives_command(PipelineOptions(flags.split())) is outlives


def test_a_job_server_that_ends_with_the_command_is_waited_for():
    with pytest.raises(UsageError, match="--job_endpoint"):
        runner_options.parse_options(
            ["--runner", "FlinkRunner", "--flink_master", "host:8081", "--no_wait_until_finish"]
        )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--direct_num_workers", "many"], "many"),
        (["--runner", "NoSuchRunner"], "NoSuchRunner"),
    ],
)
def test_what_beam_cannot_use_is_reported_in_one_line(arguments, said):
    with pytest.raises(UsageError, match=said) as raised:
        runner_options.parse_options(arguments)
    assert "\n" not in str(raised.value)
