"""Tests of the files through which processes report progress."""

import multiprocessing
import os
import pickle
import threading

from beam_pipeline.process import stage_times
from beam_pipeline.transforms.ticks import WRITE_INTERVAL, Tally, TickFile, TickFolder, Ticks


def tick(ticks: Ticks, examples: int, failures: int) -> None:
    for _ in range(examples):
        ticks.example()
    for _ in range(failures):
        ticks.failure("dns")


def test_ticks_are_bytes_in_a_file(tmp_path):
    tick(TickFile(str(tmp_path / "ticks")), 2, 1)
    assert (tmp_path / "ticks").read_bytes() == b"++-"


def test_ticks_add_to_what_is_there(tmp_path):
    path = tmp_path / "ticks"
    for _ in range(2):
        tick(TickFile(str(path)), 1, 1)
    assert path.read_bytes() == b"+-+-"


def test_ticks_that_were_used_can_still_be_sent_to_another_process(tmp_path):
    ticks = TickFile(str(tmp_path / "ticks"))
    ticks.example()
    pickle.loads(pickle.dumps(ticks)).failure("dns")
    ticks.example()
    assert (tmp_path / "ticks").read_bytes() == b"+-+"


def test_no_tick_of_several_processes_is_lost(tmp_path):
    path = tmp_path / "ticks"
    ticks = TickFile(str(path))
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
    ticks = TickFile(str(path))
    threads = [threading.Thread(target=tick, args=(ticks, 1000, 500)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = path.read_bytes()
    assert (written.count(b"+"), written.count(b"-"), len(written)) == (4000, 2000, 6000)


def test_ticks_that_are_forgotten_close_their_file(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        pickle.loads(pickle.dumps(TickFile(str(tmp_path / "ticks")))).example()
    assert (tmp_path / "ticks").read_bytes() == b"+" * 5
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_tick_file_counts_from_the_last_complete_part(tmp_path):
    path = tmp_path / "ticks"
    path.touch()
    ticks = TickFile(str(path))
    tick(ticks, 4, 1)
    assert ticks.read()[:2] == (4, 1)
    ticks.next_part()
    assert ticks.read() == Tally()
    tick(ticks, 2, 2)
    assert ticks.read()[:2] == (2, 2)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_tick_folder_has_the_counts_of_a_process_at_intervals(tmp_path):
    clock = Clock()
    ticks = TickFolder(str(tmp_path), 3, clock)
    tick(ticks, 2, 1)
    assert os.listdir(tmp_path) == []
    stage_times.add("decode", 5000)
    clock.now += WRITE_INTERVAL
    ticks.failure("http_404")
    tick(ticks, 7, 0)
    assert os.listdir(tmp_path) == ["beam-temp-progress-00003"]
    read = TickFolder(str(tmp_path), 3).read()
    assert (read.examples, read.failures, read.images) == (2, 2, 4)
    assert read.reasons == {"dns": 1, "http_404": 1}
    assert read.microseconds["decode"] >= 5000
    clock.now += WRITE_INTERVAL
    ticks.example()
    assert TickFolder(str(tmp_path), 3).read().examples == 10


def test_a_tick_folder_adds_up_processes_and_leaves_out_what_is_broken(tmp_path):
    folder = tmp_path / "beam-temp-progress-00000"
    folder.mkdir()
    counts = '{"examples": 5, "failures": {"dns": 2}, "microseconds": {"fetch": 7}}'
    for name in ("one", "other"):
        (folder / f"{name}.json").write_text(counts)
    (folder / "half.json").write_text(counts[:20])
    ticks = TickFolder(str(tmp_path))
    assert ticks.read() == Tally(10, 4, {"dns": 4}, {"fetch": 14})
    ticks.next_part()
    assert ticks.read() == Tally()


def test_a_folder_that_cannot_be_written_costs_no_image(tmp_path):
    (tmp_path / "file").touch()
    clock = Clock()
    ticks = TickFolder(str(tmp_path / "file"), 0, clock)
    clock.now += WRITE_INTERVAL
    tick(ticks, 2, 2)
    assert (tmp_path / "file").read_bytes() == b""


def test_a_tick_folder_can_be_sent_to_another_process(tmp_path):
    ticks = TickFolder(str(tmp_path), 2)
    ticks.example()
    sent = pickle.loads(pickle.dumps(ticks))
    assert sent._folder == f"{tmp_path}/beam-temp-progress-00002"
