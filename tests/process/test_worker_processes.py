"""Tests of the map over processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from patience import wait_until

from beam_pipeline.process.worker_processes import map_in_processes

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


def test_results_are_in_the_order_of_the_items():
    items = list(range(-20, 20))
    assert list(map_in_processes(abs, items, 1000)) == list(map(abs, items))


def test_processes_end_when_a_killed_command_takes_no_result(tmp_path):
    script, started = tmp_path / "program.py", tmp_path / "started"
    script.write_text(PROGRAM)
    started.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, script, started], env=environment) as process:
        assert wait_until(lambda: len(os.listdir(started)) == 2)
        process.send_signal(signal.SIGSTOP)  # a result is larger than what a pipe holds
        workers = [int(name) for name in os.listdir(started)]
        assert wait_until(lambda: all(map(is_waiting, workers)))
        process.kill()
    assert wait_until(lambda: not any(map(is_waiting, workers)))


def is_waiting(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "S"
    except OSError:
        return False
