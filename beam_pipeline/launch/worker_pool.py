"""Worker processes of the DirectRunner that are kept from one run of the graph to the next.

Beam's own processes are started anew for each graph: importing Beam takes seconds, and loading the
network more.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2_grpc, endpoints_pb2
from apache_beam.runners.portability import local_job_service
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.transforms import environments
from apache_beam.utils import thread_pool_executor
from google.protobuf import json_format, text_format

from beam_pipeline.process import processors, signals, worker_processes

_URN = "beam_pipeline:env:kept_process:v1"
_pools: dict[bytes, WorkerPool] = {}


class WorkerPool:
    """Processes that run Beam's SDK harness, for one graph after the other.

    A context manager: the processes end with it.
    """

    def __init__(self, processes: int):
        """Initialize the pool.

        Args:
          processes: Number of processes.
        """
        self._count = processes
        self._key = os.urandom(8)
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._logging = grpc.server(thread_pool_executor.shared_unbounded_instance())
        self._log_port = self._logging.add_insecure_port("127.0.0.1:0")
        beam_fn_api_pb2_grpc.add_BeamFnLoggingServicer_to_server(
            local_job_service.BeamFnLoggingServicer(), self._logging
        )

    def __enter__(self) -> WorkerPool:
        _pools[self._key] = self
        self._logging.start()
        self._processes = [_Process(self._count) for _ in range(self._count)]
        for process in self._processes:
            self._idle.put(process)
        return self

    def __exit__(self, *unused_error: object) -> None:
        for process in self._processes:
            process.end()
        self._logging.stop(0)
        del _pools[self._key]

    def make_runner(self) -> FnApiRunner:
        """Return a runner for one graph whose workers are these processes.

        The option `direct_num_workers` is their number.
        """
        return FnApiRunner(default_environment=_Environment(self._key))

    def serve(self, environment: Mapping[str, str]) -> _Process:
        """Make an idle process serve a graph, and return it.

        Args:
          environment: The variables that Beam's worker reads.
        """
        log = endpoints_pb2.ApiServiceDescriptor(url=f"localhost:{self._log_port}")
        process = self._idle.get()
        process.serve(
            {**environment, "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(log)}
        )
        return process

    def take_back(self, process: _Process) -> None:
        """Wait until a process has served its graph."""
        process.wait()
        self._idle.put(process)


class _Process:
    """One process of a pool. If it dies, it ends the run: Beam would wait for it forever."""

    def __init__(self, processes: int):
        # A fork of a process with threads may deadlock.
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other, processes), daemon=True)
        self._process.start()
        other.close()

    def serve(self, environment: Mapping[str, str]) -> None:
        self._pipe.send(environment)
        self._waiting = threading.Thread(target=self._wait, name="worker process", daemon=True)
        self._waiting.start()

    def wait(self) -> None:
        self._waiting.join()

    def end(self) -> None:
        self._process.kill()
        self._process.join()

    def _wait(self) -> None:
        try:
            self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            how = f"by signal {-code}" if code < 0 else f"with exit status {code}"
            if code == -signal.SIGKILL:
                how += ", as when memory is short"
            signals.end(
                f"a worker process ended {how}. Run the same command again to continue, with "
                "fewer --direct_num_workers if memory is short.",
                1,
            )


class _Environment(environments.Environment):
    """Beam's description of the processes of a pool."""

    def __init__(self, key: bytes):
        super().__init__(capabilities=environments.python_sdk_capabilities())
        self._key = key

    def to_runner_api_parameter(self, context: Any) -> tuple[str, bytes]:
        return _URN, self._key


@worker_handlers.WorkerHandler.register_environment(_URN, bytes)
class _KeptWorkerHandler(worker_handlers.GrpcWorkerHandler):
    """Beam's handle of a process of a pool during one graph."""

    def __init__(self, key: bytes, *arguments: Any):
        super().__init__(*arguments)
        self._pool = _pools[key]

    def start_worker(self) -> None:
        control = endpoints_pb2.ApiServiceDescriptor(url=self.control_address)
        self._process = self._pool.serve(
            {
                "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
                "PIPELINE_OPTIONS": json_format.MessageToJson(
                    self.provision_info.provision_info.pipeline_options
                ),
                "WORKER_ID": self.worker_id,
            }
        )

    def stop_worker(self) -> None:
        self._pool.take_back(self._process)


def _work(pipe: Connection, processes: int) -> None:
    """Serve graphs until the parent process ends this one, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the parent too
    worker_processes.end_with_parent()
    processors.share(processes)
    from apache_beam.runners.worker import sdk_worker_main

    while True:
        log_handler, harness, _ = sdk_worker_main.create_harness(pipe.recv())
        try:
            harness.run()
        finally:
            logging.getLogger().removeHandler(log_handler)
            log_handler.close()
        pipe.send("done")
