"""Print the container spec of Dataflow's Flex Template.

    python -m beam_pipeline.flex_template > dataflow_template.json

The spec is generated from Config, so that the options, help texts, types, defaults and checks of
the template are those of the command.
https://cloud.google.com/dataflow/docs/guides/templates/configuring-flex-templates
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from typing import Any

from beam_pipeline.config import Config, choices_of, type_of
from beam_pipeline.process import console

IMAGE = "REGION-docker.pkg.dev/PROJECT/REPOSITORY/beam_pipeline"

_NOT_HERE = ("report",)  # a launcher does not wait for the last job
_NUMBERS = {int: r"[0-9]+", float: r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"}


def container_spec(image: str = IMAGE) -> dict[str, Any]:
    """Return a `google.dataflow.v1beta3.ContainerSpec` as a JSON object.

    Args:
      image: The container image that launches the job and runs its workers.
    """
    return {
        "image": image,
        "sdkInfo": {"language": "PYTHON"},
        "metadata": {
            "name": "Image URLs to TFRecords for colorization",
            "description": (
                "Turns a list of image URLs into TFRecords of CIE Lab planes and "
                "Inception-ResNet-v2 embeddings."
            ),
            "parameters": [
                _parameter(field)
                for field in dataclasses.fields(Config)
                if field.name not in _NOT_HERE
            ],
        },
        "defaultEnvironment": {"sdkContainerImage": image},
    }


def _parameter(field: dataclasses.Field[Any]) -> dict[str, Any]:
    kind, choices = type_of(field.name), choices_of(field.name)
    parameter = {
        "name": field.name,
        "label": field.name.replace("_", " ").capitalize(),
        "helpText": field.metadata["help"],
        "isOptional": field.name != "output",
        "groupName": field.metadata["group"].capitalize(),
    }
    if kind is bool:
        parameter |= {"paramType": "BOOLEAN", "regexes": ["^(true|false)$"]}
    elif choices:
        options = [{"value": choice, "label": choice} for choice in choices]
        parameter |= {
            "paramType": "ENUM",
            "enumOptions": options,
            "regexes": [f"^({'|'.join(map(re.escape, choices))})$"],
        }
    elif kind in _NUMBERS:
        parameter |= {"paramType": "NUMBER", "regexes": [f"^{_NUMBERS[kind]}$"]}
    else:
        parameter |= {"paramType": "GCS_WRITE_FOLDER" if field.name == "output" else "TEXT"}
    if field.default not in (None, ""):
        parameter["defaultValue"] = (
            str(field.default).lower() if kind is bool else str(field.default)
        )
    return parameter


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m beam_pipeline.flex_template",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--image",
        default=IMAGE,
        help="the container image that launches the job, and runs its workers",
    )
    console.write_line(json.dumps(container_spec(parser.parse_args().image), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(console.run(main))
