"""Tests of .csv and .tsv files, in the layouts of published data sets and with damage."""

import bz2
import functools
import gzip
import json
import re
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import ImageRef, Problem
from beam_pipeline.sources import registry, text_lines, url_table

LONG = b"x" * (3 * text_lines.MAX_LINE)


@functools.cache
def make_config(**options) -> Config:
    return Config(input="x", output="out", **options)


def read(folder: Path, name: str, data: bytes, **options) -> list[ImageRef | None]:
    path = folder / name
    path.write_bytes(data)
    config = make_config(**options)
    return list(registry.find_input(str(path), config).read_refs(str(path), config))


def refusal(folder: Path, name: str, data: bytes, **options) -> str:
    with pytest.raises(UsageError) as caught:
        read(folder, name, data, **options)
    message = str(caught.value)
    assert message.startswith(str(folder / name)) and message.isprintable()
    assert len(message) < 1000
    return message


# Published layouts.

OPEN_IMAGES = (
    b"ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
    b"OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation\n"
    b"000060e3121c7305,train,https://c1.static.example/6/5157/1.jpg,https://www.static.example/1,"
    b'https://cc.example/by/2.0/,https://www.static.example/me/,"Doe, J","A ""dog""\nat rest",'
    b"553904,1B2M2Y8AsgTpgAmY7PhCfg==,https://c1.static.example/1_z.jpg,0.0\n"
)


def test_open_images(tmp_path):
    options = {
        "md5_column": "OriginalMD5",
        "keep_columns": "Title,Author",
        "class_column": "Subset",
    }
    [ref] = read(tmp_path, "images.csv", OPEN_IMAGES, **options)
    assert ref == ImageRef(
        "000060e3121c7305",
        "https://c1.static.example/6/5157/1.jpg",
        image_class="train",
        metadata='{"Title":"A \\"dog\\"\\nat rest","Author":"Doe, J"}',
        digest="md5:d41d8cd98f00b204e9800998ecf8427e",
    )


def test_conceptual_12m(tmp_path):
    data = b'http://a.example/1.jpg\t"Dog" on a 5" chair\nhttp://a.example/2.jpg\t"a cat\n'
    refs = read(tmp_path, "cc12m.tsv", data, url_column="1", keep_columns="2")
    assert [ref.url for ref in refs if ref] == ["http://a.example/1.jpg", "http://a.example/2.jpg"]
    captions = [json.loads(ref.metadata) for ref in refs if ref]
    assert captions == [{"2": '"Dog" on a 5" chair'}, {"2": '"a cat'}]


def test_conceptual_captions(tmp_path):
    data = b"a dog at rest\thttp://a.example/1.jpg\n"
    assert read(tmp_path, "Train_GCC-training.tsv", data, url_column="2") == [
        ImageRef("", "http://a.example/1.jpg")
    ]


# Forms of tables.

TABLE = b"id,url\n7,http://a.example/1.jpg\n8,http://b.example/2.jpg\n"
REFS = [ImageRef("7", "http://a.example/1.jpg"), ImageRef("8", "http://b.example/2.jpg")]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("urls.csv", TABLE),
        ("URLS.CSV", TABLE),
        ("urls.csv", b"\n \n" + TABLE),
        ("urls.csv", b"\xef\xbb\xbf" + TABLE),
        ("urls.csv", TABLE.decode().encode("utf-16")),
        ("urls.csv", TABLE.replace(b"\n", b"\r\n")),
        ("urls.csv", TABLE.replace(b"\n", b"\r")),
        ("urls.csv", TABLE.removesuffix(b"\n")),
        ("urls.csv", TABLE.replace(b"id,url", b' "ID" , Url'.replace(b' "', b'"'))),
        ("urls.tsv", TABLE.replace(b",", b"\t")),
        ("urls.csv.gz", gzip.compress(TABLE)),
        ("urls.tsv.bz2", bz2.compress(TABLE.replace(b",", b"\t"))),
    ],
    ids=range(12),
)
def test_tables_with_a_header(tmp_path, name, data):
    assert read(tmp_path, name, data) == REFS


