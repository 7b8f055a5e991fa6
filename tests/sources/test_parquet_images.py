"""Tests of Parquet files of images: as Hugging Face writes them, unusual ones, and damaged ones."""

import functools
import io
import json
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from origin import image

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import ImageRef, Problem, Row
from beam_pipeline.sources import parquet_file, parquet_images

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
WNIDS = [f"n{number:08}" for number in (1440764, 1443537, 1484850)]
# As the `datasets` library writes it into the files of ILSVRC/imagenet-1k.
HUGGING_FACE = {
    b"huggingface": json.dumps(
        {
            "info": {
                "features": {
                    "image": {"_type": "Image"},
                    "label": {"names": WNIDS, "_type": "ClassLabel"},
                }
            }
        }
    ).encode()
}


def write(path: Path, columns: dict[str, Any], metadata: Any = None, **options) -> Path:
    """Write a table; values that are no Arrow array are images if their column is `image`."""
    arrays = {
        name: pa.array(values, IMAGE if name == "image" else None)
        if isinstance(values, list)
        else values
        for name, values in columns.items()
    }
    pq.write_table(pa.table(arrays).replace_schema_metadata(metadata), path, **options)
    return path


def write_imagenet(path: Path, count: int = 7, **options) -> Path:
    rows = [
        {"bytes": image(f"{number}.jpg"), "path": f"{WNIDS[number % 3]}_{number}_{WNIDS[0]}.JPEG"}
        for number in range(count)
    ]
    labels = pa.array([number % 4 - 1 for number in range(count)], pa.int64())
    columns = {"image": rows, "label": labels}
    return write(path, columns, HUGGING_FACE, **{"row_group_size": 3, **options})


def make_config(**options) -> Config:
    return Config(images="*.parquet", output="out", **options)


def list_refs(path: Path, **options) -> list[ImageRef]:
    refs = list(parquet_images.read_refs(str(path), make_config(**options)))
    assert None not in refs
    return [ref for ref in refs if ref]


def row_of(ref: ImageRef) -> Row:
    assert isinstance(ref.location, Row)
    return ref.location


def read(refs: Iterable[ImageRef], **options) -> dict[int, bytes | Problem]:
    """Return what the rows of a file hold, by their number in the file."""
    groups: dict[int, list[ImageRef]] = {}
    for ref in refs:
        groups.setdefault(row_of(ref).group, []).append(ref)
    found: list[tuple[ImageRef, bytes | Problem]] = []
    for group in groups.values():
        found += parquet_images.read_group(group, make_config(**options))
        assert [ref for ref, _ in found[-len(group) :]] == group
    return {int(ref.url.rpartition("#")[2]): value for ref, value in found}


def refusal(path: Path, **options) -> str:
    with pytest.raises(UsageError) as caught:
        list_refs(path, **options)
    assert str(path) in str(caught.value) and str(caught.value).isprintable()
    return str(caught.value)


