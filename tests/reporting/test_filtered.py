"""Tests of the section of filtered images."""

from __future__ import annotations

import json

import pytest
from written_dataset import make_info

from beam_pipeline.dataset_info import FailureFile, MeasureCounts
from beam_pipeline.reading.dataset_dir import DatasetDir
from beam_pipeline.reporting import filtered

LINE = {
    **{"id": "n1", "name": "a.jpeg", "url": "http://me:secret@a/1.jpg", "reason": "grey"},
    **{"detail": "max_chroma_ab is 0, at most 5", "original_size": [40, 30]},
    **{"picture": "/9j/", "picture_size": [20, 10]},
}


def make_folder(path, *lines: str) -> DatasetDir:
    (path / "filtered_sample.jsonl").write_text("".join(f"{line}\n" for line in lines))
    info = make_info(
        filtered_files=[FailureFile("filtered_sample.jsonl", len(lines), 9)],
        failures_by_stage={"filter": {"grey": 1, "tinted": 3}, "fetch": {"dns": 2}},
    )
    return DatasetDir(str(path), info)


def test_a_sheet_for_each_reason(tmp_path):
    folder = make_folder(tmp_path, json.dumps(LINE), json.dumps(LINE | {"reason": "tinted"}))
    tinted, grey = filtered.make_sheets(folder)
    assert (tinted["reason"], tinted["number"], len(tinted["cards"])) == ("tinted", 3, 1)
    assert (grey["reason"], grey["number"]) == ("grey", 1) and grey["explanation"]
    [card] = grey["cards"]
    assert card["picture"] == "data:image/jpeg;base64,/9j/" and card["size"] == "40×30"
    assert card["detail"] == LINE["detail"] and "secret" not in json.dumps(card)


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        "[]",
        '{"reason": "grey"}',
        json.dumps(LINE | {"picture": '" onload="alert(1)'}),
        json.dumps(LINE | {"picture_size": ["x", 1]}),
        json.dumps(LINE | {"original_size": 7}),
        json.dumps(LINE | {"url": 7}),
    ],
)
def test_a_broken_sample_is_named(tmp_path, line):
    with pytest.raises(ValueError, match=r"filtered_sample\.jsonl is broken"):
        filtered.make_sheets(make_folder(tmp_path, line))


def test_a_chart_for_each_measure_with_images():
    counts = {
        "colorfulness_abs": MeasureCounts([0, 5, 10, 15, 20], [0, 0, 3, 4], [1, 2, 0, 0]),
        "entropy": MeasureCounts([0, 4, 8], [0, 0], [0, 0]),
    }
    [chart] = filtered.draw_measures(DatasetDir("", make_info(measures=counts)))
    assert chart["name"] == "colorfulness_abs" and "BigColor" in chart["meaning"]
    for text in ("bigcolor 15", "unicolor 10", "filtered", "examples"):
        assert text in chart["chart"]
