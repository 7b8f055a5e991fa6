"""Tests that globs lose no file, whatever the characters of its name."""

import os
from pathlib import Path

import pytest
from apache_beam.io.filesystems import FileSystems
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipeline.sources import globs

NAME = st.text("ab1[]!^-*?\\.{(", min_size=1, max_size=4).filter(lambda name: name.strip("."))


def make(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"data")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.jpg", ["1.jpg", "2.jpg", "[1].jpg", "st*r.jpg", "star.jpg"]),
        ("?.jpg", ["1.jpg", "2.jpg"]),
        ("[1].jpg", ["[1].jpg"]),
        ("[12].jpg", ["1.jpg", "2.jpg"]),
        ("[!1].jpg", ["2.jpg"]),
        ("[0-9].jpg", ["1.jpg", "2.jpg"]),
        ("[9-0].jpg", []),
        ("[1]*", ["1.jpg", "[1].jpg"]),
        ("[1", []),
        ("st*r.jpg", ["st*r.jpg", "star.jpg"]),
        ("st[*]r.jpg", ["st*r.jpg"]),
        ("br[1]/*.jpg", ["br[1]/3.jpg"]),
        ("br[1]/", ["br[1]/3.jpg"]),
        ("*[1]/*.jpg", ["br1/4.jpg", "br[1]/3.jpg"]),
        ("*/*.jpg", ["a\\b/5.jpg", "br1/4.jpg", "br[1]/3.jpg"]),
        ("a\\b/?.jpg", ["a\\b/5.jpg"]),
        ("deep/**/*.jpg", ["deep/a/b/6.jpg"]),
        ("**/6.jpg", ["deep/a/b/6.jpg"]),
        ("deep/*", []),
        ("nowhere/*.jpg", []),
        ("1.jpg/*", []),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_match(tmp_path, monkeypatch, pattern, found, inside):
    make(
        tmp_path,
        "1.jpg",
        "2.jpg",
        "[1].jpg",
        "st*r.jpg",
        "star.jpg",
        "br1/4.jpg",
        "br[1]/3.jpg",
        "a\\b/5.jpg",
        "deep/a/b/6.jpg",
        ".hidden",
    )
    monkeypatch.chdir(tmp_path)
    start = "" if inside else f"{tmp_path}/"
    assert globs.match(start + pattern) == [start + path for path in found]


def test_a_name_that_is_not_utf8_is_found(tmp_path):
    name = os.fsdecode(b"\xe9 \xff.jpg")
    make(tmp_path, name)
    assert globs.match(f"{tmp_path}/*.jpg") == [f"{tmp_path}/{name}"]


@settings(max_examples=100, deadline=None)
@given(st.sets(NAME, min_size=1, max_size=8))
def test_every_name_is_found_by_itself_and_by_a_star(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("[files]")
    make(folder, *names)
    assert globs.match(f"{folder}/*") == sorted(f"{folder}/{name}" for name in names)
    for name in names:
        found = globs.match(f"{folder}/{name}")
        assert (
            f"{folder}/{name}" in found if set(name) & set("*?") else found == [f"{folder}/{name}"]
        )
        assert f"{folder}/{name}" in globs.match(f"{folder.parent}/*/{name}")


@settings(max_examples=100, deadline=None)
@given(
    st.sets(st.text("ab1/", min_size=1, max_size=5), max_size=9),
    st.text("ab1*?/", min_size=1, max_size=6),
)
def test_plain_names_are_matched_as_beam_matches_them(tmp_path_factory, names, pattern):
    folder = tmp_path_factory.mktemp("files")
    for name in names:
        path = folder / name.strip("/") / "f"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"data")
    # In Beam, `?` matches a slash too, and a pattern with two slashes in a row matches nothing.
    pattern = "/".join(part for part in pattern.split("/") if part).replace("?", "[ab1]") + "*"
    [match] = FileSystems.match([f"{folder}/{pattern}/f"])
    assert globs.match(f"{folder}/{pattern}/f") == sorted(file.path for file in match.metadata_list)
