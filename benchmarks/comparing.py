"""Measure `compare` on two datasets of many rows: `python -m benchmarks.comparing`.

The datasets are made: metadata and `dataset.json` without shards. A hundredth of the images died,
revived, changed and moved.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beam_pipeline import run
from beam_pipeline.records import metadata_table
from benchmarks import measure, photographs

ROWS_PER_FILE = 100_000


def make_dataset(folder: Path, rows: int, first: int) -> None:
    """Write a dataset of images `first` to `first + rows`, by way of a run over one photograph."""
    images = photographs.write_folder(folder / "photographs", 1)
    dataset = folder / "dataset"
    options = "--checkpoint none --report=false --image_size 16"
    assert run.main(["--images", str(images), "--output", str(dataset), *options.split()]) == 0
    info = json.loads((dataset / "dataset.json").read_text())
    [template] = pq.read_table(next(dataset.glob("metadata-*.parquet"))).to_pylist()
    info["metadata_files"] = []
    for start in range(first, first + rows, ROWS_PER_FILE):
        numbers = np.arange(start, min(start + ROWS_PER_FILE, first + rows))
        rng = np.random.default_rng(start)
        names = [f"{digest:032x}.jpeg" for digest in _mix(numbers)]
        columns: dict[str, object] = {
            name: [value] * len(numbers) for name, value in template.items()
        }
        columns |= {
            "name": names,
            "url": [f"http://farm{number % 9}.example/{number:016x}.jpg" for number in numbers],
            "split": np.where((numbers + first) % 100 == 0, "validation", "train"),
            "sha256": [
                f"{name[:32]}{(first + 1) * (number % 100 == 7):032x}"[::-1]
                for name, number in zip(names, numbers, strict=True)
            ],
            "index": rng.permutation(len(numbers)),
        }
        path = dataset / f"metadata-{start:010}.parquet"
        table = pa.table(columns, schema=metadata_table.make_schema())
        pq.write_table(table, path, compression="zstd", row_group_size=500)
        size = path.stat().st_size
        info["metadata_files"].append({"name": path.name, "rows": len(numbers), "bytes": size})
    (dataset / "dataset.json").write_text(json.dumps(info))


def _mix(numbers: np.ndarray) -> list[int]:
    """Return a different number of 128 bits for each number, in no order."""
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return [int(number) << 64 | int(number) for number in mixed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as root:
        for name, first in (("a", 0), ("b", rows // 100)):
            make_dataset(Path(root) / name, rows, first)
        folders = [f"{root}/{name}/dataset" for name in ("a", "b")]
        command = [sys.executable, "-m", "beam_pipeline.compare", *folders]
        # Its exit status is 1, because the images differ.
        used = measure.measure(["sh", "-c", f"{' '.join(command)} || test $? = 1"])
        print(f"{rows:,} rows: {used.seconds:.1f} s, {used.megabytes:.0f} MB")


if __name__ == "__main__":
    main()
