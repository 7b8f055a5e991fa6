"""Tests of gzip by ISA-L, and by zlib where that is missing."""

from __future__ import annotations

import gzip
import importlib
import io
import sys
import zlib

import pytest

from beam_pipeline.process import deflate

DATA = bytes(range(256)) * 1000


@pytest.fixture(params=["isal", "zlib"])
def module(request, monkeypatch):
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
    yield importlib.reload(deflate)
    monkeypatch.undo()
    importlib.reload(deflate)


def test_members_are_gzip(module):
    member = module.compress(DATA)
    assert gzip.decompress(member) == DATA and len(member) < len(DATA) / 50
    assert member == module.compress(DATA)  # without a time
    decompressor = module.decompressor()
    assert decompressor.decompress(member + b"rest") == DATA
    assert decompressor.eof and decompressor.unused_data == b"rest"


def test_streams_are_zlib(module):
    assert zlib.decompress(module.compress_zlib(DATA)) == DATA


def test_a_file_of_several_members(module):
    with module.open_gzip(io.BytesIO(module.compress(DATA) + module.compress(b"more"))) as file:
        assert file.read() == DATA + b"more"


def test_isal_is_used_where_it_is_installed():
    assert deflate._module.__name__ == "isal.isal_zlib"
