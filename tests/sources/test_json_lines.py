"""Tests of tables with one JSON object a line."""

import bz2
import dataclasses
import functools
import gzip
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import Failure, ImageRef
from beam_pipeline.sources import json_lines, registry, text_lines

ROWS = b'{"url": "http://a.example/1.jpg", "id": 7}\n{"url": "http://a.example/2.jpg"}\n'
REFS = [ImageRef("7", "http://a.example/1.jpg"), ImageRef("", "http://a.example/2.jpg")]


@functools.cache
def make_config(**options) -> Config:
    return Config(input="x", output="out", **options)


def read(folder: Path, data: bytes, name: str = "urls.jsonl", **options) -> list[ImageRef | None]:
    path = folder / name
    path.write_bytes(data)
    config = make_config(**options)
    source = registry.find_input(str(path), config)
    assert source is json_lines
    return list(source.read_refs(str(path), config))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("urls.jsonl", ROWS),
        ("urls.ndjson", ROWS),
        ("urls.jsonl.gz", gzip.compress(ROWS)),
        ("urls.jsonl.bz2", bz2.compress(ROWS)),
        ("urls", ROWS),
        ("urls.txt", b"\xef\xbb\xbf" + ROWS),
        ("urls.txt", gzip.compress(ROWS)),
        ("urls", ROWS.decode().encode("utf-16")),
    ],
    ids=range(8),
)
def test_objects_are_known_by_ending_or_content(tmp_path, name, data):
    assert read(tmp_path, data, name) == REFS


def test_blank_lines_and_comments_are_ignored(tmp_path):
    assert read(tmp_path, b" \n# a list\n" + ROWS, "urls") == [None, None, *REFS]


def test_columns(tmp_path):
    digest = "ab" * 32
    row = {
        "link": " http://a.example/é.jpg\n",
        "name": "n1_2",
        "label": 3,
        "sum": digest.upper(),
        "tags": ["\ud83d", {"a": None}],
        "width": float("nan"),
        "far": 1e999,
        "caption": "a cat",
    }
    [ref] = read(
        tmp_path,
        json.dumps(row).encode(),
        url_column="link",
        id_column="name",
        class_column="label",
        sha256_column="sum",
        keep_columns="caption, width,far,tags",
    )
    assert ref == ImageRef(
        "n1_2",
        "http://a.example/é.jpg",
        image_class="3",
        metadata='{"caption":"a cat","width":null,"far":null,"tags":["?",{"a":null}]}',
        digest=f"sha256:{digest}",
    )


def test_a_key_that_the_first_line_leaves_out_is_a_column(tmp_path):
    rows = ROWS + b'{"url": "http://a.example/3.jpg", "label": "cat"}\n'
    refs = read(tmp_path, rows, class_column="label")
    assert [ref.image_class for ref in refs if ref] == ["", "", "cat"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "no valid JSON"),
        (b'{"url": "http://b.example/', "no valid JSON"),
        (b"http://b.example/1.jpg", "no valid JSON"),
        (b"[1]", "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"id": "n1"}', "no URL"),
        (b'{"url": null}', "no URL"),
        (b'{"url": " "}', "no URL"),
        (b'{"url":' * 9_000, "no valid JSON"),
        (b'{"id":' + b"9" * 5_000 + b"}", "no valid JSON"),
        (b'{"url": "' + b"x" * text_lines.MAX_LINE + b'"}', "more than 65,536 bytes"),
    ],
    ids=range(11),
)
def test_a_broken_line_fails_alone(tmp_path, line, problem):
    first, second = ROWS.splitlines()
    [one, ref, two] = read(tmp_path, b"\n".join([first, line, second]))
    assert [one, two] == REFS and ref is not None and ref.problem is not None
    assert ref.url == f"{tmp_path / 'urls.jsonl'}#2"
    assert ref.problem.reason == "invalid_url"
    assert ref.problem.detail.startswith(f"row 2 has {problem}")


def test_nested_values_that_are_kept_may_be_deep(tmp_path):
    deep = b'{"url": "http://a.example/1.jpg", "tags": ' + b"[" * 900 + b"]" * 900 + b"}"
    [ref] = read(tmp_path, deep, keep_columns="tags")
    assert ref is not None and (ref.problem or json.loads(ref.metadata))


@pytest.mark.parametrize("data", [b"{\n", b"[]\n" * 200, b"x\n"])
def test_a_file_without_objects_is_refused(tmp_path, data):
    with pytest.raises(UsageError, match=r"urls\.jsonl holds no JSON objects"):
        read(tmp_path, data)


def test_objects_without_a_url_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no column called url.*its columns are a, b"):
        read(tmp_path, b'{"a": 1, "b": 2}\n')


