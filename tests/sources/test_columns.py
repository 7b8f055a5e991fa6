"""Tests of the choice of columns, and of the values of a row."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import ImageRef, Problem
from beam_pipeline.sources import columns
from beam_pipeline.sources.columns import Columns, make_ref, resolve


def config(**options) -> Config:
    return Config(input="urls.csv", output="out", **options)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["url"], Columns("url")),
        (["URL", "TEXT"], Columns("URL")),
        (["Image_Url", "caption"], Columns("Image_Url")),
        (["uri"], Columns("uri")),
        (["ImageID", "OriginalURL", "Thumbnail300KURL"], Columns("OriginalURL", "ImageID")),
        (["sample_id", "KEY", "url", "uid"], Columns("url", "KEY")),
        (["id", "ID", "url", "uid"], Columns("url", "ID")),
        (["id", "id", "url"], Columns("url")),
    ],
)
def test_the_usual_columns(names, found):
    assert resolve("urls.csv", names, config()) == found


def test_a_table_may_have_many_columns():
    names = ["url", *map(str, range(200_000)), "id"]
    assert resolve("urls.csv", names, config()) == Columns("url", "id")


def test_named_columns():
    options = config(
        url_column="a",
        id_column="b",
        class_column="c",
        sha256_column="d",
        md5_column="e",
        keep_columns="g,c",
    )
    found = resolve("urls.csv", ["g", "f", "e", "d", "c", "b", "a", "url", "id"], options)
    assert found == Columns("a", "b", "c", "d", "e", ("g", "c"))
    assert found.names == ["a", "b", "c", "d", "e", "g"]


@pytest.mark.parametrize(
    "option", ["url_column", "id_column", "class_column", "sha256_column", "md5_column"]
)
def test_a_column_that_does_not_exist_is_refused(option):
    with pytest.raises(UsageError, match=f"^t.csv has no column called --{option} x: .* url, id$"):
        resolve("t.csv", ["url", "id"], config(**{option: "x"}))


@pytest.mark.parametrize("names", [["x" * 10_000], ["xy"] * 10_000, ["\n\x1b[31m\ud83d"]])
def test_the_list_of_columns_is_short_and_printable(names):
    with pytest.raises(UsageError) as caught:
        resolve("t.csv", names, config())
    assert len(str(caught.value)) < 500 and str(caught.value).isprintable()


FOUND = Columns("url", "id", "class", "sha256", "md5")
HEX = "0123456789abcdef0123456789abcdef"
URL = "http://a.example/1.jpg"


@pytest.mark.parametrize(
    ("values", "digest"),
    [
        ({}, ""),
        ({"sha256": None, "md5": ""}, ""),
        ({"sha256": float("nan")}, ""),
        ({"sha256": HEX * 2, "md5": HEX}, f"sha256:{HEX * 2}"),
        ({"sha256": " ", "md5": HEX.upper()}, f"md5:{HEX}"),
        ({"md5": f" {HEX}\n"}, f"md5:{HEX}"),
        ({"md5": "ASNFZ4mrze8BI0VniavN7w=="}, f"md5:{HEX}"),
        ({"sha256": "ASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4mrze8="}, f"sha256:{HEX * 2}"),
        ({"md5": bytes.fromhex(HEX)}, f"md5:{HEX}"),
    ],
    ids=range(9),
)
def test_digests(values, digest):
    assert make_ref("t.csv", 1, FOUND, {"url": URL, **values}) == ImageRef("", URL, digest=digest)


@pytest.mark.parametrize(
    "digest", [HEX[1:], "g" * 32, "é" * 32, HEX * 2, "ASNFZ4mrze8BI0VniavN7", 7]
)
def test_an_invalid_digest_is_a_problem(digest):
    problem = Problem("invalid_digest", "row 5 has an invalid digest")
    ref = make_ref("t.csv", 5, FOUND, {"url": URL, "id": "n1", "md5": digest})
    assert ref == ImageRef("n1", "t.csv#5", problem=problem)


def test_a_row_of_a_list_with_credentials_does_not_repeat_them():
    ref = make_ref("https://me:secret@a.example/t.csv", 5, FOUND, {})
    assert ref.url == "https://REDACTED@a.example/t.csv#5"


def test_a_row_of_a_pipe_has_the_same_name_in_the_next_command():
    assert columns.row_url("/dev/fd/63", 5) == columns.row_url("/dev/fd/62", 5) == "/dev/fd#5"


VALUE = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.dates()
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["url", "id", "class", "sha256", "md5", "x"]), VALUE))
def test_any_values_are_an_image_or_a_problem(values):
    ref = make_ref("t.csv", 5, FOUND._replace(kept=("x", "y")), values)
    assert ref.url.encode() and ref.id.encode() is not None and ref.image_class.encode() is not None
    if ref.problem is None:
        assert list(json.loads(ref.metadata)) == ["x", "y"]
        json.dumps(json.loads(ref.metadata), allow_nan=False)
