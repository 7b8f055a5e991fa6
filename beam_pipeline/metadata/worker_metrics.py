"""Beam metrics of a run's workers, added up over the commits.

They are saved with the dataset for its report.
"""

from __future__ import annotations

import json
from typing import Any

from beam_pipeline.naming import METRICS, STAGES
from beam_pipeline.storage import any_path, filesystem


def add(folder: str, result: Any, seconds: float) -> None:
    """Add the metrics of a graph to the folder's `metrics.json`.

    The file holds `commits`, `seconds`, and by namespace and name the values of counters and the
    sums of distributions.

    Args:
      folder: The dataset's folder.
      result: The result of the Beam pipeline.
      seconds: The run time of the graph.
    """
    total = read(folder) or {"commits": 0, "seconds": 0.0}
    query = result.metrics().query()
    values = [(found.key.metric, found.result) for found in query["counters"]]
    values += [
        (found.key.metric, found.result.sum)
        for found in query["distributions"]
        if found.result is not None
    ]
    for metric, value in values:
        if metric.namespace in STAGES and value:  # Beam has other namespaces
            counters = total.setdefault(metric.namespace, {})
            counters[metric.name] = counters.get(metric.name, 0) + value
    total["commits"] += 1
    total["seconds"] += seconds
    filesystem.write_bytes(any_path.join(folder, METRICS), json.dumps(total, indent=1).encode())


def read(folder: str) -> dict[str, Any] | None:
    """Return the content of a folder's `metrics.json`; None if it is missing or broken.

    A report does not require it.
    """
    path = any_path.join(folder, METRICS)
    if not any_path.exists(path):
        return None
    try:
        with any_path.open_file(path) as file:
            metrics = json.load(file)
    except ValueError:
        return None
    return metrics if isinstance(metrics, dict) and {"commits", "seconds"} <= set(metrics) else None
