"""The tables of a report, from `dataset.json`, `metrics.json` and a sample: rows with bars.

`bar` of a row is the length of its bar in percent of the longest one. `has_bars` is false if all
bars are equal.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from beam_pipeline import naming
from beam_pipeline.dataset_info import DatasetInfo, Host, Split
from beam_pipeline.elements import EmbeddedImage, ImageRef, RgbImage
from beam_pipeline.process import deflate
from beam_pipeline.reading import class_labels
from beam_pipeline.reading.dataset_dir import DatasetDir
from beam_pipeline.records import example_codec
from beam_pipeline.redaction import redact
from beam_pipeline.reporting import charts, failure_reasons, formatting
from beam_pipeline.reporting.sampling import Sample
from beam_pipeline.storage import any_path

_MAX_ROWS = 20
_MAX_EXTREMES = 5  # rows for the largest and for the smallest classes, if not all are listed
_MAX_LINES = 5_000  # lines of each file of failures that are searched for examples

# Label, namespace and name of the time in Beam's metrics, and the counter of its images, if any.
_STAGES = (
    ("wait for images", naming.FETCH, "waited_microseconds", "images"),
    ("decode, resize, Lab, measures", naming.DECODE, "microseconds", "images"),
    ("network", naming.EMBED, "microseconds", "num_inferences"),
    ("encode", naming.ENCODE, "microseconds", "images"),
    ("write", naming.WRITE, "microseconds", None),
)


def describe_failures(folder: DatasetDir) -> dict[str, Any] | None:
    """Return rows of stage, reason, explanation, number, share and example; None without failures.

    Raises:
      ValueError: A file of failures is broken.
    """
    total = folder.info.counts.failures
    if not total:
        return None
    examples: dict[tuple[str, str], dict[str, Any]] = {}
    for failure in _read_failures(folder):
        examples.setdefault((failure["stage"], failure["reason"]), failure)
    rows: list[dict[str, Any]] = [
        {
            "stage": stage,
            "reason": reason,
            "explanation": failure_reasons.explain(reason),
            "number": number,
            "share": number / total,
            "example": examples.get((stage, reason)),
        }
        for stage, reasons in folder.info.failures_by_stage.items()
        for reason, number in reasons.items()
    ]
    rows.sort(key=lambda row: (-row["number"], row["reason"]))
    return _with_bars(rows, [row["number"] for row in rows])


def _read_failures(folder: DatasetDir) -> Iterator[dict[str, Any]]:
    for file in folder.info.failure_files[:_MAX_ROWS]:
        with any_path.open_file(any_path.join(folder.path, file.name)) as lines:
            try:
                for failure in map(json.loads, itertools.islice(lines, _MAX_LINES)):
                    yield {
                        "stage": failure["stage"],
                        "reason": failure["reason"],
                        "detail": failure["detail"],
                        "url": redact(failure["url"]),
                    }
            except (ValueError, LookupError, TypeError) as error:
                raise ValueError(f"{file.name} is broken: {error}") from error


def describe_hosts(info: DatasetInfo) -> dict[str, Any] | None:
    """Return rows of host, examples, failures and most frequent reasons; and the other hosts.

    None without hosts.
    """
    if not info.hosts:
        return None
    rows = [_describe_host(host) for host in info.hosts]
    shown, rest, others = rows[:_MAX_ROWS], rows[_MAX_ROWS:], info.other_hosts
    table = _with_bars(shown, [row["examples"] + row["failed"] for row in shown])
    return {
        "rows": [_split_bar(row) for row in table["rows"]],
        # Hosts with equally many images may differ in the number of failures.
        "has_bars": len({(row["examples"], row["failed"]) for row in shown}) > 1,
        "others": {
            "hosts": others.hosts + len(rest),
            "examples": others.examples + sum(row["examples"] for row in rest),
            "failed": others.failures + sum(row["failed"] for row in rest),
        },
    }


def _describe_host(host: Host) -> dict[str, Any]:
    reasons = sorted(host.failures.items(), key=lambda item: -item[1])
    listed = [f"{number:,} {reason}" for reason, number in reasons[:3]]
    if rest := sum(number for _, number in reasons[3:]):
        listed.append(f"{rest:,} for other reasons")
    return {
        "host": host.host,
        "examples": host.examples,
        "failed": sum(host.failures.values()),
        "reasons": ", ".join(listed),
    }


def _split_bar(row: dict[str, Any]) -> dict[str, Any]:
    failed = row["bar"] * row["failed"] / max(1, row["examples"] + row["failed"])
    return {**row, "examples_bar": row["bar"] - failed, "failed_bar": failed}


def describe_time(metrics: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return rows of stage, seconds, images and milliseconds per image, from Beam's metrics.

    None without metrics.
    """
    metrics = metrics or {}
    rows = []
    for label, namespace, name, counter in _STAGES:
        counters = metrics.get(namespace, {})
        if name in counters:
            examples = metrics.get(naming.ENCODE, {}).get("images", 0)
            images = counters.get(counter or "", examples)
            seconds = counters[name] / 1e6
            each = 1000 * seconds / images if images else 0
            rows.append({"stage": label, "seconds": seconds, "images": images, "each": each})
    return _with_bars(rows, [row["seconds"] for row in rows]) if rows else None


