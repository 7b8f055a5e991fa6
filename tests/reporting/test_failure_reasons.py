"""Tests that every reason of a failure is explained."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from beam_pipeline.reporting import failure_reasons

DOCS = Path(__file__).parents[2] / "docs" / "failures.md"


def test_each_reason_of_the_documentation_is_explained():
    rows = re.findall(
        r"^\| `(?:read|fetch|decode|filter)` \|(.*)\|$", DOCS.read_text(), re.MULTILINE
    )
    reasons = {reason for row in rows for reason in re.findall(r"`(\w+)`", row)}
    reasons -= {"http_NNN", "detail"}
    assert len(rows) == 4 and len(reasons) > 15
    assert {reason for reason in reasons if not failure_reasons.explain(reason)} == set()
    assert set(failure_reasons._EXPLANATIONS) <= reasons


def test_statuses_and_unknown_reasons():
    assert doctest.testmod(failure_reasons).failed == 0
    assert failure_reasons.explain("http_999") == "the server answered with an error"
    assert failure_reasons.explain("new_reason") == ""