def test_a_file_as_hugging_face_writes_it(tmp_path):
    path = write_imagenet(tmp_path / "train-00000-of-00294.parquet")
    assert parquet_images.recognizes(str(path), path.read_bytes()[:8192])
    refs = list_refs(path)
    assert refs == [
        ImageRef(
            f"{WNIDS[number % 3]}_{number}_{WNIDS[0]}",
            f"{path}#{number}",
            location=Row(str(path), number // 3, number % 3),
            image_class=["", *WNIDS][number % 4],
        )
        for number in range(7)
    ]
    assert read(refs) == {number: image(f"{number}.jpg") for number in range(7)}


def test_other_files_are_not_recognized():
    for head in (b"", b"PK\x03\x04", image("1.jpg"), b"http://a.example/PAR1"):
        assert not parquet_images.recognizes("a.parquet", head)


def test_wanted_rows_are_read_and_no_others(tmp_path):
    refs = list_refs(write_imagenet(tmp_path / "a.parquet", 20, row_group_size=10))
    wanted = [refs[number] for number in (2, 3, 9, 17)]
    assert read(wanted) == {number: image(f"{number}.jpg") for number in (2, 3, 9, 17)}


@pytest.mark.parametrize(
    "type_",
    [
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.dictionary(pa.int32(), pa.binary()),
        pa.binary(5),
        pa.struct([("bytes", pa.large_binary())]),
        pa.struct([("path", pa.large_string()), ("bytes", pa.binary_view()), ("x", pa.int8())]),
    ],
)
def test_types_of_the_image_column(tmp_path, type_):
    values: list[Any] = [b"first", None, b"third"]
    if pa.types.is_struct(type_):
        values = [{"bytes": value} for value in values]
    storage = pa.binary() if pa.types.is_dictionary(type_) else type_
    path = write(tmp_path / "a.parquet", {"jpg": pa.array(values, storage).cast(type_)})
    refs = list_refs(path, image_column="jpg")
    assert [(ref.id, ref.image_class, ref.metadata) for ref in refs] == [("", "", "")] * 3
    null = Problem("no_image", "row 1 is null")
    assert read(refs, image_column="jpg") == {0: b"first", 1: null, 2: b"third"}


def test_rows_without_an_image(tmp_path):
    rows = [
        None,
        {"bytes": None, "path": None},
        {"bytes": None, "path": "folder.v2/a.b.jpg"},
        {"bytes": b"", "path": ".jpg"},
        {"bytes": b"x" * 101, "path": "no_ending"},
        {"bytes": b"x" * 100, "path": ""},
    ]
    refs = list_refs(write(tmp_path / "a.parquet", {"image": rows}))
    assert [ref.id for ref in refs] == ["", "", "a.b", ".jpg", "no_ending", ""]
    assert read(refs, max_image_bytes=100) == {
        0: Problem("no_image", "row 0 is null"),
        1: Problem("no_image", "row 1 is null"),
        2: Problem("no_image", "row 2 holds only a path, folder.v2/a.b.jpg"),
        3: Problem("empty", "an image of 0 bytes"),
        4: Problem("too_large", "more than the 100 bytes that are allowed"),
        5: b"x" * 100,
    }


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (pa.array([0, 2, -1, None, 3], pa.int8()), [WNIDS[0], WNIDS[2], "", "", ""]),
        (pa.array(["cat", None, "", "dog", "-1"]), ["cat", "", "", "dog", "-1"]),
        (pa.array(["a", "b", "a", "b", None]).dictionary_encode(), ["a", "b", "a", "b", ""]),
        (pa.array([[0], [1], [2], [], None]), [""] * 5),
        (pa.array([0.5, 1, 2, 3, 4]), [""] * 5),
    ],
)
def test_labels(tmp_path, labels, classes):
    columns = {"image": [{"bytes": b"x"}] * 5, "label": labels}
    refs = list_refs(write(tmp_path / "a.parquet", columns, HUGGING_FACE))
    assert [ref.image_class for ref in refs] == classes


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {b"huggingface": b"[" * 100_000},
        {b"huggingface": b"\xff"},
        {b"huggingface": b'{"info": {"features": {"label": {"names": [1, 2]}}}}'},
        {b"huggingface": b'{"info": {"features": [{"label": {}}]}}'},
    ],
)
def test_numbers_without_names_are_the_classes(tmp_path, metadata):
    columns = {"image": [{"bytes": b"x"}] * 3, "label": pa.array([7, -1, None])}
    refs = list_refs(write(tmp_path / "a.parquet", columns, metadata))
    assert [ref.image_class for ref in refs] == ["7", "", ""]


def test_columns_of_ids_classes_and_metadata(tmp_path):
    columns = {
        "image": [{"bytes": b"x", "path": "a.jpg"}, {"bytes": b"y", "path": "b.jpg"}],
        "key": pa.array([17, None]),
        "kind": pa.array(["n1", "n2"]),
        "label": pa.array([0, 1]),
        "caption": pa.array(["ein Häus\nchen", None]),
        "seen": pa.array([1, 1_000_000_007], pa.timestamp("ns")),
        "boxes": pa.array([[{"x": 0.5, "y": float("nan")}], []]),
        "blob": pa.array([b"a\xff", b""]),
    }
    refs = list_refs(
        write(tmp_path / "a.parquet", columns, HUGGING_FACE),
        id_column="key",
        class_column="kind",
        keep_columns="caption, boxes,seen,blob",
    )
    assert [(ref.id, ref.image_class) for ref in refs] == [("17", "n1"), ("", "n2")]
    assert json.loads(refs[0].metadata) == {
        "caption": "ein Häus\nchen",
        "boxes": [{"x": 0.5, "y": None}],
        "seen": "1970-01-01 00:00:00.000000001",
        "blob": "a\ufffd",
    }
    assert refs[1].metadata.startswith('{"caption":null,"boxes":[],"seen":"1970')
    assert read(refs) == {0: b"x", 1: b"y"}


