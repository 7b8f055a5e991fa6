"""Tests of the Flex Template's spec.

The committed file must match Config, and Google's own classes must read it.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.cloud.dataflow_v1beta3 import ContainerSpec, ParameterType

from beam_pipeline import flex_template
from beam_pipeline.config import Config
from beam_pipeline.launch.command_line import CommandLine, parse

ROOT = Path(__file__).parent.parent
PARAMETERS = {
    parameter["name"]: parameter
    for parameter in flex_template.container_spec()["metadata"]["parameters"]
}
GIVEN = {
    "input": "gs://bucket/urls.txt",
    "images": "gs://bucket/*.jpg",
    "output": "gs://bucket/dataset",
    "count": "1000",
    "original_dir": "gs://bucket/original",
    "resized_dir": "gs://bucket/resized",
    "checkpoint_sha256": "0" * 64,
    "exclude_sha256": "gs://bucket/placeholders.txt",
    "fallback_images": "gs://bucket/train.tar",
    "fallback": "wayback",
    "fallback_url": "http://localhost:8080/my-collection/",
    "retry_reasons": "timeout,dns",
    "urls_per_commit": "1000000",
    "class_names": "gs://bucket/names.txt",
    "url_column": "URL",
    "id_column": "key",
    "class_column": "label",
    "sha256_column": "sha256",
    "md5_column": "md5",
    "keep_columns": "caption,license",
    "class_file": "gs://bucket/classes.csv",
    "validation_input": "gs://bucket/validation.txt",
    "validation_images": "gs://bucket/val/",
    "validation_ids": "gs://bucket/ids.txt",
    "min_side": "64",
    "max_aspect_ratio": "3.5",
    "min_colorfulness": "12.5",
    "filter_preset": "bigcolor",
}


def launch(**parameters: str) -> CommandLine:
    """Parse options as the launcher of Flex Templates passes them: `--name=value`."""
    return parse([f"--{name}={value}" for name, value in parameters.items()])


def test_the_committed_file_is_what_the_command_prints():
    printed = subprocess.run(
        [sys.executable, "-m", "beam_pipeline.flex_template"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert (ROOT / "dataflow_template.json").read_text() == printed.stdout, (
        "run python -m beam_pipeline.flex_template > dataflow_template.json"
    )


def test_googles_class_reads_the_file():
    spec = ContainerSpec.from_json((ROOT / "dataflow_template.json").read_text())
    read = {parameter.name: parameter for parameter in spec.metadata.parameters}
    assert list(read) == [
        field.name for field in dataclasses.fields(Config) if field.name != "report"
    ]
    assert not read["output"].is_optional
    assert all(parameter.is_optional for name, parameter in read.items() if name != "output")
    assert read["encoding"].param_type == ParameterType.ENUM
    assert [option.value for option in read["encoding"].enum_options] == [
        "lab_float32",
        "lab_uint8",
        "rgb_png",
    ]
    assert read["skip"].param_type == ParameterType.NUMBER
    assert read["overwrite"].param_type == ParameterType.BOOLEAN
    assert spec.sdk_info.language.name == "PYTHON"


def test_googles_class_would_refuse_another_key():
    with pytest.raises(Exception, match="no_such_key"):
        ContainerSpec.from_json(json.dumps({**flex_template.container_spec(), "no_such_key": 1}))


def test_an_image_can_be_named():
    spec = flex_template.container_spec("europe-docker.pkg.dev/p/r/image:1")
    assert (
        spec["image"]
        == spec["defaultEnvironment"]["sdkContainerImage"]
        == "europe-docker.pkg.dev/p/r/image:1"
    )


@pytest.mark.parametrize("name", PARAMETERS)
def test_an_option_goes_from_the_template_into_the_command(name):
    parameter = PARAMETERS[name]
    [default] = (field.default for field in dataclasses.fields(Config) if field.name == name)
    opposite = str(not default).lower()
    value = GIVEN.get(name) or (
        opposite if isinstance(default, bool) else parameter.get("defaultValue", "true")
    )
    for regex in parameter.get("regexes", ()):
        assert re.search(regex, value)
    others = {"output": GIVEN["output"]} | (
        {} if name in ("input", "images") else {"input": GIVEN["input"]}
    )
    if name == "fallback_url":
        others["fallback"] = GIVEN["fallback"]
    if name == "stratify":
        others["validation_fraction"] = "0.1"
    config, _, beam_argv = launch(**{**others, name: value})
    assert beam_argv == []
    if name in GIVEN:
        assert str(getattr(config, name)) == value
    elif name in ("statistics", "drop_grey", "drop_tinted", "near_duplicates"):
        assert getattr(config, name) is True
    elif isinstance(default, bool):
        assert getattr(config, name) is not default
    else:
        assert getattr(config, name) == default


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("encoding", "lab"),
        ("skip", "-1"),
        ("skip", "few"),
        ("fetch_timeout", "ten"),
        ("overwrite", "yes"),
        ("resize", "pad|crop"),
    ],
)
def test_values_that_make_no_sense_do_not_pass_the_template(name, value):
    assert not any(re.search(regex, value) for regex in PARAMETERS[name]["regexes"])


def test_flags_are_turned_on_and_off():
    assert launch(input="urls.txt", output="out", overwrite="true")[0].overwrite
    assert not launch(input="urls.txt", output="out", overwrite="false")[0].overwrite


def test_flags_of_the_launcher_are_left_to_beam():
    flags = [
        "--runner=DataflowRunner",
        "--template_location=gs://bucket/job_object",
        "--a_flag_of_the_launcher=1",
    ]
    config, _, beam_argv = parse(
        ["--input=gs://bucket/urls.txt", "--output=gs://bucket/out", *flags]
    )
    assert beam_argv == flags
    assert config.output == "gs://bucket/out"


def test_the_launchers_script_is_the_command():
    shown = subprocess.run(
        [sys.executable, "main.py", "--help"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert "--urls_per_commit" in shown.stdout
