"""What a run's workers have counted, by Beam's metrics: kept beside the dataset for its report, added up over the commits."""

from __future__ import annotations

import json
from typing import Any

from beam_pipeline.naming import METRICS
from beam_pipeline.storage import any_path, filesystem

# The namespaces of this project; Beam has some of its own.
_NAMESPACES = ("fetch", "decode_image", "keep", "embedding", "encode_example", "write")


def add(folder: str, result: Any, seconds: float) -> None:
    """Adds what a graph has counted, and the seconds that it ran, to the folder's `metrics.json`.

    The file holds `commits`, `seconds`, and by namespace and name the values of counters and the sums of distributions.
    """
    total = read(folder) or {"commits": 0, "seconds": 0.0}
    query = result.metrics().query()
    values = [(found.key.metric, found.result) for found in query["counters"]]
    values += [(found.key.metric, found.result.sum) for found in query["distributions"] if found.result is not None]
    for metric, value in values:
        if metric.namespace in _NAMESPACES and value:
            counters = total.setdefault(metric.namespace, {})
            counters[metric.name] = counters.get(metric.name, 0) + value
    total["commits"] += 1
    total["seconds"] += seconds
    filesystem.write_bytes(any_path.join(folder, METRICS), json.dumps(total, indent=1).encode())


def read(folder: str) -> dict[str, Any] | None:
    """Reads a folder's `metrics.json`; None where there is none, or one that is broken: a report can do without."""
    path = any_path.join(folder, METRICS)
    if not any_path.exists(path):
        return None
    try:
        with any_path.open_file(path) as file:
            metrics = json.load(file)
    except ValueError:
        return None
    return metrics if isinstance(metrics, dict) and {"commits", "seconds"} <= set(metrics) else None
