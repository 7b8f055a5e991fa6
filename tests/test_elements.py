"""Tests of the elements of the graph."""

import dataclasses
import hashlib
import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.elements import EmbeddedImage, EncodedImage, Failure, ImageRef, RgbImage, as_text

REF = ImageRef("n00004475_6590", "http://example.com/a.jpg")
PIXELS = np.zeros((2, 2, 3), np.uint8)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://example.com/a.jpg", "6c1fd52c961019f29e4aff02e2387768.jpeg"),
        ("http://example.com/é.jpg", "ef13ee9284cd5b686c36d233cd529cf3.jpeg"),
        ("", "d41d8cd98f00b204e9800998ecf8427e.jpeg"),
    ],
)
def test_name_is_the_md5_of_the_url(url, name):
    assert ImageRef("", url).name == name


def test_name_depends_on_nothing_but_the_url():
    assert ImageRef("a", REF.url).name == ImageRef("b", REF.url).name
    assert ImageRef("", REF.url + "?").name != REF.name


def test_refs_are_equal_by_id_and_url_whether_their_name_was_asked_for_or_not():
    asked, fresh = ImageRef("a", "u"), ImageRef("a", "u")
    assert asked.name
    assert asked == fresh
    assert hash(asked) == hash(fresh)
    assert asked != ImageRef("b", "u")
    assert asked != ImageRef("a", "v")


@given(st.text(), st.text())
def test_refs_survive_pickling(identifier, url):
    ref = ImageRef(identifier, url)
    copy = pickle.loads(pickle.dumps(ref))
    assert copy == ref
    assert copy.name == ref.name


@pytest.mark.parametrize(
    "element",
    [
        REF,
        EncodedImage(REF, b"data", 1, REF.url),
        RgbImage(REF, PIXELS, (8, 6)),
        EmbeddedImage(RgbImage(REF, PIXELS, (8, 6)), None),
        Failure(REF, "fetch", "http_404", "404 Not Found"),
    ],
)
def test_elements_cannot_be_changed(element):
    field = dataclasses.fields(element)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(element, field, None)


def test_elements_with_arrays_can_be_compared_and_hashed():
    one, other = RgbImage(REF, PIXELS, (8, 6)), RgbImage(REF, PIXELS, (8, 6))
    assert one == one
    assert one != other
    assert len({one, other}) == 2


@pytest.mark.parametrize("embedding", [None, np.arange(1001, dtype=np.float32)])
def test_an_embedded_image_is_about_its_image(embedding):
    image = EmbeddedImage(RgbImage(REF, PIXELS, (8, 6)), embedding)
    assert image.ref is REF
    assert image.embedding is embedding


def test_a_failure_has_the_documented_fields_in_order():
    failure = Failure(REF, "fetch", "http_404", "404 Not Found", 3, "http://example.com/b.jpg")
    assert list(failure.as_json().items()) == [
        ("id", "n00004475_6590"),
        ("url", "http://example.com/a.jpg"),
        ("name", REF.name),
        ("stage", "fetch"),
        ("reason", "http_404"),
        ("detail", "404 Not Found"),
        ("attempts", 3),
        ("final_url", "http://example.com/b.jpg"),
    ]


ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"/photos/a.jpg", "/photos/a.jpg"),
        ("/photos/é犬.jpg".encode(), "/photos/é犬.jpg"),
        (b"/photos/\xe9%E9.jpg", "/photos/%E9%E9.jpg"),
        ("é".encode() + b"\xff\x80", "é%FF%80"),
    ],
)
def test_a_path_that_is_not_utf8_becomes_text(data, text):
    ref = ImageRef("", os.fsdecode(data))
    assert ref.url_text == text
    assert ref.name == hashlib.md5(data).hexdigest() + ".jpeg"


@given(ANY_TEXT)
def test_printable_text_is_always_valid_unicode(text):
    shown = as_text(text)
    assert shown.encode().decode() == as_text(shown) == shown
    assert shown == text or not text.isascii()


@given(ANY_TEXT, st.binary(), ANY_TEXT, st.binary())
def test_a_failure_is_text_whatever_it_is_about(identifier, path, detail, final):
    failure = Failure(
        ImageRef(identifier, os.fsdecode(path)), "fetch", "not_found", detail, 1, os.fsdecode(final)
    )
    assert (
        json.loads(json.dumps(failure.as_json(), ensure_ascii=False).encode()) == failure.as_json()
    )


@given(st.text(), st.text(), st.text())
def test_a_failure_is_one_line_of_json_whatever_it_is_about(identifier, url, detail):
    fields = Failure(ImageRef(identifier, url), "read", "invalid_url", detail).as_json()
    line = json.dumps(fields)
    assert len(line.splitlines()) == 1
    assert json.loads(line) == fields
    assert (fields["attempts"], fields["final_url"]) == (0, "")


def test_what_servers_add_to_a_failure_is_without_credentials():
    ref = ImageRef("", "https://a.example/b.jpg?sig=asked")
    detail = "redirected to https://b.example/?X-Amz-Signature=s3cr3t"
    line = Failure(
        ref, "fetch", "unsupported_scheme", detail, 1, "https://b.example/?token=s3cr3t"
    ).as_json()
    assert "s3cr3t" not in str(line)
    # A rerun fetches this URL.
    assert line["url"] == ref.url
