"""Tests that `python -m beam_pipeline` lists the commands."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_command_that_is_listed_has_help():
    listed = subprocess.run(
        [sys.executable, "-m", "beam_pipeline"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    commands = [
        line.split()[2] for line in listed.stdout.splitlines() if line.startswith("python -m ")
    ]
    assert commands == [
        f"beam_pipeline.{name}"
        for name in ("run", "validate", "compare", "export", "report", "flex_template")
    ]
    for command in commands:
        shown = subprocess.run(
            [sys.executable, "-m", command, "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stdout.startswith("usage: ")
