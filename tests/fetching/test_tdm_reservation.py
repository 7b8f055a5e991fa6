"""Tests of reservations of text and data mining."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from beam_pipeline.fetching import tdm_reservation

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def entry(location: object, reservation: object = 1, **others: object) -> dict[str, object]:
    return {"location": location, "tdm-reservation": reservation, **others}


def find(entries: object, path: str) -> str | None:
    return tdm_reservation.parse(json.dumps(entries).encode()).find(path)


def test_the_most_specific_location_decides():
    entries = [
        entry("/", **{"tdm-policy": "https://a.example/policy.json"}),
        entry("/free/", 0),
        entry("/free/*.png$", 1),
    ]
    assert find(entries, "/x.jpg") == (
        "tdmrep.json: / is reserved; tdm-policy: https://a.example/policy.json"
    )
    assert find(entries, "/free/x.jpg") is None
    assert find(entries, "/free/x.png") == "tdmrep.json: /free/*.png$ is reserved"


@pytest.mark.parametrize("location", ["/images", "images", "*", "/", " /images/ ", "/*/x", "/im#"])
def test_locations(location):
    is_matching = location != "/im#"
    assert (find([entry(location)], "/images/x.jpg") is not None) == is_matching


def test_a_location_is_one_line():
    assert find([entry("/a\nDisallow: /")], "/x.jpg") is None
    assert find([entry("/é\ud800 ")], "/x.jpg") is None


@pytest.mark.parametrize("reservation", [0, "0", None, True, "yes", 2, [1], {}])
def test_only_1_reserves(reservation):
    assert find([entry("/", reservation)], "/x.jpg") is None
    assert find([entry("/", "1")], "/x.jpg") is not None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"{}",
        b"[1, null, [], {}]",
        b'[{"location": 7, "tdm-reservation": 1}]',
        b"[" * 200_000,
        b'[{"location": "/", "tdm-reservation": 1}]' + b" " * tdm_reservation.MAX_BYTES,
    ],
)
def test_what_is_not_valid_reserves_nothing(body):
    assert tdm_reservation.parse(body).find("/x.jpg") is None


@settings(max_examples=100, deadline=None)
@given(st.lists(VALUES | st.builds(entry, VALUES, VALUES)))
def test_any_json_is_read(entries):
    tdm_reservation.parse(json.dumps(entries).encode()).find("/x.jpg")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "file"),
        ({"TDM-Reservation": "0"}, None),
        ({"tdm-reservation": "maybe"}, "file"),
        ({"tdm-reservation": " 1 "}, "tdm-reservation: 1"),
        (
            {"tdm-reservation": "1", "tdm-policy": "https://a.example/"},
            "tdm-reservation: 1; tdm-policy: https://a.example/",
        ),
        ({"X-Archive-Orig-TDM-Reservation": "1"}, "X-Archive-Orig-tdm-reservation: 1"),
    ],
)
def test_a_header_goes_before_the_file(headers, expected):
    assert tdm_reservation.check_headers(CIMultiDict(headers), "file") == expected
