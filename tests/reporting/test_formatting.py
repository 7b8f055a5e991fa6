"""Tests of numbers and untrusted text as the report shows them."""

from __future__ import annotations

import doctest
import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.reporting import formatting


def test_the_examples_of_the_docstrings():
    assert doctest.testmod(formatting).failed == 0


@given(st.text(max_size=150))
def test_breakable_text_is_the_text(text):
    markup = formatting.breakable(text, longest_run=150)
    assert html.unescape(re.sub(r"</?span>|<wbr>", "", markup)) == text
    assert set(re.findall(r"<[^>]*>", markup)) <= {"<span>", "</span>", "<wbr>"}


@given(st.text(alphabet="ab1/._-?&=<", max_size=3000))
def test_text_of_any_length_stays_short_and_breaks_after_slashes(text):
    markup = formatting.breakable(text, longest_run=20, longest=80)
    shown = html.unescape(re.sub(r"<[^>]*>", "", markup))
    assert len(shown) <= 80
    assert all(len(run) <= 20 for run in re.findall(r"[^\W_]+", shown))
    for segment in re.findall(r"<span>(.*?)</span>", markup):
        assert "/" not in html.unescape(re.sub(r"<[^>]*>", "", segment)).strip("/")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://a.example:80/b/c/d.jpg?e=f", "a.example:80/…/d.jpg?e=f"),
        ("http://a.example/d.jpg", "a.example/d.jpg"),
        ("http://a.example", "a.example"),
        ("http://a.example/b/", "a.example/b/"),
        ("/data/photos/d.jpg", "d.jpg"),
        ("d.jpg", "d.jpg"),
        ("", ""),
    ],
)
def test_urls_are_abbreviated_to_host_and_file(url, shown):
    assert formatting.abbreviate_url(url) == shown


@pytest.mark.parametrize(
    ("numbers", "unit", "texts"),
    [
        ([], "bytes", []),
        ([0, 5_000], "bytes", ["0", "5,000"]),
        ([999], "bytes", ["999"]),
        ([20_500_000, 1_700_000], "MB", ["20.5", "1.7"]),
        ([1.4e12, 1.5e13], "TB", ["1.4", "15.0"]),
        ([1e18], "TB", ["1,000,000.0"]),
    ],
)
def test_bytes_share_a_unit(numbers, unit, texts):
    assert formatting.align_bytes(numbers) == (unit, texts)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.2, "0 seconds"),
        (1, "1 second"),
        (90, "90 seconds"),
        (720, "12 minutes"),
        (12_600, "3.5 hours"),
    ],
)
def test_durations(seconds, shown):
    assert formatting.format_duration(seconds) == shown.replace(" ", "\N{NO-BREAK SPACE}")