@pytest.mark.parametrize("name", ["urls", "urls.txt", "urls.txt.gz"])
@pytest.mark.parametrize("delimiter", [b",", b"\t"])
def test_url_column_makes_any_text_a_table(tmp_path, name, delimiter):
    data = TABLE.replace(b",", delimiter)
    pack = gzip.compress if name.endswith(".gz") else bytes
    assert read(tmp_path, name, pack(data), url_column="url") == REFS
    rows = data.partition(b"\n")[2]
    assert read(tmp_path, name, pack(rows), url_column="2", id_column="1") == REFS


def test_blank_rows_are_ignored(tmp_path):
    assert read(tmp_path, "urls.csv", TABLE.replace(b"\n", b"\n\n")) == [
        None, REFS[0], None, REFS[1], None,
    ]  # fmt: skip


def test_rows_that_are_not_utf8_are_latin_1(tmp_path):
    data = b"url,name\nhttp://a.example/\xe9.jpg,\xe9\nhttp://a.example/\xc3\xa9,\xc3\xa9\n"
    refs = read(tmp_path, "urls.csv", data, class_column="name")
    urls = ["http://a.example/é.jpg", "http://a.example/é"]
    assert [(ref.url, ref.image_class) for ref in refs if ref] == [(url, "é") for url in urls]


def test_urls_are_stripped(tmp_path):
    [ref] = read(tmp_path, "urls.csv", b'url,x\n" http://a.example/1.jpg\r\n\t",\n')
    assert ref == ImageRef("", "http://a.example/1.jpg")


# Damage.


def test_a_row_of_another_length_fails_alone(tmp_path):
    data = TABLE + b"9,http://c.example/3.jpg,x\n9\n" + TABLE.partition(b"\n")[2]
    refs = read(tmp_path, "urls.csv", data)
    path = tmp_path / "urls.csv"
    assert refs == [
        *REFS,
        ImageRef("", f"{path}#3", problem=Problem("invalid_url", "row 3 has 3 values, not 2")),
        ImageRef("", f"{path}#4", problem=Problem("invalid_url", "row 4 has 1 values, not 2")),
        *REFS,
    ]


def test_a_row_without_a_url_fails_alone(tmp_path):
    refs = read(tmp_path, "urls.csv", b"id,url\n7,\n8,  \n" + TABLE.partition(b"\n")[2])
    path = tmp_path / "urls.csv"
    assert refs == [
        ImageRef("7", f"{path}#1", problem=Problem("invalid_url", "row 1 has no URL")),
        ImageRef("8", f"{path}#2", problem=Problem("invalid_url", "row 2 has no URL")),
        *REFS,
    ]


@pytest.mark.parametrize("after", [0, 1, 10_000])
@pytest.mark.parametrize("name", ["urls.csv", "urls.tsv"])
def test_a_quote_that_is_not_closed_costs_no_other_row(tmp_path, name, after):
    rows = [b"http://a.example/%d.jpg,a cat" % number for number in range(after + 1)]
    rows[0] = b'http://a.example/0.jpg,"a cat'
    data = b"\n".join([b"url,caption", *rows])
    if name.endswith(".tsv"):
        data = data.replace(b",", b"\t")
    refs = read(tmp_path, name, data, keep_columns="caption")
    assert refs == [
        ImageRef("", f"http://a.example/{number}.jpg", metadata='{"caption":"a cat"}')
        for number in range(after + 1)
    ]


