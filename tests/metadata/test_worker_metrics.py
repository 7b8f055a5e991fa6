"""Tests that workers' metrics are written beside the dataset and added up over commits."""

from __future__ import annotations

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beam_pipeline.metadata import worker_metrics


def count(number: int) -> None:
    Metrics.counter("fetch", "images").inc()
    Metrics.distribution("embedding", "inference_batch_latency_micro_secs").update(number)
    Metrics.counter("of somebody else", "images").inc()


def run() -> object:
    graph = beam.Pipeline(runner=FnApiRunner())
    _ = graph | beam.Create([10, 20, 30]) | beam.Map(count)
    result = graph.run()
    result.wait_until_finish()
    return result


def test_adds_up_graphs(tmp_path):
    assert worker_metrics.read(str(tmp_path)) is None
    worker_metrics.add(str(tmp_path), run(), 1.5)
    worker_metrics.add(str(tmp_path), run(), 2)
    assert worker_metrics.read(str(tmp_path)) == {
        "commits": 2,
        "seconds": 3.5,
        "fetch": {"images": 6},
        "embedding": {"inference_batch_latency_micro_secs": 120},
    }


def test_what_is_broken_counts_for_nothing(tmp_path):
    (tmp_path / "metrics.json").write_text("{")
    assert worker_metrics.read(str(tmp_path)) is None
    worker_metrics.add(str(tmp_path), run(), 1)
    assert (worker_metrics.read(str(tmp_path)) or {})["commits"] == 1
