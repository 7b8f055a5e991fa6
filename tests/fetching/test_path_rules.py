"""Tests of rules for paths."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipeline.fetching import path_rules
from beam_pipeline.fetching.path_rules import PathRules

PATTERN = st.text("ab/*$%2fF.?=é", max_size=20)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/", "/x.jpg", True),
        ("/fish", "/fish/salmon.jpg", True),
        ("/fish", "/Fish.jpg", False),
        ("/fish/", "/fish", False),
        ("/*.jpg", "/a/b.jpg?size=1", True),
        ("/*.jpg$", "/a/b.jpg?size=1", False),
        ("/*.jpg$", "/a/b.jpg", True),
        ("/*?size=", "/b.jpg?size=1", True),
        ("/foo/bar%62az", "/foo/barbaz", True),
        ("/é", "/%C3%A9.jpg", True),
        ("/a%2Fb", "/a/b", False),
        ("/private?", "/private?", True),
    ],
)
def test_patterns(pattern, path, matches):
    line = f"Disallow: {pattern}"
    assert PathRules([line]).find(path) == (line if matches else None)


def test_the_longest_pattern_decides():
    rules = PathRules(["Disallow: /", "Allow: /p", "Disallow: /page", "Allow: /page/open$"])
    assert rules.find("/x") == "Disallow: /"
    assert rules.find("/p.jpg") is None
    assert rules.find("/page/x") == "Disallow: /page"
    assert rules.find("/page/open") is None


def test_of_equal_patterns_the_one_that_allows_decides():
    assert PathRules(["Disallow: /a", "Allow: /a"]).find("/a") is None


@pytest.mark.parametrize(
    ("lines", "delay"),
    [
        ([], 0),
        (["Crawl-delay: 1.5"], 1.5),
        (["Crawl-delay: soon"], 0),
        (["Crawl-delay: -1"], 0),
        (["Crawl-delay: inf"], 0),
    ],
)
def test_crawl_delay(lines, delay):
    assert PathRules(lines).crawl_delay == delay


@settings(max_examples=200, deadline=None)
@given(st.lists(PATTERN, max_size=8), PATTERN)
def test_any_rules_decide(patterns, path):
    rules = PathRules(f"Disallow: {pattern}" for pattern in patterns)
    found = rules.find(f"/{path.replace('é', '%C3%A9')}")
    assert found is None or found in [f"Disallow: {pattern}" for pattern in patterns]


@pytest.mark.parametrize(
    "lines",
    [
        [f"Disallow: /*{'a' * 50}b{number}" for number in range(7_000)],
        ["Disallow: /" + "*a" * 240_000],
        [f"Allow: /*{number}$" for number in range(30_000)],
        ["Disallow: /" + "%61" * 160_000],
    ],
)
def test_hostile_rules_are_bounded(lines):
    rules, path = PathRules(lines), "/" + "a" * 390
    assert rules.size > 380_000
    assert rules.find(path) is None
    longer = "/" + "a" * (path_rules.MAX_WORK // rules.size + 1)
    assert "too long" in (rules.find(longer) or "")
