"""Tests that a file is recognized as a run's only while it is exactly as the run wrote it."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.metadata import generated_text
from beam_pipeline.metadata.generated_text import DIGEST_PLACE

# A digest that is part of the text is not the signature.
TEXT = f"# é 📷\nbody {'ab' * 32}\n<!-- sha256 {DIGEST_PLACE} -->\n"


@pytest.mark.parametrize("text", [TEXT, f'{{\n "a": 1,\n "digest": "{DIGEST_PLACE}"}}\n'])
def test_a_signed_text_is_unedited(text):
    signed = generated_text.sign(text)
    assert generated_text.is_unedited(signed)
    assert DIGEST_PLACE.encode() not in signed and len(signed) == len(text.encode())


@given(st.integers(0, len(TEXT.encode()) - 1), st.sampled_from([b"", b"x", b"\n", b"\r\n", b"0"]))
def test_any_edit_is_noticed(position, inserted):
    signed = generated_text.sign(TEXT)
    edited = signed[:position] + inserted + signed[position + 1 :]
    assert generated_text.is_unedited(edited) == (edited == signed)
    assert not generated_text.is_unedited(signed + (inserted or b" "))


@pytest.mark.parametrize("data", [b"", b"# My dataset\n", DIGEST_PLACE.encode(), b"\xff" * 99])
def test_a_text_without_a_signature_is_a_persons(data):
    assert not generated_text.is_unedited(data)


def test_only_what_a_run_wrote_is_replaceable(tmp_path):
    path = tmp_path / "README.md"
    assert generated_text.is_replaceable(str(path))
    path.write_bytes(generated_text.sign(TEXT))
    assert generated_text.is_replaceable(str(path))
    path.write_text("mine")
    assert not generated_text.is_replaceable(str(path))
    for make in (os.mkdir, os.mkfifo):
        other = tmp_path / make.__name__
        make(other)
        assert not generated_text.is_replaceable(str(other))
