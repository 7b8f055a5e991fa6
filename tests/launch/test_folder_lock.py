"""Tests that one run at a time writes to a folder, and that a crash blocks no later run."""

import fcntl
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipeline.config import UsageError
from beam_pipeline.launch import folder_lock
from beam_pipeline.launch.leases import Owner

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from apache_beam.options.pipeline_options import PipelineOptions
from beam_pipeline.launch import folder_lock
with folder_lock.hold(sys.argv[1], PipelineOptions([])):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(folder: Path):
    return folder_lock.hold(str(folder), PipelineOptions([]))


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "out")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_with_the_name_of_the_holder(holder, tmp_path):
    with (
        pytest.raises(
            UsageError, match=rf"--output .*out is in use by another run \(process {holder.pid} on "
        ),
        hold(tmp_path / "out"),
    ):
        pass
    assert (tmp_path / "out" / "run.lock").exists()


def test_a_process_that_was_killed_blocks_nothing(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / "run.lock").exists()
    with hold(tmp_path / "out"):
        pass
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_was_made_for_nothing_is_removed(tmp_path):
    with hold(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()


def test_the_folder_stays_if_something_is_in_it(tmp_path):
    with hold(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "shard").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["shard"]
    with hold(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "shard").unlink()
    assert (tmp_path / "a" / "b").is_dir()


def test_the_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), hold(tmp_path / "out"):
        raise RuntimeError
    with hold(tmp_path / "out"):
        pass


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match=r"--output .*out cannot be reached: .*Not a directory"),
        hold(tmp_path / "file" / "out"),
    ):
        pass


@pytest.mark.parametrize("error", [FileExistsError, FileNotFoundError])
def test_a_folder_that_is_removed_meanwhile_is_made_again(tmp_path, monkeypatch, error):
    mkdir, errors = os.mkdir, [error(), error()]

    def mkdir_too_late(*arguments):
        if errors:
            raise errors.pop()
        mkdir(*arguments)

    monkeypatch.setattr(os, "mkdir", mkdir_too_late)
    with hold(tmp_path / "out"):
        assert (tmp_path / "out" / "run.lock").exists()


def _enter_and_leave(folder: str, times: int) -> None:
    for _ in range(times):
        try:
            with folder_lock.hold(folder, PipelineOptions([])):
                mark = Path(folder, "mark")
                # Fails if another process holds the lock.
                os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
                mark.unlink()
        except UsageError as error:
            assert "in use by another run" in str(error)


def test_no_two_processes_are_ever_inside(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_enter_and_leave, args=(str(tmp_path / "out"), 300))
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4


def test_a_file_of_someone_else_is_no_lock(tmp_path):
    (tmp_path / "run.lock").write_text("mine")
    with (
        pytest.raises(UsageError, match="this file is not the lock of a run; move it away"),
        hold(tmp_path),
    ):
        pass
    assert (tmp_path / "run.lock").read_text() == "mine"


@pytest.mark.parametrize("target", ["precious", "nowhere/precious"])
def test_a_link_is_not_followed(tmp_path, target):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.lock").symlink_to(tmp_path / target)
    with pytest.raises(UsageError, match="cannot be reached"), hold(tmp_path / "out"):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_no_lock(tmp_path, make):
    make(tmp_path / "run.lock")
    with pytest.raises(UsageError, match="cannot be reached"), hold(tmp_path):
        pass


def test_a_run_does_not_remove_the_lock_of_another(tmp_path):
    folder = tmp_path / "out"
    first = hold(folder)
    first.__enter__()
    shutil.rmtree(folder)
    with hold(folder):
        first.__exit__(None, None, None)
        with pytest.raises(UsageError, match="in use by another run"), hold(folder):
            pass


def test_the_name_of_a_run_that_has_just_taken_the_lock_is_awaited(tmp_path):
    with open(tmp_path / "run.lock", "wb", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = threading.Timer(0.2, file.write, [Owner.this_process().to_json()])
        writer.start()
        with pytest.raises(UsageError, match=rf"process {os.getpid()} on "), hold(tmp_path):
            pass
        writer.join()
