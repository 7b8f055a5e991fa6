"""Tests that the samples of WebDataset shards get their class and metadata."""

import gzip
import json
import tracemalloc
from collections.abc import Callable

import pytest
from archives import body, list_images, make_tar, read_bodies, write
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.elements import ImageRef
from beam_pipeline.sources.webdataset import Entry, join_samples, split_key

PACKERS: dict[str, Callable[[bytes], bytes]] = {"plain": bytes, "gz": gzip.compress}


@pytest.mark.parametrize("packer", PACKERS)
def test_timms_layout(tmp_path, packer):
    fields = {"label": 0, "filename": "n01440764/n01440764_10026.JPEG", "caption": "é"}
    shard = make_tar(
        [
            ("n01440764_10026.cls", b"0\n"),
            ("n01440764_10026.jpg", body("10026")),
            ("n01440764_10026.json", json.dumps(fields).encode()),
            ("n01440764_10027.cls", b"1"),
            ("n01440764_10027.JPEG", body("10027")),
            ("n01440764_10027.json", b"{}"),
        ]
    )
    path = write(tmp_path / "imagenet1k-train-0000.tar", PACKERS[packer](shard))
    refs = list_images(path, keep_columns="caption, label")
    assert [(ref.id, ref.url, ref.image_class) for ref in refs] == [
        ("n01440764_10026", f"{path}#n01440764_10026.jpg", "0"),
        ("n01440764_10027", f"{path}#n01440764_10027.JPEG", "1"),
    ]
    assert [json.loads(ref.metadata) for ref in refs] == [
        {"caption": "é", "label": 0},
        {"caption": None, "label": None},
    ]
    assert read_bodies(refs) == {refs[0].url: body("10026"), refs[1].url: body("10027")}
    assert [ref.metadata for ref in list_images(path)] == ["", ""]


@pytest.mark.parametrize(
    ("sidecar", "expected"),
    [
        (b'{"a": 1}', {"a": 1, "b": None}),
        (b'{"a": {"x": [1, null]}, "b": "\xc3\xa9", "c": 1}', {"a": {"x": [1, None]}, "b": "é"}),
        (b'{"a": "\\ud800"}', {"a": "\ud800", "b": None}),
        (b'{"a": NaN}', {"a": None, "b": None}),
        (b'{"a": 1e999}', {"a": None, "b": None}),
        (b'{"a": ' + b"1" * 5000 + b"}", {"a": None, "b": None}),
        (b'{"a": ' + b"[" * 100_000, {"a": None, "b": None}),
        (b'{"a": "' + b"x" * 100_000 + b'"}', {"a": None, "b": None}),
        (b'{"a": 1}' + b" " * (1 << 20), {"a": None, "b": None}),
        (b"{broken", {"a": None, "b": None}),
        (b"[1]", {"a": None, "b": None}),
        (b"\xff\xfe", {"a": None, "b": None}),
        (b"", {"a": None, "b": None}),
    ],
)
def test_metadata(tmp_path, sidecar, expected):
    shard = make_tar([("1.json", sidecar), ("1.jpg", b"x")])
    [ref] = list_images(write(tmp_path / "x.tar", shard), keep_columns="a,b")
    assert json.loads(ref.metadata) == expected
    assert ref.metadata.isascii() and " " not in ref.metadata.replace('" "', "")


def test_text_is_metadata(tmp_path):
    members = [("1.txt", "é犬\n".encode()), ("1.jpg", b"x"), ("2.jpg", b"x"), ("2.txt", b"\xff")]
    members += [("3.jpg", b"x"), ("3.txt", b"x" * (65 << 10))]
    refs = list_images(write(tmp_path / "x.tar", make_tar(members)), keep_columns="txt")
    assert [json.loads(ref.metadata)["txt"] for ref in refs] == ["é犬", "\ufffd", None]


def test_a_large_class_is_none(tmp_path):
    members = [("1.cls", b"x" * 1025), ("1.jpg", b"x"), ("2.cls", b" dog\n"), ("2.jpg", b"x")]
    refs = list_images(write(tmp_path / "x.tar", make_tar(members)))
    assert [ref.image_class for ref in refs] == ["", "dog"]


def test_which_member_of_a_sample_is_its_image(tmp_path):
    members = [
        ("a/1.seg.png", b"x"),
        ("a/1.webp", b"x"),
        ("a/1.jpg", b"x"),
        ("a/1.cls", b"5"),
        ("b/1.jpg", b"x"),
        ("2.jpg", b"x"),
        ("2.png", b"x"),
        ("3.gif", b"x"),
        ("3.cls", b"7"),
        ("4.jpg", b"x"),
        ("5.cls", b"8"),
        ("4.cls", b"9"),
    ]
    path = write(tmp_path / "x.tar", make_tar(members))
    assert [(ref.url.removeprefix(f"{path}#"), ref.image_class) for ref in list_images(path)] == [
        ("a/1.webp", "5"),
        ("b/1.jpg", ""),
        ("2.jpg", ""),
        ("2.png", ""),
        ("3.gif", ""),
        ("4.jpg", ""),
    ]


def test_a_problem_in_a_sample_stays_one(tmp_path):
    members = [("1.cls", b"5"), ("1.jpg", bytes(200)), ("2.jpg", b"x")]
    refs = list_images(write(tmp_path / "x.tar", make_tar(members)), max_image_bytes=100)
    assert refs[0].problem and refs[0].problem.reason == "too_large"
    assert (refs[0].image_class, refs[1].problem) == ("5", None)


def test_damage_is_no_member_of_a_sample(tmp_path):
    shard = make_tar([("1.jpg", b"x"), ("1.cls", b"5"), ("1.json", b"{}")])
    refs = list_images(write(tmp_path / "x.tar", shard[: 2 * 1024 + 100]))
    assert [(ref.image_class, bool(ref.problem)) for ref in refs] == [("5", False), ("", True)]


NAMES = st.text("ab./", min_size=1, max_size=6)
ENDINGS = st.sampled_from([".jpg", ".png", ".gif", ".cls", ".json", ".npy"])


@given(st.lists(st.tuples(NAMES, ENDINGS), max_size=12))
def test_no_image_without_a_sidecar_is_lost(names):
    entries = [
        Entry(
            stem + ending,
            ImageRef("", stem + ending) if ending in (".jpg", ".png", ".gif") else None,
            b"" if split_key(stem + ending)[1] in ("cls", "json") else None,
        )
        for stem, ending in names
    ]
    urls = [ref.url for ref in join_samples(entries, [])]
    images = [entry.ref.url for entry in entries if entry.ref]
    samples = {split_key(entry.name)[0] for entry in entries if entry.content is not None}
    assert {split_key(url)[0] for url in set(images) - set(urls)} <= samples
    if not samples:
        assert urls == images


def test_a_key_of_all_members_does_not_collect_them():
    entries = (
        Entry(f"photo.{number}.jpg", ImageRef("", f"photo.{number}.jpg"))
        for number in range(50_000)
    )
    tracemalloc.start()
    assert sum(1 for _ in join_samples(entries, [])) == 50_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 18
