"""The page of a report, from `dataset.json`, `metrics.json` and a sample of the examples.

Jinja escapes all untrusted text, such as URLs.
"""

from __future__ import annotations

import jinja2

from beam_pipeline import naming
from beam_pipeline.metadata import worker_metrics
from beam_pipeline.naming import SPLITS
from beam_pipeline.process import plurals
from beam_pipeline.reading import dataset_dir
from beam_pipeline.reading.dataset_dir import DatasetDir
from beam_pipeline.reporting import (
    charts,
    class_names,
    contact_sheets,
    filtered,
    formatting,
    leaks,
    sampling,
    tables,
)
from beam_pipeline.storage import any_path, filesystem

_MAX_SAMPLE = 2_000  # examples whose pixels are read


def write(path: str, class_names_path: str | None = None) -> str:
    """Write the report of a complete dataset to its folder; return the path of the report.

    Args:
      path: The folder, on any filesystem that Beam supports.
      class_names_path: A list of class names, as for `class_names.read`.

    Raises:
      FileNotFoundError: The folder holds no complete dataset.
      ValueError: A shard or the list of names is broken.
    """
    names = class_names.read(class_names_path) if class_names_path else None
    html = render(dataset_dir.open_dataset_dir(path), names)
    target = any_path.join(path, naming.REPORT)
    filesystem.write_bytes(target, html.encode(errors="backslashreplace"))
    return target


def render(folder: DatasetDir, names: list[str] | None) -> str:
    """Return the page as HTML.

    Args:
      folder: A complete dataset.
      names: The names of the 1,000 classes, to show with the pictures; or None.

    Raises:
      ValueError: A shard or a file of failures is broken.
    """
    info, metrics = folder.info, worker_metrics.read(folder.path)
    sample = sampling.take_sample(folder, _MAX_SAMPLE)
    counts = info.counts
    by_split = {split: _count_examples(folder, split) for split in SPLITS}
    template = _environment().get_template("report.html.jinja")
    return template.render(
        folder=folder.path,
        info=info,
        counts=counts,
        by_split=by_split,
        written=sum(file.bytes for file in info.files),
        failure_rate=counts.failures / max(1, counts.examples + counts.failures),
        failures=tables.describe_failures(folder),
        hosts=tables.describe_hosts(info),
        time=tables.describe_time(metrics),
        metrics=metrics,
        fetched=(metrics or {}).get(naming.FETCH, {}),
        sizes=tables.describe_sizes(folder, sample),
        sheets=contact_sheets.make_sheets(sample.examples, names),
        has_names=names is not None and bool(info.embedding_size),
        sample={
            "split": "training" if sample.split == "train" else sample.split,
            "examples": len(sample.examples),
            "all": by_split[sample.split],
        },
        lightness=charts.draw_lightness(sample.l_counts),
        colours=charts.draw_colours(sample.ab_counts, 110),
        filtered=filtered.make_sheets(folder),
        leaks=leaks.make_cards(folder),
        measures=filtered.draw_measures(folder),
        statistics=tables.read_statistics(folder),
        classes=tables.describe_classes(info.classes, names),
    )


def _count_examples(folder: DatasetDir, split: str) -> int:
    return sum(shard.examples for shard in folder.shards(split))


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("beam_pipeline.reporting", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        breakable=formatting.breakable,
        bytes=formatting.format_bytes,
        count=formatting.count,
        inflect=plurals.inflect,
        duration=formatting.format_duration,
        percent=lambda value: f"{100 * value:.1f}%",
        number=lambda value: f"{value:,}",
        decimal=lambda value: f"{value:,.1f}",
    )
    return environment
