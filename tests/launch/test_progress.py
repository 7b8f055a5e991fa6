"""Tests of the progress line, and of the file through which processes report progress."""

import io
import multiprocessing
import os
import pickle
import pty
import re
import select
import termios
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.launch.progress import ProgressLine, format_progress
from beam_pipeline.transforms.ticks import Ticks


def tick(ticks: Ticks, examples: int, failures: int) -> None:
    for _ in range(examples):
        ticks.example()
    for _ in range(failures):
        ticks.failure()


@pytest.mark.parametrize(
    ("examples", "failures", "seconds", "total", "expected"),
    [
        (0, 0, 0, None, "starting"),
        (0, 0, 0, 100, "starting"),
        (1234, 56, 100.0, None, "1,234 images written, 56 failed, 12.3 a second"),
        (60, 40, 10.0, 1100, "60 images written, 40 failed, 6.0 a second, 0:01:40 left"),
        (1, 0, 1.0, 3601, "1 images written, 0 failed, 1.0 a second, 1:00:00 left"),
        (1, 0, 1.0, 1_000_001, "1 images written, 0 failed, 1.0 a second, 277:46:40 left"),
        (100, 0, 10.0, 100, "100 images written, 0 failed, 10.0 a second, 0:00:00 left"),
        (120, 0, 10.0, 100, "120 images written, 0 failed, 12.0 a second, 0:00:00 left"),
        (0, 5, 10.0, 10, "0 images written, 5 failed, 0.0 a second, 0:00:10 left"),
        (0, 0, 3.0, 10, "0 images written, 0 failed, 0.0 a second"),
        (5, 0, 10.0, 0, "5 images written, 0 failed, 0.5 a second"),
    ],
)
def test_format_progress(examples, failures, seconds, total, expected):
    assert format_progress(examples, failures, seconds, total) == expected


@given(
    st.integers(0, 10**8),
    st.integers(0, 10**8),
    st.floats(0, 10**7),
    st.one_of(st.none(), st.integers(0, 10**8)),
)
def test_progress_is_one_line_whatever_the_numbers(examples, failures, seconds, total):
    text = format_progress(examples, failures, seconds, total)
    assert text == "starting" or text.startswith(
        f"{examples:,} images written, {failures:,} failed, "
    )
    assert len(text.splitlines()) == 1
    assert re.fullmatch(r"[^-]+(, \d+:[0-5]\d:[0-5]\d left)?", text)


def test_ticks_are_bytes_in_a_file(tmp_path):
    tick(Ticks(str(tmp_path / "ticks")), 2, 1)
    assert (tmp_path / "ticks").read_bytes() == b"++-"


def test_ticks_add_to_what_is_there(tmp_path):
    path = tmp_path / "ticks"
    for _ in range(2):
        tick(Ticks(str(path)), 1, 1)
    assert path.read_bytes() == b"+-+-"


def test_ticks_that_were_used_can_still_be_sent_to_another_process(tmp_path):
    ticks = Ticks(str(tmp_path / "ticks"))
    ticks.example()
    pickle.loads(pickle.dumps(ticks)).failure()
    ticks.example()
    assert (tmp_path / "ticks").read_bytes() == b"+-+"


def test_no_tick_of_several_processes_is_lost(tmp_path):
    path = tmp_path / "ticks"
    ticks = Ticks(str(path))
    ticks.example()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=tick, args=(ticks, 3000, 1000)) for _ in range(2)]
    for worker in workers:
        worker.start()
    tick(ticks, 3000, 1000)
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    written = path.read_bytes()
    assert (written.count(b"+"), written.count(b"-"), len(written)) == (9001, 3000, 12_001)


def test_no_tick_of_several_threads_is_lost(tmp_path):
    path = tmp_path / "ticks"
    ticks = Ticks(str(path))
    threads = [threading.Thread(target=tick, args=(ticks, 1000, 500)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = path.read_bytes()
    assert (written.count(b"+"), written.count(b"-"), len(written)) == (4000, 2000, 6000)


def test_the_progress_line_is_silent_where_there_is_no_terminal(tmp_path):
    path = tmp_path / "ticks"
    path.touch()
    stream = io.StringIO()
    before = threading.active_count()
    with ProgressLine(str(path), stream) as progress:
        progress.total = 10
        tick(Ticks(str(path)), 1, 1)
        assert threading.active_count() == before
    assert stream.getvalue() == ""


def read_terminal(terminal: int, until: bytes) -> bytes:
    """Read what is shown, until `until` appears or no more output arrives."""
    seen = b""
    while until not in seen and select.select([terminal], [], [], 20)[0]:
        seen += os.read(terminal, 1000)
    return seen


def test_the_progress_line_is_rewritten_on_a_terminal_and_cleared_at_the_end(tmp_path):
    path = tmp_path / "ticks"
    path.touch()
    terminal, end = pty.openpty()
    with open(terminal, "rb", buffering=0), open(end, "w") as stream:
        with ProgressLine(str(path), stream) as progress:
            assert b"starting" in read_terminal(terminal, b"starting")
            progress.total = 1000
            tick(Ticks(str(path)), 3, 2)
            shown = read_terminal(terminal, b" left")
            assert b"\r3 images written, 2 failed, " in shown
        assert read_terminal(terminal, b"\r\x1b[K").endswith(b"\r\x1b[K")
        assert b"\n" not in shown
    assert "progress" not in [thread.name for thread in threading.enumerate()]


def test_the_progress_line_is_no_longer_than_the_terminal_is_wide(tmp_path):
    path = tmp_path / "ticks"
    path.touch()
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 40))
    with open(terminal, "rb", buffering=0), open(end, "w") as stream:
        with ProgressLine(str(path), stream):
            tick(Ticks(str(path)), 1000, 1000)
            shown = read_terminal(terminal, b"written")
        shown += read_terminal(terminal, b"\r\x1b[K")
    lines = [line.removesuffix(b"\x1b[K") for line in shown.split(b"\r")]
    assert b"1,000 images written, 1,000 failed, 100" in lines[1] + lines[2]
    assert max(map(len, lines)) == 39


def test_the_progress_line_ends_with_the_run_whatever_ends_it(tmp_path):
    path = tmp_path / "ticks"
    path.touch()
    terminal, end = pty.openpty()
    with open(terminal, "rb", buffering=0), open(end, "w") as stream:
        with pytest.raises(KeyboardInterrupt), ProgressLine(str(path), stream):
            raise KeyboardInterrupt
        assert "progress" not in [thread.name for thread in threading.enumerate()]


def test_ticks_that_are_forgotten_close_their_file(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        pickle.loads(pickle.dumps(Ticks(str(tmp_path / "ticks")))).example()
    assert (tmp_path / "ticks").read_bytes() == b"+" * 5
    assert len(os.listdir("/proc/self/fd")) == before
