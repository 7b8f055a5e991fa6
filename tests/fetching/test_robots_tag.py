"""Tests of X-Robots-Tag: opt-outs for all agents or ours are found, in any context."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.config import DISALLOWING
from beam_pipeline.fetching.robots_tag import disallows

AGENT = "beam_pipeline/1.0"


FORBIDDING = [
    *("noai", "NoImageAI", " noindex ", "noimageindex", "none", "nofollow, noindex"),
    *("noindex;nofollow", "noindex nofollow"),
    *("*: noai", "all: noai", "beam_pipeline: noindex", "Beam_Pipeline:noarchive,noai"),
    *("beam_pipeline/2.0: noindex", "max-image-preview:large, noindex", "max-snippet: 20, noai"),
    "max-snippet:-1, max-image-preview: large, max-video-preview:-1, noimageindex",
    "unavailable_after: 25 Jun 2030 15:00:00 PST, noindex",
    "unavailable_after: Tuesday, 25-Jun-30 15:00:00 UTC, noindex",
    "unavailable_after: 2030-06-25T15:00:00+00:00, noindex",
    *("noindex, otherbot: nofollow", "otherbot: all, beam_pipeline: noai"),
    *("otherbot: nofollow, *: noai", "otherbot: beam_pipeline: noindex"),
    "otherbot: max-snippet: 3, beam_pipeline: noindex",
    *("max-novelty: 3, noindex", "novelty: a: b, noai", ":, noai", "otherbot:, noai"),
    *(
        "max-snippet:-1 noindex",
        "max-snippet:-1: noindex",
        "noindex:",
        "noindex: true",
        '"noindex"',
    ),
    "unavailable_after: 25 Jun 2010 15:00:00 PST noai",
]

HARMLESS = [
    *("", "all", "nofollow", "nosnippet", "noai2", ": , :", "max-image-preview: none"),
    *("otherbot: noindex", "otherbot: nofollow, noai", "otherbot: max-snippet: 3, noindex"),
    *("otherbot: noindex, bot2: none, noai", "beam_pipeline: all, otherbot: noindex"),
    "BadBot: noindex, nofollow, googlebot: nofollow",
    "otherbot: unavailable_after: 25 Jun 2010 15:00:00 PST, noindex",
    "unavailable_after: Friday, 25-Jun-30 15:00:00 UTC",
]


@pytest.mark.parametrize("tag", FORBIDDING)
def test_what_keeps_an_image_from_being_taken(tag):
    assert disallows(tag, AGENT)


@pytest.mark.parametrize("tag", HARMLESS)
def test_what_does_not(tag):
    assert not disallows(tag, AGENT)


def test_for_another_user_agent():
    assert disallows("mybot: noindex", "MyBot/2.0 (mail@example.com)")
    assert not disallows("mybot: noindex", AGENT)


DATES = [
    *("25 Jun 2030 15:00:00 PST", "Tue, 25 Jun 2030 15:00:00 GMT", "2030-06-25T15:00:00+00:00"),
    *("Tuesday, 25-Jun-30 15:00:00 UTC", "Tue Jun 25 15:00:00 2030"),
]
VALUED = [
    *[("max-image-preview", value) for value in ("none", "standard", "large")],
    *[("max-snippet", value) for value in ("-1", "0", "20")],
    *[("max-video-preview", value) for value in ("-1", "0", "20")],
    *[("unavailable_after", date) for date in DATES],
]
PLAIN = ["all", "nofollow", "noarchive", "nosnippet", "notranslate"]
SPACE = st.sampled_from(["", " ", "  ", "\t"])


@st.composite
def spelled(draw: st.DrawFn, *pieces: str) -> str:
    """Join pieces with colons, in any case and spacing."""
    cased = [draw(st.sampled_from([piece, piece.upper(), piece.title()])) for piece in pieces]
    return ":".join(draw(SPACE) + piece + draw(SPACE) for piece in cased)


OTHERS = st.one_of(
    st.sampled_from(VALUED).flatmap(lambda pieces: spelled(*pieces)),
    st.sampled_from(PLAIN).flatmap(spelled),
)
DISALLOWED = st.sampled_from(sorted(DISALLOWING))
LISTS = st.lists(OTHERS, max_size=4)


AGENTS = st.sampled_from([(), ("*",), ("beam_pipeline",)])


@given(LISTS, LISTS, DISALLOWED, AGENTS, st.data())
def test_an_opt_out_is_found_among_any_others(before, after, directive, agent, data):
    tag = ",".join([*before, data.draw(spelled(*agent, directive)), *after])
    assert disallows(tag, AGENT)


@given(LISTS, LISTS, DISALLOWED, st.data())
def test_an_opt_out_for_another_agent_is_not_ours(before, after, directive, data):
    addressed = ",".join([*after, data.draw(spelled(directive))])
    tag = ",".join([*before, f"{data.draw(spelled('otherbot'))}:{addressed}"])
    assert not disallows(tag, AGENT)
    assert disallows(tag, "OtherBot/1.0")


@given(LISTS)
def test_without_an_opt_out_an_image_is_taken(harmless):
    assert not disallows(",".join(harmless), AGENT)


@given(st.text())
def test_no_tag_is_too_odd(tag):
    assert disallows(tag, AGENT) in (True, False)