@pytest.mark.parametrize("data", [b"", b"\n", b"# nothing\n"])
def test_a_file_without_lines_holds_nothing(tmp_path, data):
    assert not any(read(tmp_path, data))


# Failures of a run.


def failures(**stages: str) -> bytes:
    lines = (
        Failure(ImageRef("n1", f"http://a.example/{reason}"), stage, reason, "detail").as_json()
        for reason, stage in stages.items()
    )
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def test_failures_of_a_run(tmp_path):
    data = failures(http_503="fetch", corrupt="decode", invalid_url="read")
    refs = read(tmp_path, data, "failures-00000-of-00001.jsonl", class_column="label")
    assert refs == [
        ImageRef("n1", "http://a.example/http_503", is_retried=True),
        ImageRef("n1", "http://a.example/corrupt", is_retried=True),
        ImageRef("n1", "http://a.example/invalid_url"),
    ]


@pytest.mark.parametrize("is_validation", [None, True, False])
def test_a_failure_keeps_what_its_input_said(tmp_path, is_validation):
    ref = ImageRef(
        "7",
        "http://a.example/7.jpg",
        image_class="n01440764",
        digest=f"md5:{'0' * 32}",
        metadata='{"caption":"é","license":null}',
        is_validation=is_validation,
    )
    line = json.dumps(Failure(ref, "fetch", "timeout", "").as_json()).encode()
    retried = dataclasses.replace(ref, is_retried=True)
    assert read(tmp_path, line, keep_columns="caption,license") == [retried]
    assert read(tmp_path, line) == [dataclasses.replace(retried, metadata="")]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("digest", "md5:0"),
        ("digest", 7),
        ("metadata", "{"),
        ("metadata", "[1]"),
        ("metadata", 7),
        ("metadata", "[" * 5_000),
        ("split", "other"),
        ("split", []),
    ],
)
def test_what_a_failure_cannot_have_is_ignored(tmp_path, field, value):
    line = {"url": "http://a.example/7.jpg", "stage": "fetch", "reason": "timeout", field: value}
    [ref] = read(tmp_path, json.dumps(line).encode(), keep_columns="caption")
    assert ref == ImageRef("", "http://a.example/7.jpg", is_retried=True)


def test_failures_of_files_are_refused(tmp_path):
    """They cannot be fetched, and each would be an invalid URL."""
    failure = Failure(ImageRef("1", "photos/1.jpg"), "filter", "grey", "", 0, "")
    data = json.dumps(failure.as_json()).encode() + b"\n"
    with pytest.raises(UsageError, match=r"photos/1\.jpg\. Give the same --images again"):
        read(tmp_path, data, "failures-00000-of-00001.jsonl")


def test_failures_for_other_reasons_are_ignored(tmp_path):
    data = failures(http_503="fetch", dns="fetch", timeout="fetch")
    data += b'{"url": "x", "stage": "", "reason": ["dns"]}\n{\n[]\n'
    refs = read(tmp_path, data, retry_reasons="timeout, http_503")
    assert [ref and ref.url for ref in refs] == [
        "http://a.example/http_503", None, "http://a.example/timeout", None, None, None,
    ]  # fmt: skip
    config = Config(input="x", output="out")
    path = str(tmp_path / "urls.jsonl")
    assert json_lines.read_reasons(path, config) == {"http_503", "dns", "timeout"}


def test_other_tables_are_not_retried(tmp_path):
    [ref] = read(tmp_path, b'{"url": "http://a.example/1.jpg", "stage": "fetch"}')
    assert ref == ImageRef("", "http://a.example/1.jpg")


VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters())),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
OBJECT = st.dictionaries(st.sampled_from(["url", "id", "stage", "reason", "x"]), VALUE, max_size=5)
LINE = st.one_of(st.binary(max_size=12), OBJECT.map(lambda row: json.dumps(row).encode()))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(LINE, max_size=8).map(b"\n".join),
    st.sampled_from([{}, {"keep_columns": "x"}, {"retry_reasons": "dns"}, {"md5_column": "x"}]),
)
@example(b'{"url": NaN}', {})
@example(b'{"url": "\\ud83d"}', {"keep_columns": "url"})
def test_any_bytes_are_rows_problems_or_an_error(data, options):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "urls.jsonl"
        path.write_bytes(data)
        config = make_config(**options)
        try:
            refs = list(json_lines.read_refs(str(path), config))
        except UsageError as error:
            assert "urls.jsonl" in str(error)
            return
    assert len(refs) == len(data.splitlines())
    for ref in refs:
        assert ref is None or (ref.name and ref.id.encode() is not None and ref.url.encode())
        assert not (ref and ref.metadata) or json.loads(ref.metadata)
