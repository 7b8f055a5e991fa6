"""Tests of what a file is read as, and of the refusal of what is no list."""

import collections
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import ImageRef
from beam_pipeline.sources import (
    json_lines,
    listing,
    parquet_table,
    registry,
    text_list,
    url_table,
)


def refs_of(path: Path | str, **options) -> list[ImageRef]:
    config = Config(input=str(path), output="out", **options)
    listing.check_readable(config)
    return list(listing.read_refs(config, collections.Counter()))


def refusal(path: Path, data: bytes, **options) -> str:
    """Return the message of the check before anything is fetched."""
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        listing.check_readable(Config(input=str(path), output="out", **options))
    assert str(path) in str(caught.value) and str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "source"),
    [
        ("urls", b"", text_list),
        ("urls.txt", b"http://a.example/1.jpg\n", text_list),
        ("urls.txt", b"# {\nhttp://a.example/{}\n", text_list),
        ("urls.csv", b"url\n", url_table),
        ("urls.csv", b"{,url\n", url_table),
        ("urls.tsv.gz", gzip.compress(b"url\n"), url_table),
        ("urls", b" \n# a comment\n  {", json_lines),
        ("urls.jsonl", b"", json_lines),
        ("urls", b"PAR1", parquet_table),
        ("urls.csv", b"PAR1", parquet_table),
    ],
    ids=range(10),
)
def test_files_are_known_by_ending_and_content(tmp_path, name, data, source):
    (tmp_path / name).write_bytes(data)
    config = Config(input="x", output="out")
    assert registry.find_input(str(tmp_path / name), config) is source


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is a folder: give it as --images"):
        refs_of(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"http://x.example/a.jpg,cat8\n", "--url_column 1"),
        (b"http://x.example/a.JPEG,cat8,7\n" * 30, "--url_column 1"),
        (b"http://x.example/a.jpg,a cat, at rest\n", "--url_column 1"),
        (b"http://x.example/a.jpg\ta caption with words\n", "--url_column 1"),
        (b"http://x.example/a.jpg\tcat\n", "--url_column 1"),
        (b"http://x.example/a.jpg\thttp://x.example/b.jpg\n", "--url_column 1"),
        (b"n1\thttp://x.example/a.jpg\ta cat\n", "--url_column 2"),
        (b'7,"http://x.example/a.jpg",cat\n', "--url_column 2"),
        (b"# a list\n\nn1,http://x.example/a.jpg\n" * 20, "--url_column 2"),
        (b"url,caption\nhttp://x.example/a.jpg,cat\n", "its columns are url, caption: rename it"),
        (b'"ID","Image_URL"\n7,http://x.example/a\n', "its columns are ID, Image_URL: rename it"),
        (b"caption\turl\na cat\thttp://x.example/a\n" + b"a\tx\n" * 9, "columns are caption, url"),
    ],
    ids=range(12),
)
def test_a_table_that_is_given_as_a_list_is_refused(tmp_path, data, message):
    refused = refusal(tmp_path / "urls.txt", data)
    assert "looks like a table" in refused and message in refused


LEGAL = [
    b"http://a.example/1,2,3.jpg?x=a,b",
    b"http://a.example/1.jpg?crop=1.jpg,cat/2.jpg",
    b"http://a.example/w_100,h_100/1.jpg",
    b"n1_2\thttp://a.example/1.jpg,cat",
    b"n1_2 http://a.example/1,2.jpg",
    b"a,b\thttp://a.example/1.jpg",
    b"url,id http://a.example/1.jpg",
    b"n1 a dog http://a.example/1.jpg",
    b"\xe9\thttp://a.example/\xe9,\xa0.jpg",
    b"HTTPS://A.EXAMPLE/1.JPG",
    b'http://a.example/"1".jpg',
]


@pytest.mark.parametrize("line", LEGAL)
@pytest.mark.parametrize("first", [b"", b"# url,caption\n", b"ID\tURL\n"])
def test_a_list_is_never_refused(tmp_path, line, first):
    (tmp_path / "urls.txt").write_bytes(first + line + b"\n" + line)
    assert refs_of(tmp_path / "urls.txt")[-1] == text_list.parse_line(line)


def test_a_few_stray_lines_are_no_table(tmp_path):
    stray = b"http://a.example/1.jpg,cat\nhttp://a.example/1.jpg\tcat\nx,y\n" * 3
    (tmp_path / "urls.txt").write_bytes(stray + b"\n".join(LEGAL) + b"\n")
    assert len(refs_of(tmp_path / "urls.txt")) == 9 + len(LEGAL)


@pytest.mark.parametrize("option", ["class_column", "md5_column", "keep_columns"])
def test_columns_of_a_list_are_refused(tmp_path, option):
    message = refusal(tmp_path / "urls.txt", b"http://a.example/1.jpg\n", **{option: "x"})
    assert f"--{option} x needs a table" in message


def test_reasons_of_what_is_no_list_of_failures_are_refused(tmp_path):
    message = refusal(tmp_path / "urls.csv", b"url\nx\n", retry_reasons="dns")
    assert "Its reasons are none: it is not a list of failures" in message


# Several inputs.


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"http://a.example/%s\n" % name.encode())


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("a.txt,b.txt", ["a.txt", "b.txt"]),
        ("b.txt, a.txt,", ["b.txt", "a.txt"]),
        ("?.txt,x/*.txt", ["a.txt", "b.txt", "x/c.txt"]),
        ("x,y.txt", ["x,y.txt"]),
        ("a.txt,x,y.txt,b.txt", ["a.txt", "x,y.txt", "b.txt"]),
        ("c,d/*.txt,a.txt", ["c,d/e.txt", "a.txt"]),
        ("c,d/e.txt,c,d/?.txt", ["c,d/e.txt", "c,d/e.txt"]),
        ("x?y.txt", ["x,y.txt"]),
    ],
)
def test_several_lists(tmp_path, monkeypatch, value, names):
    make(tmp_path, "a.txt", "b.txt", "x,y.txt", "x/c.txt", "c,d/e.txt")
    monkeypatch.chdir(tmp_path)
    urls = [f"http://a.example/{name}" for name in names]
    assert [ref.url for ref in refs_of(value)] == urls


def test_several_lists_may_be_of_several_kinds(tmp_path):
    make(tmp_path, "a.txt")
    (tmp_path / "b.csv").write_bytes(b"url\nhttp://a.example/b\n")
    (tmp_path / "c.jsonl").write_bytes(b'{"url": "http://a.example/c"}\n')
    pq.write_table(pa.table({"url": ["http://a.example/d"]}), tmp_path / "d.parquet")
    value = ",".join(str(tmp_path / name) for name in ("d.parquet", "c.jsonl", "b.csv", "a.txt"))
    names = ["d", "c", "b", "a.txt"]
    assert [ref.url for ref in refs_of(value)] == [f"http://a.example/{name}" for name in names]
    assert len(refs_of(tmp_path / "*")) == 4


@pytest.mark.parametrize("value", ["a.txt,b.txt", "a.txt,*.csv", ",", " , "])
def test_one_that_is_not_there_is_refused(tmp_path, monkeypatch, value):
    make(tmp_path, "a.txt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"--input (b.txt|\*.csv) matches no file|names no file"):
        refs_of(value)


def test_each_list_is_looked_at_before_anything_is_fetched(tmp_path):
    make(tmp_path, "a.txt")
    (tmp_path / "b.csv").write_bytes(b"x,y\n")
    with pytest.raises(UsageError, match=r"b\.csv has no column"):
        refs_of(f"{tmp_path / 'a.txt'},{tmp_path / 'b.csv'}")
