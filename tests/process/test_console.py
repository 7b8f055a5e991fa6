"""Tests that no state of the standard streams ends a command or changes its status."""

import subprocess
import sys
from pathlib import Path

import pytest

from beam_pipeline.process import console

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from beam_pipeline.process import console

def main():
    for number in range(3000):
        console.write_line(f"{number} na\u00efve \U0001f600 https://me:s3cr3t@a.example/")
    return console.complain("a fault", 3)

sys.exit(console.run(main))
"""


def shell(command: str, **environment: str) -> subprocess.CompletedProcess:
    script = command.format(f"{sys.executable} -c '{SCRIPT}'")
    return subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment or None,
    )


@pytest.mark.parametrize(
    ("command", "errors"),
    [
        ("{}", ["a fault"]),
        ("{} >&-", ["a fault"]),
        (
            "{} > /dev/full",
            ["standard output cannot be written: [Errno 28] No space left on device", "a fault"],
        ),
        ("{} | head -1; exit ${{PIPESTATUS[0]}}", ["a fault"]),
        ("{} 2>&-", []),
        ("{} 2> /dev/full", []),
        ("{} > /dev/full 2> /dev/full", []),
        ("{} >&- 2>&- <&-", []),
    ],
)
def test_the_status_is_the_commands(command, errors):
    done = shell(command)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [f"beam_pipeline: {error}" for error in errors]


def test_what_cannot_be_encoded_is_escaped():
    done = shell("{}", PYTHONIOENCODING="ascii")
    assert done.returncode == 3
    assert done.stdout.splitlines()[0] == r"0 na\xefve \U0001f600 https://REDACTED@a.example/"


def test_a_file_is_never_opened_as_a_closed_standard_stream(tmp_path):
    script = f"""
import subprocess, sys
from beam_pipeline.process import console

def main():
    with open("{tmp_path}/shard", "wb") as shard:
        assert shard.fileno() > 2
        console.write_line("a line")
        subprocess.run(["echo", "a child"])
    return 0

sys.exit(console.run(main))
"""
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -c '{script}' >&-"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "shard").read_bytes() == b""


@pytest.mark.parametrize(
    "command", ["run --help", "flex_template", "validate --help", "report --help"]
)
def test_help_on_a_full_disk_is_no_traceback(command):
    arguments = f"{sys.executable} -m beam_pipeline.{command} > /dev/full"
    done = subprocess.run(
        ["bash", "-c", arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) <= 1


def test_messages_are_one_line_without_credentials(capsys):
    assert console.complain("a\nb https://a.example/?sig=s3cr3t", 2) == 2
    assert capsys.readouterr().err == "beam_pipeline: a b https://a.example/?sig=REDACTED\n"