def test_columns_that_are_missing_are_reported(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": [{"bytes": b"x"}], "text\n": pa.array(["a"])})
    for options, missing in (
        ({"image_column": "picture"}, "image column `picture`"),
        ({"id_column": "who"}, "column `who`"),
        ({"class_column": "who"}, "column `who`"),
        ({"keep_columns": "who"}, "column `who`"),
    ):
        [option] = options
        advice = f"its columns are image, text?; give --{option}"
        assert f" has no {missing}: {advice}" in refusal(path, **options)


def test_images_are_no_metadata(tmp_path):
    path = write(tmp_path / "a.parquet", {"image": [{"bytes": b"x"}]})
    assert "give --keep_columns another than the images" in refusal(path, keep_columns="image")


@pytest.mark.parametrize("name", ["url", "URL", "OriginalURL", "image_url"])
def test_a_table_of_urls_is_recognized(tmp_path, name):
    path = write(tmp_path / "a.parquet", {name: pa.array(["http://a/b.jpg"]), "TEXT": ["a"]})
    assert f"its columns are {name}, TEXT; if it is a table of URLs, give it as --input" in refusal(
        path
    )


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["http://a/b.jpg"]),
        pa.array([[{"bytes": b"x"}]]),
        pa.array([{"path": "a.jpg"}]),
        pa.array([{"bytes": "text"}]),
    ],
)
def test_columns_of_other_types_are_refused(tmp_path, values):
    path = write(tmp_path / "a.parquet", {"image": values})
    assert "not images: give as --image_column" in refusal(path)


def test_no_rows(tmp_path):
    assert list_refs(write(tmp_path / "a.parquet", {"image": []})) == []


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"PAR1" + bytes(100), b"PAR1" + b"\xff" * 8 + b"PAR1"]
)
def test_what_is_no_parquet_is_refused(tmp_path, data):
    (tmp_path / "a.parquet").write_bytes(data)
    assert "cannot be read as Parquet" in refusal(tmp_path / "a.parquet")
    assert "no such file" in refusal(tmp_path / "missing.parquet").lower()


def test_a_file_that_vanishes_costs_its_images(tmp_path):
    path = write_imagenet(tmp_path / "a.parquet")
    refs = list_refs(path)
    path.unlink()
    assert {value.reason for value in read(refs).values() if isinstance(value, Problem)} == {
        "not_found"
    }
    assert len(read(refs)) == 7


