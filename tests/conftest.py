from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from origin import Origin


@pytest.fixture
def origin() -> Iterator[Origin]:
    with contextlib.closing(Origin()) as server:
        yield server


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long bytes by their argument: those of a gzip file differ from process to process."""
    return argname if isinstance(val, bytes) and len(val) > 20 else None
