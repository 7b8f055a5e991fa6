"""The page of a report: what `dataset.json` and `metrics.json` tell, and what a sample of the examples shows.

All that strangers have written, such as URLs, is escaped: by Jinja, and in charts by matplotlib.
"""

from __future__ import annotations

import base64
import itertools
import json
import random
import zlib
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np

from beam_pipeline import naming
from beam_pipeline.elements import EmbeddedImage, ImageRef, RgbImage
from beam_pipeline.metadata import worker_metrics
from beam_pipeline.reading import dataset_dir, statistics
from beam_pipeline.reading.dataset_dir import DatasetDir
from beam_pipeline.records import example_codec
from beam_pipeline.redaction import redact
from beam_pipeline.reporting import charts, class_names, sampling
from beam_pipeline.reporting.sampling import Sample, SampledExample
from beam_pipeline.storage import any_path, filesystem

LOOKED_AT = 2_000  # examples whose pixels are read
_SHEET = 12  # pictures in a contact sheet
_ROWS = 20  # of a table or chart


def write(path: str, labels_path: str | None = None) -> str:
    """Writes the report of a finished dataset into its folder. Gives the report's path.

    Args:
      path: The folder, on any filesystem that Beam knows.
      labels_path: A list of class names, as `class_names.read` takes it.

    Raises:
      FileNotFoundError: the folder holds no finished dataset.
      ValueError: a shard, or the list of names, is broken.
    """
    html = render(dataset_dir.open_dataset_dir(path), class_names.read(labels_path) if labels_path else None)
    target = any_path.join(path, naming.REPORT)
    filesystem.write_bytes(target, html.encode(errors="backslashreplace"))
    return target


def render(folder: DatasetDir, names: list[str] | None) -> str:
    """The page: what `dataset.json` and `metrics.json` tell, and what a sample of the examples shows."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("beam_pipeline.reporting", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(number=lambda value: f"{value:,}", bytes=format_bytes, duration=format_duration)
    description, told = folder.description, worker_metrics.read(folder.path)
    sample = sampling.take_sample(folder, LOOKED_AT)
    return environment.get_template("report.html.jinja").render(
        folder=folder.path,
        description=description,
        counts=description["counts"],
        written=sum(file["bytes"] for file in description["files"]),
        failures=describe_failures(folder),
        hosts=describe_hosts(description),
        time=describe_time(told),
        metrics=told,
        fetched=(told or {}).get("fetch", {}),
        prices=describe_prices(folder, sample),
        sheets=make_sheets(sample.seen, names),
        has_names=names is not None,
        looked_at=len(sample.seen),
        lightness=charts.draw_lightness(sample.l_counts),
        colours=charts.draw_colours(sample.ab_counts, 110),
        statistics=read_statistics(folder),
        classes=describe_classes(description["classes"]),
    )


def describe_failures(folder: DatasetDir) -> dict[str, Any] | None:
    """The chart of failures by reason, and rows of stage, reason, number, share and one of the failures, as an example."""
    stages, total = folder.description["failures_by_stage"], folder.description["counts"]["failures"]
    if not total:
        return None
    examples: dict[tuple[str, str], dict[str, Any]] = {}
    for file in folder.description["failure_files"][:_ROWS]:
        with any_path.open_file(any_path.join(folder.path, file["name"])) as lines:
            try:
                for failure in map(json.loads, itertools.islice(lines, 5_000)):
                    shown = {**failure, "url": redact(failure["url"])}
                    examples.setdefault((failure["stage"], failure["reason"]), shown)
            except (ValueError, LookupError, TypeError) as error:
                raise ValueError(f"{file['name']} is broken: {error}") from error
    rows = sorted(
        (
            {"stage": stage, "reason": reason, "number": number, "share": number / total, "example": examples.get((stage, reason))}
            for stage, reasons in stages.items()
            for reason, number in reasons.items()
        ),
        key=lambda row: (-row["number"], row["reason"]),
    )
    bars = {f"{row['stage']}: {row['reason']}": [row["number"]] for row in rows[:_ROWS]}
    return {"rows": rows, "chart": charts.draw_bars("failures", bars, [("failures", charts.RED)], "images")}


def describe_hosts(description: dict[str, Any]) -> dict[str, Any] | None:
    """The chart of the hosts with most images, and rows of host, examples, failures and the most frequent reasons."""
    rows = [
        {
            **host,
            "failed": sum(host["failures"].values()),
            "reasons": ", ".join(
                f"{number:,} {reason}" for reason, number in sorted(host["failures"].items(), key=lambda x: -x[1])[:3]
            ),
        }
        for host in description["hosts"][:_ROWS]
    ]
    if not rows:
        return None
    others = {key: description["other_hosts"][key] for key in ("hosts", "examples", "failures")}
    for host in description["hosts"][_ROWS:]:
        others["hosts"] += 1
        others["examples"] += host["examples"]
        others["failures"] += sum(host["failures"].values())
    bars = {row["host"]: [row["examples"], row["failed"]] for row in rows}
    series = [("examples", charts.GREEN), ("failures", charts.RED)]
    return {"rows": rows, "others": others, "chart": charts.draw_bars("hosts", bars, series, "images")}


def describe_time(told: dict[str, Any] | None) -> dict[str, Any] | None:
    """Where time went, by Beam's metrics: rows of stage, seconds, images and milliseconds an image, and their chart."""
    if told is None:
        return None
    stages = (
        ("fetch (waited)", "fetch", "waited_microseconds", "images"),
        ("decode, resize", "decode_image", "microseconds", "images"),
        ("network", "embedding", "microseconds", "num_inferences"),
        ("Lab, encode", "encode_example", "microseconds", "images"),
        ("write", "write", "microseconds", None),
    )
    rows = []
    for label, namespace, name, counter in stages:
        counters = told.get(namespace, {})
        if name in counters:
            number = counters.get(counter or "", told.get("encode_example", {}).get("images", 0))
            seconds = counters[name] / 1e6
            rows.append({"stage": label, "seconds": seconds, "images": number, "each": 1000 * seconds / number if number else 0})
    if not rows:
        return None
    bars = {row["stage"]: [row["seconds"]] for row in rows}
    return {"rows": rows, "chart": charts.draw_bars("time", bars, [("seconds", charts.BLUE)], "seconds, of all threads together")}


