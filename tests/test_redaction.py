"""Tests that credentials in URLs are replaced, and nothing else."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline import redaction
from beam_pipeline.redaction import redact

SECRET = "s3cr3t"


def test_the_docstring_is_true():
    assert doctest.testmod(redaction).failed == 0


@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{SECRET}@a.example/b.jpg",
        f"https://{SECRET}@a.example",
        f"https://user:p@{SECRET}@a.example/b.jpg",
        f"https://a.example/b?X-Amz-Credential={SECRET}&X-Amz-Date=20260101",
        f"https://a.example/b?x-amz-signature={SECRET}",
        f"https://a.example/b?a=1&X-Amz-Security-Token={SECRET}",
        f"https://a.example/b?X-Goog-Signature={SECRET}#fragment",
        f"https://a.example/b?sv=2020&sig={SECRET}",
        f"https://a.example/b?Signature={SECRET}&Key-Pair-Id=1",
        f"https://a.example/b?AWSAccessKeyId=1;Signature={SECRET}",
        f"https://a.example/b?access_token={SECRET}",
        f"https://a.example/b?token={SECRET}&x=1",
        f"https://a.example/b?api_key={SECRET}",
        f"https://us'er:{SECRET}@a.example/b.jpg",
        f"https://a.example/b?jwt={SECRET}&hmac={SECRET}&access_key={SECRET}&__gda__={SECRET}",
        f"https://a.example/b?OSSAccessKeyId={SECRET}&x-oss-signature={SECRET}&q-signature={SECRET}",
        f"https://a.example/b?X%2DAmz%2DSignature={SECRET}",
        f"https://a.example/b#access_token={SECRET}",
        f"https://a.example/b?next=https%3A%2F%2Fb.example%2F%3Fsig%3D{SECRET}",
    ],
)
@pytest.mark.parametrize(
    "text", ["{}", "--input {} cannot be read", "redirected to '{}'", '{{"url": "{}"}}']
)
def test_credentials_are_replaced(url, text):
    redacted = redact(text.format(url))
    assert SECRET not in redacted
    assert "a.example" in redacted
    assert redacted == redact(redacted)


@pytest.mark.parametrize(
    "text",
    [
        "https://a.example/b.jpg?size=2&tokens=3&design=4",
        "https://a.example/user@host/b.jpg",
        "https://a.example/b.jpg?from=a@b.example",
        "/data/a@b/c?sig=1",
        "",
    ],
)
def test_everything_else_stays(text):
    assert redact(text) == text


@given(st.text())
def test_any_text_is_taken(text):
    assert redact(redact("https://" + text)) == redact("https://" + text)