def describe_sizes(folder: DatasetDir, sample: Sample) -> dict[str, Any]:
    """Return rows of encoding, compression, and the bytes of an example and of all of them.

    A few examples are encoded in each way. `units` holds the units of the two columns of bytes.
    """
    options = folder.info.options
    total = folder.info.counts.examples
    embedding = next((example.embedding for example in sample.examples), None)
    rows = []
    for encoding in ("lab_float32", "lab_uint8", "rgb_png"):
        encoded = [_encode(pixels, embedding, encoding) for pixels in sample.pixels]
        sizes = {
            "none": map(len, encoded),
            "gzip": (len(deflate.compress(data)) for data in encoded),
        }
        for compression, values in sizes.items():
            is_this = (encoding, compression) == (options["encoding"], options["compression"])
            each = sum(values) / max(1, len(encoded))
            rows.append((encoding, compression, is_this, each))
    each_unit, each_texts = formatting.align_bytes([row[-1] for row in rows])
    all_unit, all_texts = formatting.align_bytes([row[-1] * total for row in rows])
    names = ("encoding", "compression", "is_this", "each", "all")
    cells = zip(rows, each_texts, all_texts, strict=True)
    return {
        "rows": [dict(zip(names, (*row[:3], *texts), strict=True)) for row, *texts in cells],
        "units": {"each": each_unit, "all": all_unit},
        "examples": len(sample.pixels),
    }


def _encode(pixels: np.ndarray, embedding: np.ndarray | None, encoding: str) -> bytes:
    image = RgbImage(ImageRef("", ""), pixels, (1, 1))
    return example_codec.encode_example(EmbeddedImage(image, embedding), encoding)


def read_statistics(folder: DatasetDir) -> list[dict[str, Any]] | None:
    """Return mean and standard deviation of L*, a* and b* from `transform/`.

    None without statistics.
    """
    if not folder.has_statistics:
        return None
    # TensorFlow takes seconds to import, which a report without statistics does not need.
    from beam_pipeline.reading import statistics

    learned = statistics.read(folder)
    return [
        {"name": name, "mean": float(mean), "deviation": float(np.sqrt(variance))}
        for name, mean, variance in zip(
            ("L*", "a*", "b*"),
            learned.lab_mean,
            learned.lab_variance,
            strict=True,
        )
    ]


def describe_classes(
    classes: Mapping[str, Mapping[Split, int]], names: Sequence[str] | None = None
) -> dict[str, Any] | None:
    """Return rows of class and images, measures of imbalance, and a chart if there are many rows.

    If not all rows fit, `rows` holds the largest classes and `smallest` the smallest ones. The
    effective number of classes is the exponential of the entropy of their shares: as many classes
    of equal size have the same entropy. None without classes.

    Args:
      classes: The number of examples of each class, by split.
      names: The names of the 1,000 classes of ILSVRC2012, shown beside their WordNet IDs; or None.
    """
    if not classes:
        return None
    labels = class_labels.label_classes(classes)
    is_known = names is not None and set(classes) <= set(class_labels.read_wordnet_ids())
    listed: list[dict[str, Any]] = [
        {
            "name": f"{name} {names[labels[name]]}" if names and is_known else name,
            "number": sum(splits.values()),
            "validation": splits["validation"],
        }
        for name, splits in classes.items()
    ]
    listed.sort(key=lambda row: (-row["number"], row["name"]))
    sizes = [row["number"] for row in listed]
    shares = np.array(sizes) / sum(sizes)
    table = _with_bars(listed, sizes)
    rows, fits = table["rows"], len(listed) <= _MAX_ROWS
    return {
        "number": len(rows),
        "ratio": sizes[0] / max(1, sizes[-1]),
        "effective": float(np.exp(-(shares * np.log(shares)).sum())),
        "rows": rows if fits else rows[:_MAX_EXTREMES],
        "smallest": [] if fits else rows[-_MAX_EXTREMES:],
        "has_bars": table["has_bars"],
        "has_validation": any(row["validation"] for row in listed),
        "chart": charts.draw_classes(sizes) if table["has_bars"] and not fits else None,
    }


def _with_bars(rows: list[dict[str, Any]], values: Sequence[float]) -> dict[str, Any]:
    longest = max(values, default=0) or 1
    bars = [{**row, "bar": 100 * value / longest} for row, value in zip(rows, values, strict=True)]
    return {"rows": bars, "has_bars": len(set(values)) > 1}
