"""Tests of the progress line."""

import io
import os
import pty
import re
import select
import termios
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.launch.progress import Progress, describe_tally, format_progress
from beam_pipeline.transforms.ticks import Tally, TickFile, Ticks


def tick(ticks: Ticks, examples: int, failures: int) -> None:
    for _ in range(examples):
        ticks.example()
    for _ in range(failures):
        ticks.failure("dns")


@pytest.mark.parametrize(
    ("images", "failures", "seconds", "total", "initial", "expected"),
    [
        (0, 0, 0, None, 0, "0 images, starting"),
        (0, 0, 0, 100, 0, "0 of 100 images (0%), starting"),
        (40, 0, 0, 100, 40, "40 of 100 images (40%), starting"),
        (1290, 56, 100.0, None, 0, "1,290 images, 12.9 images/s, 56 failed"),
        (100, 40, 10.0, 1100, 0, "100 of 1,100 images (9%), 10.0 images/s, 40 failed, 01:40 left"),
        (500, 3, 10.0, 1000, 400, "500 of 1,000 images (50%), 10.0 images/s, 3 failed, 00:50 left"),
        (
            1,
            0,
            1.0,
            1_000_001,
            0,
            "1 of 1,000,001 images (0%), 1.0 images/s, 0 failed, 277:46:40 left",
        ),
        (120, 0, 10.0, 100, 0, "120 of 120 images (100%), 12.0 images/s, 0 failed, 00:00 left"),
        (0, 0, 3.0, 10, 0, "0 of 10 images (0%), 0.0 images/s, 0 failed"),
        (5, 0, 10.0, 0, 0, "5 images, 0.5 images/s, 0 failed"),
    ],
)
def test_format_progress(images, failures, seconds, total, initial, expected):
    assert format_progress(images, failures, seconds, total, initial) == expected


@given(
    st.integers(0, 10**8),
    st.integers(0, 10**8),
    st.one_of(st.just(0.0), st.floats(0.001, 10**7)),
    st.one_of(st.none(), st.integers(0, 10**8)),
    st.integers(0, 10**8),
    st.one_of(st.none(), st.integers(10, 200)),
)
def test_progress_is_one_line_whatever_the_numbers(new, failures, seconds, total, initial, columns):
    images = initial + new
    text = format_progress(images, failures, seconds, total, initial, columns)
    assert text.startswith(f"{images:,} "[:columns])
    assert len(text.splitlines()) == 1 and len(text) <= (columns or 200)


def test_a_log_file_gets_one_line_at_an_interval(tmp_path):
    path = tmp_path / "ticks"
    path.touch()
    stream = io.StringIO()
    with Progress(TickFile(str(path)), stream, 40, 10, interval=0.05) as progress:
        while "\n" not in stream.getvalue():
            time.sleep(0.01)
        progress.total = 100
        tick(TickFile(str(path)), 7, 3)
        while "60 left" not in stream.getvalue() and " left" not in stream.getvalue():
            time.sleep(0.01)
    first, *_, last = stream.getvalue().splitlines()
    assert first == "40 images, starting"
    assert re.fullmatch(r"50 of 100 images \(50%\), \d+\.\d images/s, 13 failed, 00:0\d left", last)


def test_duplicates_count_once_a_part_is_complete(tmp_path):
    path = tmp_path / "ticks"
    path.touch()
    stream = io.StringIO()
    ticks = TickFile(str(path))
    with Progress(TickFile(str(path)), stream, interval=0.05) as progress:
        tick(ticks, 5, 0)
        assert "0 images are complete; 5 images of" in progress.describe_interruption()
        progress.complete_part(8)
        tick(ticks, 2, 1)
        assert "8 images are complete; 3 images of" in progress.describe_interruption()
        while "\n11 images" not in "\n" + stream.getvalue():
            time.sleep(0.01)


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
        with Progress(TickFile(str(path)), stream) as progress:
            assert b"starting" in read_terminal(terminal, b"starting")
            progress.total = 1000
            tick(TickFile(str(path)), 3, 2)
            shown = read_terminal(terminal, b" left")
            assert re.search(rb"\r5 of 1,000 images \(0%\), [\d.]+ images/s, 2 failed, ", shown)
        assert read_terminal(terminal, b"\r\x1b[K").endswith(b"\r\x1b[K")
        assert b"\n" not in shown
    assert "progress" not in [thread.name for thread in threading.enumerate()]


def test_the_progress_line_is_no_longer_than_the_terminal_is_wide(tmp_path):
    path = tmp_path / "ticks"
    path.touch()
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 40))
    with open(terminal, "rb", buffering=0), open(end, "w") as stream:
        with Progress(TickFile(str(path)), stream):
            tick(TickFile(str(path)), 1000, 1000)
            shown = read_terminal(terminal, b"2,000 images")
        shown += read_terminal(terminal, b"\r\x1b[K")
    lines = [line.removesuffix(b"\x1b[K") for line in shown.split(b"\r")]
    assert any(line.startswith(b"2,000 images, ") for line in lines)
    assert max(map(len, lines)) == 39


def test_the_progress_line_ends_with_the_run_whatever_ends_it(tmp_path):
    path = tmp_path / "ticks"
    path.touch()
    terminal, end = pty.openpty()
    with open(terminal, "rb", buffering=0), open(end, "w") as stream:
        with pytest.raises(KeyboardInterrupt), Progress(TickFile(str(path)), stream):
            raise KeyboardInterrupt
        assert "progress" not in [thread.name for thread in threading.enumerate()]


def test_reasons_and_times_follow_where_they_are_known():
    tally = Tally(30, 10, {"dns": 1, "http_404": 6, "timeout": 2, "empty": 1}, {"fetch": 80_000})
    text = describe_tally(tally)
    assert text == "; failed: 6 http_404, 2 timeout, 1 dns; ms an image: fetch 2.0"
    assert describe_tally(Tally(3, 1)) == ""
    shown = format_progress(40, 10, 4.0, 100, details="; failed: 9 {odd}, 1 100%")
    assert shown.endswith(", 10 failed, 00:06 left; failed: 9 {odd}, 1 100%")


class Workers:
    """A source whose counts a test sets."""

    tally, parts = Tally(), 0

    def read(self) -> Tally:
        return self.tally

    def next_part(self) -> None:
        self.parts += 1


def test_failures_of_complete_parts_count_though_their_files_are_removed():
    workers, stream = Workers(), io.StringIO()
    with Progress(workers, stream, interval=0.01) as progress:
        workers.tally = Tally(5, 3)
        while "3 failed" not in stream.getvalue():
            time.sleep(0.01)
        workers.tally = Tally()
        progress.complete_part(9, 3)
        workers.tally = Tally(1, 1)
        while "\n11 images" not in stream.getvalue():
            time.sleep(0.01)
    assert workers.parts == 1
    assert ", 4 failed" in stream.getvalue().splitlines()[-1]
