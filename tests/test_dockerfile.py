"""Tests that the Dockerfile installs what the package needs."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_image_has_the_beam_that_is_pinned():
    [beam] = re.findall(
        r"^apache-beam==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
    [(python, image)] = re.findall(
        r"^FROM apache/beam_python([\d.]+)_sdk:([\d.]+) ",
        (ROOT / "Dockerfile").read_text(),
        re.MULTILINE,
    )
    assert (python, image) == ("3.11", beam)
