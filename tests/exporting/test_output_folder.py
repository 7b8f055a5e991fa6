"""Tests that an export replaces its own files, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from output_folder import names

from beam_pipeline.config import UsageError
from beam_pipeline.exporting import output_folder

UUID = "0123456789abcdef" * 2
OURS = [
    "export.json",
    f"export.json.{UUID}.tmp",
    "train-000000.tar",
    f"train-000001.tar.{UUID}.tmp",
    "validation-1234567.array_record",
]


def write(folder: Path, *files: str) -> str:
    for name in files:
        (folder / name).write_text("old")
    return str(folder)


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_folder_is_used(tmp_path, overwrite):
    output_folder.prepare(str(tmp_path / "missing"), overwrite)
    write(tmp_path, "run.lock", ".hidden")
    output_folder.prepare(str(tmp_path), overwrite)
    assert names(tmp_path) == [".hidden", "run.lock"]


def test_an_earlier_export_is_replaced_only_on_request(tmp_path):
    folder = write(tmp_path, *OURS)
    with pytest.raises(UsageError, match=r"holds export\.json.* give --overwrite"):
        output_folder.prepare(folder, overwrite=False)
    assert names(tmp_path) == sorted(OURS)
    output_folder.prepare(folder, overwrite=True)
    assert names(tmp_path) == []


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "other", ["dataset.json", "train-00000.tar", "train-000000.tar.gz", "test-000000.tar", "notes"]
)
def test_other_files_are_never_removed(tmp_path, other, overwrite):
    folder = write(tmp_path, *OURS, other)
    with pytest.raises(UsageError, match=f"holds {other}, which no export has written"):
        output_folder.prepare(folder, overwrite)
    assert names(tmp_path) == sorted([*OURS, other])


def test_temporary_files_are_removed_at_the_end(tmp_path):
    output_folder.remove_temporary(write(tmp_path, *OURS))
    assert names(tmp_path) == ["export.json", "train-000000.tar", "validation-1234567.array_record"]
