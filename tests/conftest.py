from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from origin import Origin


@pytest.fixture
def origin() -> Iterator[Origin]:
    with contextlib.closing(Origin()) as server:
        yield server