@pytest.mark.parametrize(
    "row",
    [
        b"http://b.example/1.jpg," + LONG,
        b'http://b.example/1.jpg,"' + LONG + b'"',
        b'http://b.example/1.jpg,"' + LONG,
        b"," * len(LONG),
    ],
    ids=["plain", "quoted", "unclosed", "delimiters"],
)
def test_a_row_that_is_too_long_fails_alone(tmp_path, row):
    data = b"url,caption\nhttp://a.example/1.jpg,x\n" + row + b"\nhttp://a.example/2.jpg,x\n"
    refs = read(tmp_path, "urls.csv", data)
    assert [ref.url for ref in refs if ref and not ref.problem] == [
        "http://a.example/1.jpg",
        "http://a.example/2.jpg",
    ]
    [problem] = [ref.problem for ref in refs if ref and ref.problem]
    assert problem == Problem("invalid_url", "row 2 has more than 65,536 bytes")


def test_records_of_quoted_line_ends_without_end_take_little_memory(tmp_path):
    data = b'url,caption\nhttp://a.example/1.jpg,"' + b'\n","' * 150_000
    (tmp_path / "urls.csv").write_bytes(data)
    config = Config(input=str(tmp_path / "urls.csv"), output="out")
    tracemalloc.start()
    try:
        refs = url_table.read_refs(str(tmp_path / "urls.csv"), config)
        assert next(refs) == ImageRef("", "http://a.example/1.jpg")
        assert all(ref and ref.problem for ref in refs)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (
            b"a,b\n1,2\n",
            {},
            "no column called url, image_url, originalurl or uri: give --url_column",
        ),
        (b"a,b\n1,2\n", {}, "its columns are a, b"),
        (b"url,URI\n1,2\n", {}, "several columns called"),
        (
            b"url,b\n1,2\n",
            {"class_column": "c"},
            "no column called --class_column c: its columns are",
        ),
        (b"url,b,b\n1,2,3\n", {"keep_columns": "b"}, "several columns called --keep_columns b"),
        (b"http://a.example/1.jpg,b\n", {"url_column": "3"}, "no column called --url_column 3"),
        (b"http://a.example/1.jpg,b\n", {"url_column": "0"}, "no column called --url_column 0"),
        (b"x,http://a.example/1.jpg\n", {}, "no header: .* in column 2; give --url_column 2"),
        (b"http://a.example/1.jpg\n", {}, "no header: .* in column 1; give --url_column 1"),
        (LONG, {}, "begins with a row of more than 65,536 bytes"),
        (b"a\x07\xff" * 10_000, {}, "its columns are a[?]"),
        (b"," * 60_000, {}, "its columns are ,"),
    ],
    ids=range(12),
)
def test_tables_without_a_column_are_refused(tmp_path, data, options, message):
    assert re.search(message, refusal(tmp_path, "urls.csv", data, **options))


@pytest.mark.parametrize("data", [b"", b"\n\n", b"url\n"])
def test_a_table_without_rows_holds_nothing(tmp_path, data):
    assert read(tmp_path, "urls.csv", data) == []


CELL = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [b"url", b"http://a.example/1.jpg", b'"', b'""', b"\n", b"\r", b",", b"\t", b"\0", b"\xff"]
    ),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(CELL, max_size=20).map(b"".join),
    st.sampled_from([b"", b"url\n", b"id,url\n", b"url\tid\n"]),
    st.sampled_from(["urls.csv", "urls.tsv", "urls.csv.gz"]),
    st.sampled_from([{}, {"url_column": "1"}, {"url_column": "url", "md5_column": "id"}]),
)
@example(b'"', b"url\n", "urls.csv", {})
@example(b"http://a.example/1.jpg", b"", "urls", {"url_column": "1", "id_column": "1"})
def test_any_bytes_are_rows_problems_or_an_error(rows, header, name, options):
    with tempfile.TemporaryDirectory() as folder:
        try:
            refs = read(Path(folder), name, header + rows, **options)
        except UsageError as error:
            assert name in str(error)
            return
    for ref in refs:
        assert ref is None or (ref.name and ref.id.encode() is not None and ref.url.encode())
    problems = [ref.url for ref in refs if ref and ref.problem]
    assert len(set(problems)) == len(problems)
