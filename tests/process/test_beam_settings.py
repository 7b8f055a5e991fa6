"""Tests of the settings of a process that runs a graph."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from beam_pipeline.process import beam_settings


def test_temporary_files_are_kept_for_what_ends_with_the_process(tmp_path):
    program = """
import atexit, os, tempfile
from beam_pipeline.process import beam_settings
with beam_settings.temporary_folder():
    path = tempfile.mkdtemp()
    atexit.register(lambda: print(os.path.exists(path)))
print(os.path.dirname(path), tempfile.gettempdir(), os.environ["TMPDIR"])
"""
    variables = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=variables
    )
    redirected, *after, existed = done.stdout.split()
    assert redirected.startswith(f"{tmp_path}/beam_pipeline-")
    assert (after, existed) == ([str(tmp_path)] * 2, "True")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("verbose", "logged"), [(False, ["ours"]), (True, ["ours", "details"])])
def test_only_warnings_of_this_project_are_logged_by_default(verbose, logged):
    program = f"""
import logging
from beam_pipeline.process import beam_settings
beam_settings.quieten({verbose})
logging.getLogger("apache_beam.x").error("theirs")
logging.getLogger("beam_pipeline.x").warning("ours")
logging.getLogger("beam_pipeline.x").info("details")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if line != "theirs"] == logged
    assert ("theirs" in done.stderr) == verbose


def test_settings_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("GRPC_VERBOSITY", "INFO")
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "3")
    beam_settings.prepare()
    assert (os.environ["GRPC_VERBOSITY"], os.environ["TF_CPP_MIN_LOG_LEVEL"]) == ("INFO", "3")
    assert os.environ["MALLOC_ARENA_MAX"] == "3"
