"""Compares two datasets by their `metadata-*.parquet`, without reading their images.

An image is known by its name, so a row takes 33 bytes of memory: 0.5 GB for 14 million.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from beam_pipeline.reading.dataset_dir import DatasetDir
from beam_pipeline.redaction import redact
from beam_pipeline.storage import any_path

_NAME, _SHA256 = 32, 64  # hexadecimal digits
_BATCH = 100_000  # rows
_FILES = ("checkpoint", "exclude_sha256", "class_file", "validation_ids")


@dataclasses.dataclass(frozen=True)
class Change:
    """The images to which one thing has happened.

    Attributes:
      images: Number of images.
      urls: URLs of the first of them, without credentials.
      reasons: Of images that died or were moved: the number by reason, or by `FROM -> TO`.
    """

    images: int
    urls: Sequence[str] = ()
    reasons: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The differences between two datasets.

    Attributes:
      options: The values in A and in B of the options that differ, without `--output`; and the
        `sha256 of` files that they name.
      counts: The counts of A and of B: `train`, `validation` and `failures`.
      same: Number of images that are in both, without any change.
      died: Images of A that are not in B. The reason is that of the failure in B, or `not listed`.
      revived: Images of B that are not in A.
      changed: Images of both whose files differ, by their sha256.
      moved: Images of both whose splits differ.
    """

    options: Mapping[str, Sequence[Any]]
    counts: Mapping[str, Sequence[int]]
    same: int
    died: Change
    revived: Change
    changed: Change
    moved: Change

    @property
    def differs(self) -> bool:
        """Whether the images differ."""
        return any(change.images for change in (self.died, self.revived, self.changed, self.moved))


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The rows of a dataset.

    Attributes:
      names: The md5 of the URLs, S16 (N,).
      bodies: The first half of the sha256 of the file, S16 (N,); zeros if it is not known.
      is_validation: bool (N,).
    """

    names: np.ndarray
    bodies: np.ndarray
    is_validation: np.ndarray


def compare(a: DatasetDir, b: DatasetDir, listed: int = 0) -> Comparison:
    """Compare two datasets.

    Args:
      a: The first dataset.
      b: The second dataset.
      listed: Maximum number of URLs of each change.

    Raises:
      OSError: A file cannot be read.
      ValueError: A file of metadata or failures is broken.
    """
    in_a, in_b = _read_rows(a), _read_rows(b)
    _, both_a, both_b = np.intersect1d(
        in_a.names, in_b.names, assume_unique=True, return_indices=True
    )
    died = np.setdiff1d(np.arange(len(in_a.names)), both_a, assume_unique=True)
    revived = np.setdiff1d(np.arange(len(in_b.names)), both_b, assume_unique=True)
    bodies_a, bodies_b = in_a.bodies[both_a], in_b.bodies[both_b]
    is_changed = (bodies_a != bodies_b) & (bodies_a != b"") & (bodies_b != b"")
    splits_a, splits_b = in_a.is_validation[both_a], in_b.is_validation[both_b]
    is_moved = splits_a != splits_b
    return Comparison(
        options=_compare_options(a, b),
        counts={name: [_counts(a)[name], _counts(b)[name]] for name in _counts(a)},
        same=int(len(both_a) - (is_changed | is_moved).sum()),
        died=_describe(a, died, listed, _count_reasons(b, in_a.names[died])),
        revived=_describe(b, revived, listed),
        changed=_describe(a, both_a[is_changed], listed),
        moved=_describe(
            a,
            both_a[is_moved],
            listed,
            {
                "train -> validation": int((is_moved & splits_b).sum()),
                "validation -> train": int((is_moved & splits_a).sum()),
            },
        ),
    )


def _compare_options(a: DatasetDir, b: DatasetDir) -> dict[str, Sequence[Any]]:
    values = [_options(folder) for folder in (a, b)]
    names = dict.fromkeys(itertools.chain(*values))
    pairs = {name: [of_one.get(name) for of_one in values] for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _options(folder: DatasetDir) -> dict[str, Any]:
    """Return the options, and the digests of the files that they name."""
    files = {name: getattr(folder.info, name).sha256 for name in _FILES}
    options = {name: value for name, value in folder.info.options.items() if name != "output"}
    return options | {f"sha256 of {name}": digest for name, digest in files.items()}


def _counts(folder: DatasetDir) -> dict[str, int]:
    examples: collections.Counter[str] = collections.Counter()
    for file in folder.info.files:
        examples[file.split] += file.examples
    failures = folder.info.counts.failures
    return {**{name: examples[name] for name in ("train", "validation")}, "failures": failures}


def _describe(
    folder: DatasetDir, rows: np.ndarray, listed: int, reasons: Mapping[str, int] | None = None
) -> Change:
    """Describe the change of the rows of a dataset, given by their indices."""
    found = {name: number for name, number in (reasons or {}).items() if number}
    return Change(len(rows), _read_urls(folder, np.sort(rows)[:listed]), found)


def _batches(folder: DatasetDir, columns: Sequence[str]) -> Iterator[tuple[str, list[list[Any]]]]:
    """Yield the file and the values of columns, batch by batch, in the order of the rows.

    Raises:
      ValueError: A file is broken.
    """
    for file in folder.info.metadata_files:
        try:
            with any_path.open_file(any_path.join(folder.path, file.name)) as opened:
                parquet = pq.ParquetFile(opened)
                # Threads of pyarrow may outlive the process, and abort it.
                for batch in parquet.iter_batches(_BATCH, columns=list(columns), use_threads=False):
                    yield file.name, [batch.column(name).to_pylist() for name in columns]
        except OSError:
            raise
        # The reader of Parquet may raise any exception.
        except Exception as error:
            raise ValueError(f"{file.name} is broken: {error}") from error


def _read_rows(folder: DatasetDir) -> _Rows:
    names, bodies, splits = [np.empty(0, "S16")], [np.empty(0, "S16")], [np.empty(0, bool)]
    for file, (name, sha256, split) in _batches(folder, ("name", "sha256", "split")):
        names.append(_pack(name, _NAME, file))
        bodies.append(_pack([digest or "0" * _SHA256 for digest in sha256], _SHA256, file))
        splits.append(np.array([one == "validation" for one in split], bool))
    return _Rows(np.concatenate(names), np.concatenate(bodies), np.concatenate(splits))


def _pack(texts: Sequence[str], digits: int, file: str) -> np.ndarray:
    """Return the first 16 bytes of each text, which begins with hexadecimal digits: S16 (N,).

    Raises:
      ValueError: A text is another one.
    """
    try:
        data = bytes.fromhex("".join(text[:digits] for text in texts))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} is broken: a name or sha256 is invalid") from error
    if 2 * len(data) != digits * len(texts):
        raise ValueError(f"{file} is broken: a name or sha256 is too short")
    halves = np.frombuffer(data, np.uint8).reshape(len(texts), digits // 2)
    return np.ascontiguousarray(halves[:, :16]).view("S16").ravel()


def _read_urls(folder: DatasetDir, rows: np.ndarray) -> list[str]:
    """Return the URLs of some rows, given by their sorted indices, without credentials."""
    urls: list[str] = []
    first, wanted = 0, collections.deque(rows.tolist())
    if not wanted:
        return urls
    for _, [values] in _batches(folder, ["url"]):
        while wanted and wanted[0] < first + len(values):
            urls.append(redact(str(values[wanted.popleft() - first])))
        first += len(values)
        if not wanted:
            break
    return urls


def _count_reasons(folder: DatasetDir, names: np.ndarray) -> dict[str, int]:
    """Count the reasons for which images failed in a dataset.

    Args:
      folder: The dataset.
      names: S16 (N,), the packed names of the images.

    Raises:
      ValueError: A file of failures is broken.
    """
    names = np.sort(names)
    reasons: collections.Counter[str] = collections.Counter()
    for file in folder.info.failure_files if len(names) else ():
        with any_path.open_file(any_path.join(folder.path, file.name)) as lines:
            while batch := list(itertools.islice(lines, _BATCH)):
                try:
                    failures = [json.loads(line) for line in batch]
                    failed = _pack([one["name"] for one in failures], _NAME, file.name)
                    texts = np.array([str(one["reason"]) for one in failures])
                except (ValueError, LookupError, TypeError, RecursionError) as error:
                    raise ValueError(f"{file.name} is broken: {error}") from error
                positions = np.minimum(np.searchsorted(names, failed), len(names) - 1)
                reasons.update(texts[names[positions] == failed].tolist())
    return {**dict(reasons.most_common()), "not listed": len(names) - reasons.total()}