def describe_prices(folder: DatasetDir, sample: Sample) -> list[dict[str, Any]]:
    """What examples take in each encoding, worked out on a few: rows of encoding, compression and bytes."""
    embedding = next((seen.embedding for seen in sample.seen), None)
    total = folder.description["counts"]["examples"]
    rows = []
    for encoding in ("lab_float32", "lab_uint8", "rgb_png"):
        encoded = [
            example_codec.encode_example(EmbeddedImage(RgbImage(ImageRef("", ""), pixels, (1, 1)), embedding), encoding)
            for pixels in sample.pixels
        ]
        for compression in ("none", "gzip"):
            # As Beam packs shards.
            sizes = [len(zlib.compress(data) if compression == "gzip" else data) for data in encoded]
            each = sum(sizes) / max(1, len(sizes))
            options = folder.description["options"]
            is_this = (encoding, compression) == (options["encoding"], options["compression"])
            rows.append({"encoding": encoding, "compression": compression, "each": each, "all": each * total, "is_this": is_this})
    return rows


def make_sheets(seen: Sequence[SampledExample], names: list[str] | None) -> list[dict[str, Any]]:
    """The contact sheets: a title, what it shows, and cards with a picture, grey and in colour, and what is known of it."""

    def area(one: SampledExample) -> float:
        return one.size[0] * one.size[1]

    def chroma(one: SampledExample) -> float:
        return one.chroma

    anyhow = random.Random(0).sample(list(seen), min(2 * _SHEET, len(seen)))
    sheets = (
        ("Training examples", "as the network sees them, and as it is to paint them", anyhow),
        ("The smallest", "by the pixels of the original", sorted(seen, key=area)[:_SHEET]),
        ("The largest", "by the pixels of the original", sorted(seen, key=area, reverse=True)[:_SHEET]),
        ("The greyest", "by the mean of C* = √(a*² + b*²)", sorted(seen, key=chroma)[:_SHEET]),
        ("The most colourful", "by the mean of C* = √(a*² + b*²)", sorted(seen, key=chroma, reverse=True)[:_SHEET]),
    )
    return [{"title": title, "by": by, "cards": [_make_card(one, names) for one in shown]} for title, by, shown in sheets]


def _make_card(seen: SampledExample, names: list[str] | None) -> dict[str, Any]:
    return {
        "picture": f"data:image/jpeg;base64,{base64.b64encode(seen.picture).decode()}",
        "width": seen.picture_size[0],
        "height": seen.picture_size[1],
        "url": redact(seen.url),
        "id": seen.id,
        "size": "{}×{}".format(*seen.size),
        "chroma": f"{seen.chroma:.0f}",
        "best": class_names.best(seen.embedding, names) if names and seen.embedding is not None else [],
    }


def read_statistics(folder: DatasetDir) -> list[dict[str, Any]] | None:
    """Rows of what `transform/` knows of L*, a* and b*; None where there is none."""
    if not folder.has_statistics:
        return None
    # TensorFlow takes seconds, which a report without has no need of.

    told = statistics.read(folder)
    return [
        {"name": name, "mean": float(mean), "deviation": float(np.sqrt(variance))}
        for name, mean, variance in zip(("L*", "a*", "b*"), told.lab_mean, told.lab_variance, strict=True)
    ]


def describe_classes(classes: dict[str, int]) -> dict[str, Any] | None:
    """The chart of images a class, the largest and smallest ones, and how unequal they are.

    The effective number of classes is the exponential of the entropy of their shares: as many classes of one size would be as even.
    """
    if not classes:
        return None
    ordered = sorted(classes.items(), key=lambda item: (-item[1], item[0]))
    shares = np.array([number for _, number in ordered]) / sum(classes.values())
    return {
        "number": len(ordered),
        "largest": ordered[:10],
        "smallest": ordered[-10:] if len(ordered) > 10 else [],
        "ratio": ordered[0][1] / ordered[-1][1],
        "effective": float(np.exp(-(shares * np.log(shares)).sum())),
        "chart": charts.draw_classes([number for _, number in ordered]),
    }


def format_bytes(number: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:,.0f} {unit}" if unit == "bytes" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def format_duration(seconds: float) -> str:
    if seconds < 180:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 10_800 else f"{seconds / 3600:,.1f} hours"