def test_listing_does_not_read_images(tmp_path, monkeypatch):
    rows = [{"bytes": os.urandom(100_000), "path": f"{number}.jpg"} for number in range(100)]
    path = write(tmp_path / "a.parquet", {"image": rows}, row_group_size=50, use_dictionary=False)
    size, taken = path.stat().st_size, []

    class Counting(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            taken.append(len(data))
            return data

    monkeypatch.setattr(parquet_file.ranges, "open_seekable", lambda path: Counting(path))
    assert len(list_refs(path)) == 100
    assert sum(taken) < size / 20


@pytest.mark.parametrize("column", ["struct", "binary"])
def test_a_row_group_is_never_completely_in_memory(tmp_path, column):
    values: list[Any] = [random.Random(number).randbytes(50_000) for number in range(1000)]
    array = pa.array(values)
    if column == "struct":
        array = pa.StructArray.from_arrays([array], ["bytes"])
    path = write(
        tmp_path / "a.parquet",
        {"image": array},
        use_dictionary=False,
        write_batch_size=8,
        row_group_size=1000,
    )
    del array
    refs = list_refs(path)
    assert row_of(refs[-1]).group == 0
    before, most = pa.total_allocated_bytes(), 0
    for number, (_, data) in enumerate(parquet_images.read_group(refs, make_config())):
        assert data == values[number]
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 8 * 2**20


VARIANTS: list[dict[str, Any]] = [
    {},
    {"use_dictionary": False, "compression": "zstd"},
    {"use_dictionary": False, "data_page_version": "2.0", "write_page_checksum": True},
    {
        "use_dictionary": False,
        "column_encoding": {
            "image.bytes": "DELTA_LENGTH_BYTE_ARRAY",
            "image.path": "DELTA_BYTE_ARRAY",
            "label": "DELTA_BINARY_PACKED",
        },
    },
]


@functools.cache
def small_file(folder: Path, variant: int) -> bytes:
    """Return a file of images of a few bytes: damage often hits what describes them."""
    rows = [{"bytes": b"x" * number, "path": f"n{number}.jpg"} for number in range(12)]
    columns = {"image": [None, *rows[1:]], "label": pa.array([number % 3 for number in range(12)])}
    path = folder / "small.parquet"
    return write(path, columns, HUGGING_FACE, row_group_size=6, **VARIANTS[variant]).read_bytes()


@settings(max_examples=100, deadline=None)
@given(
    variant=st.integers(0, len(VARIANTS) - 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), max_size=5),
    cut=st.none() | st.floats(0, 1),
)
def test_damage_is_a_usage_error_or_a_problem(tmp_path_factory, variant, flips, cut):
    folder = tmp_path_factory.getbasetemp()
    path, data = folder / "damaged.parquet", bytearray(small_file(folder, variant))
    for place, bit in flips:
        data[int(place * (len(data) - 1))] ^= 1 << bit
    if cut is not None:
        del data[int(cut * len(data)) :]
    path.write_bytes(data)
    try:
        refs = list_refs(path, keep_columns="label")
    except UsageError:
        return
    assert not any(ref.problem for ref in refs[:-1])
    listed = [ref for ref in refs if ref.problem is None]
    assert len(read(listed)) == len(listed)


@pytest.mark.parametrize(
    ("variant", "flips"),
    [(2, [(612, 4), (1274, 1)]), (3, [(549, 0)]), (3, [(592, 1)])],
)
def test_a_footer_that_aborts_pyarrow_is_a_problem(tmp_path, variant, flips):
    path, data = tmp_path / "damaged.parquet", bytearray(small_file(tmp_path, variant))
    for position, bit in flips:
        data[position] ^= 1 << bit
    path.write_bytes(data)
    refs = list_refs(path)
    outcomes = read([ref for ref in refs if ref.problem is None]).values()
    problems = [ref.problem for ref in refs]
    assert any(isinstance(outcome, Problem) for outcome in (*outcomes, *problems))


def overwrite(path: Path, group: int, column: str) -> None:
    """Overwrite the pages of a column of a row group."""
    row_group = pq.ParquetFile(path).metadata.row_group(group)
    chunks = [row_group.column(index) for index in range(row_group.num_columns)]
    [chunk] = [chunk for chunk in chunks if chunk.path_in_schema == column]
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)


def test_damaged_images_cost_the_rest_of_their_row_group(tmp_path):
    path = write_imagenet(tmp_path / "a.parquet", 9)
    overwrite(path, 1, "image.bytes")
    refs = list_refs(path)
    assert len(refs) == 9 and not any(ref.problem for ref in refs)
    values = read(refs)
    for number in (3, 4, 5):
        value = values.pop(number)
        assert isinstance(value, Problem) and value.reason == "corrupt_container"
        assert value.detail.startswith("row group 1: ")
    assert values == {number: image(f"{number}.jpg") for number in (0, 1, 2, 6, 7, 8)}


@pytest.mark.parametrize("column", ["image.path", "label"])
def test_damaged_names_end_the_list(tmp_path, column):
    path = write_imagenet(tmp_path / "a.parquet", 9)
    overwrite(path, 1, column)
    refs = list_refs(path)
    assert [ref.url for ref in refs] == [f"{path}#{number}" for number in range(4)]
    assert refs[3].problem is not None and refs[3].problem.reason == "corrupt_container"


def test_a_footer_that_claims_billions_of_rows_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    write(path, {"image": pa.nulls(2_000_000, pa.binary())})
    assert "its footer claims 2,000,000 rows" in refusal(path)
