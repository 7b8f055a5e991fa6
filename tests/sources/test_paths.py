"""Tests of the splitting of options that name several files."""

import doctest

import pytest

from beam_pipeline.sources import paths


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("https://a.example/a,b.txt?x=1,2", ["https://a.example/a,b.txt?x=1,2"]),
        ("http://a.example/a,https://b.example/b", ["http://a.example/a", "https://b.example/b"]),
        ("http://a.example/a,1,b.txt", ["http://a.example/a,1", "b.txt"]),
        ("b.txt,http://a.example/a,b", ["b.txt", "http://a.example/a,b"]),
        ("gs://a/a,b.csv,gs://a/*.csv,s3://b/c", ["gs://a/a,b.csv", "gs://a/*.csv", "s3://b/c"]),
        ("http://a.example/a, *.txt", ["http://a.example/a", "*.txt"]),
    ],
)
def test_split_keeps_the_commas_of_urls(tmp_path, monkeypatch, value, parts):
    (tmp_path / "b.txt").touch()
    monkeypatch.chdir(tmp_path)
    assert paths.split("--input", value) == parts


def test_examples():
    assert doctest.testmod(paths).failed == 0
