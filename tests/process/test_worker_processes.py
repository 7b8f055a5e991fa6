"""Tests of the map over processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from patience import wait_until

from beam_pipeline.process import worker_processes

PROGRAM = """
import os, pathlib, sys, time
from beam_pipeline.process import worker_processes

def make(index):
    pathlib.Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(0.02)
    return bytes(2**20)

if __name__ == "__main__":
    worker_processes.count_processors = lambda: 2
    for result in worker_processes.map_in_processes(make, range(1000), 1000):
        pass
"""


def test_results_are_in_the_order_of_the_items(monkeypatch):
    monkeypatch.setattr(worker_processes, "count_processors", lambda: 2)
    items = list(range(-20, 20))
    found = list(worker_processes.map_in_processes(abs, items, 1000))
    assert found == list(map(abs, items))


def test_processes_end_when_a_killed_command_takes_no_result(tmp_path):
    script, started = tmp_path / "program.py", tmp_path / "started"
    script.write_text(PROGRAM)
    started.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    workers: list[int] = []
    with subprocess.Popen([sys.executable, script, started], env=environment) as process:
        try:
            assert wait_until(lambda: len(os.listdir(started)) == 2)
            workers = [int(name) for name in os.listdir(started)]
            process.send_signal(signal.SIGSTOP)  # a result is larger than what a pipe holds
            assert all(map(runs, workers))
        finally:
            process.kill()
    try:
        assert wait_until(lambda: not any(map(runs, workers)))
    finally:
        for worker in filter(runs, workers):
            os.kill(worker, signal.SIGKILL)


def runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
