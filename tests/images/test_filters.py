"""Tests of the filters by size and colour."""

from __future__ import annotations

import pytest

from beam_pipeline.images import filters
from beam_pipeline.images.filters import Filters
from beam_pipeline.images.measures import BIN_EDGES, Measures

COLORFUL = Measures(60.0, 55.0, 70.0, 900.0, 0.1, 0.9, 7.0)
GREY = COLORFUL._replace(colorfulness=0.0, colorfulness_abs=0.0, max_chroma_ab=5.0, tint=0.0)
TINTED = COLORFUL._replace(max_chroma_ab=20.0, tint=22.0)
ALL = Filters(100, 2.0, True, True, 15.0)


@pytest.mark.parametrize(
    ("filter", "size", "measures", "reason"),
    [
        (Filters(), (1, 1000), GREY, None),
        (Filters(min_side=100), (100, 300), COLORFUL, None),
        (Filters(min_side=100), (300, 99), COLORFUL, "too_small"),
        (Filters(max_aspect_ratio=2.0), (200, 100), COLORFUL, None),
        (Filters(max_aspect_ratio=2.0), (100, 201), COLORFUL, "too_elongated"),
        (Filters(drop_grey=True), (9, 9), GREY, "grey"),
        (Filters(drop_grey=True), (9, 9), GREY._replace(max_chroma_ab=5.01), None),
        (Filters(drop_tinted=True), (9, 9), TINTED, "tinted"),
        (Filters(drop_tinted=True), (9, 9), TINTED._replace(tint=22.01), None),
        (Filters(drop_tinted=True), (9, 9), GREY, None),
        (Filters(min_colorfulness=55.0), (9, 9), COLORFUL, None),
        (Filters(min_colorfulness=55.1), (9, 9), COLORFUL, "low_colorfulness"),
        # The first filter counts.
        (ALL, (90, 900), GREY, "too_small"),
        (ALL, (100, 900), GREY, "too_elongated"),
        (ALL, (100, 100), GREY, "grey"),
        (ALL, (100, 100), TINTED._replace(colorfulness_abs=1.0), "tinted"),
        (ALL, (100, 100), COLORFUL, None),
    ],
)
def test_the_rule_of_each_filter(filter, size, measures, reason):
    found = filters.find_reason(filter, size, measures)
    assert (found and found[0]) == reason


@pytest.mark.parametrize(
    ("filter", "detail"),
    [
        (Filters(min_side=100), "its shorter side has 90 pixels, fewer than 100"),
        (Filters(max_aspect_ratio=1.5), "its aspect ratio is 3.333, more than 1.5"),
        (Filters(drop_grey=True), "max_chroma_ab is 5, at most 5"),
        (Filters(min_colorfulness=15.0), "colorfulness_abs is 0, less than 15"),
    ],
)
def test_the_detail_has_the_measured_value(filter, detail):
    found = filters.find_reason(filter, (300, 90), GREY)
    assert found and found[1] == detail


def test_thresholds_are_edges_of_the_histograms():
    assert filters.GREY_CHROMA in BIN_EDGES["max_chroma_ab"]
    assert filters.TINTED in BIN_EDGES["tint"]
    for preset in filters.PRESETS.values():
        assert (preset.min_colorfulness or 0.0) in BIN_EDGES["colorfulness_abs"]
