"""Tests of the interpretation of robots.txt."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipeline.fetching import robots_txt

AGENT = "beam_pipeline/1.0 (me@example.com)"


def find(text: str | bytes, path: str = "/x.jpg", agent: str = AGENT) -> str | None:
    body = text.encode() if isinstance(text, str) else text
    return robots_txt.parse(body, agent).find(path)


@pytest.mark.parametrize(
    "text",
    [
        "User-agent: *\nDisallow: /",
        "user-agent:*\ndisallow:/",
        "USER-AGENT: Beam_Pipeline\nDISALLOW: /",
        "User-agent: beam_pipeline/2.0\nDisallow: /",
        "User-agent: other\nUser-agent: beam_pipeline\nDisallow: /",
        "User-agent: beam_pipeline\n\nSitemap: http://a/\n\nDisallow: /",
        "User-agent: beam_pipeline\nAllow: /y\nUser-agent: *\nUser-agent: beam_pipeline\n"
        "Disallow: /",
        "User-agent: *\rDisallow: /\r",
        "User-agent: *\r\nDisallow: / # all of it\r\n",
        "\ufeffUser-agent: *\nDisallow: /",
        "User-agent : *\n  Disallow : /",
        "User agent *\nDissallow /",
        b"\xff\xfe\0\0\nUser-agent: *\nDisallow: /\n\xff",
        "User-agent: *\nnonsense\nDisallow: /\nDisallow:",
    ],
)
def test_rules_for_us(text):
    assert find(text) == "Disallow: /"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<!DOCTYPE html><title>Not Found</title>",
        "Disallow: /",
        "User-agent: *\nDisallow:",
        "User-agent: *\nDisallow: /\nUser-agent: beam_pipeline\nDisallow:",
        "User-agent: *\nDisallow: /\nUser-agent: beam_pipeline\nAllow: /",
        "User-agent: beam\nDisallow: /",
        "User-agent: beam_pipeline_2\nDisallow: /",
        "User-agent: my beam_pipeline\nDisallow: /",
        "User-agent: other\nDisallow: /",
        "# User-agent: *\nDisallow: /",
        "User-agent: *bot\nDisallow: /",
        "User-agent:\nDisallow: /",
    ],
)
def test_rules_for_others(text):
    assert find(text) is None


def test_all_groups_of_an_agent_count():
    groups = (("*", "/a"), ("other", "/"), ("*", "/b"))
    text = "".join(f"User-agent: {agent}\nDisallow: {path}\n\n" for agent, path in groups)
    assert find(text, "/a") == "Disallow: /a"
    assert find(text, "/b") == "Disallow: /b"
    assert find(text, "/c") is None


def test_crawl_delay_is_that_of_the_group():
    text = "User-agent: *\nCrawl-delay: 2\nUser-agent: beam_pipeline\nCrawl delay: 3.5"
    assert robots_txt.parse(text.encode(), AGENT).crawl_delay == 3.5
    assert robots_txt.parse(text.encode(), "other").crawl_delay == 2


@pytest.mark.parametrize(
    ("agent", "token"),
    [
        ("beam_pipeline/0.1", "beam_pipeline"),
        ("ImageBot", "imagebot"),
        (" My Bot/2", "my"),
        ("img2dataset/1 (x)", "img2dataset"),
        ("(anonymous)", ""),
    ],
)
def test_product_token(agent, token):
    assert robots_txt.product_token(agent) == token


def test_an_agent_without_a_name_obeys_the_rules_for_all():
    assert find("User-agent: *\nDisallow: /", agent="()") == "Disallow: /"


def test_what_is_behind_the_limit_is_ignored():
    rule = "User-agent: *\nDisallow: /\n"
    padding = "#" * (robots_txt.MAX_BYTES - 5)
    assert find(f"{padding}\n{rule}") is None
    assert find(f"{rule}{padding}\nAllow: /x.jpg") == "Disallow: /"
    assert find(f"{padding[len(rule) :]}\n{rule}") == "Disallow: /"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read(body):
    robots_txt.parse(body, AGENT).find("/x.jpg")
    robots_txt.parse(b"User-agent: *\nDisallow: " + body, AGENT).find("/x.jpg")


@pytest.mark.parametrize(
    "body",
    [
        # Each agent has each rule.
        b"User-agent: b%d\n" * 10 + b"User-agent: *\n",
        b"".join(b"User-agent: b%d\n" % number for number in range(15_000)),
    ],
)
def test_agents_times_rules_take_little_memory(body):
    body += b"Allow: /a\n" * ((robots_txt.MAX_BYTES - len(body)) // 10)
    tracemalloc.start()
    rules = robots_txt.parse(body, AGENT)
    assert rules.find("/x.jpg") is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
