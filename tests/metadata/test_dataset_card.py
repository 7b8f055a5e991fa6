"""Tests of the dataset card: its YAML head, and that nothing in it is markup by accident."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from written_dataset import make_info, write_dataset

from beam_pipeline.dataset_info import Counts, ExampleFile, NearDuplicates
from beam_pipeline.metadata import dataset_card
from beam_pipeline.records import metadata_table

FILES = [
    ExampleFile("lab_images_00000-of-00002.tfrecord", "train", 1500, 10),
    ExampleFile("lab_images_00001-of-00002.tfrecord", "train", 500, 5),
    ExampleFile("val_lab_images_00000-of-00001.tfrecord", "validation", 7, 1),
]
OPTIONS = {
    **{"output": 'gs://b/my "data": #1/', "input": "a|b_*.txt", "stratify": False, "skip": 0},
    # Not the default: it switches off what a preset would do.
    **{"filter_preset": "zhang2016", "drop_grey": False, "drop_tinted": None},
    "user_agent": "mine",
}
# Texts of strangers, and what they look like in one line.
HOSTILE = {
    "a|b": "a|b",
    "<script>x</script> &amp;": "<script>x</script> &amp;",
    "[l](http://a) ![i](b)": "[l](http://a) ![i](b)",
    "`c` *d* _e_ ~~f~~ **g**": "`c` *d* _e_ ~~f~~ **g**",
    "two\nlines\r\n\n| and | cells |": "two lines | and | cells |",
    "back\\slash \\| 'q' \"é犬\"": "back\\slash \\| 'q' \"é犬\"",
}


def describe(**fields) -> str:
    info = make_info(
        description="Lab planes",
        options=OPTIONS,
        files=FILES,
        counts=Counts(2020, 1, 2, 2007, 10, {"http_404": 9, "x|<b>y": 1}),
        **fields,
    )
    return dataset_card.describe(info, ("caption", "x|`y`"))


def tables_and_headings(card: str) -> tuple[list[list[list[str]]], list[str]]:
    """Return the cells of the tables, and the headings, as a reader sees them."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(card.split("---\n", 2)[2])
    tables: list[list[list[str]]] = []
    headings = []
    for before, token in itertools.pairwise(tokens):
        if before.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type == "inline":
            kinds = {child.type for child in token.children or []}
            text = "".join(child.content for child in token.children or [])
            if before.type in ("th_open", "td_open"):
                assert kinds <= {"text", "text_special", "code_inline"}, token.content
                tables[-1][-1].append(text)
            elif before.type == "heading_open":
                assert kinds <= {"text", "text_special"}
                headings.append(text)
    return tables, headings


def head_of(card: str) -> dict:
    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def test_the_head_is_that_of_hugging_face():
    found = NearDuplicates(1, 2, 2, 1, 0, 0, 9)
    assert head_of(describe(near_duplicates=found)) == {
        "pretty_name": 'my "data": #1',
        "size_categories": ["1K<n<10K"],
        "task_categories": ["image-to-image"],
        "tags": ["colorization", "tfrecord"],
        "configs": [
            {
                "config_name": "metadata",
                "data_files": [{"split": "examples", "path": "metadata-*.parquet"}],
            },
            {
                "config_name": "near_duplicates",
                "data_files": [{"split": "images", "path": "near_duplicates.parquet"}],
            },
        ],
    }
    assert len(head_of(describe())["configs"]) == 1


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("/a/photos 📷 é", "photos 📷 é"),
        ('s3://b/"#": \'{&*!|>%@`\\', '"#": \'{&*!|>%@`\\'),
        *(("gs://bucket", "bucket"), ("a/b/", "b"), (".", "dataset"), ("/", "dataset")),
    ],
)
def test_the_name_is_that_of_the_folder(output, name):
    card = dataset_card.describe(make_info(options={"output": output}), ())
    assert head_of(card)["pretty_name"] == name
    [heading, *_] = tables_and_headings(card)[1]
    assert heading == name
    # The name in the commands is a string of Python.
    line = next(line for line in card.splitlines() if "dataset.load(" in line)
    assert eval(line.partition("load(")[2].partition(")  # ")[0]) == name


@pytest.mark.parametrize(
    ("examples", "size"), [(0, "n<1K"), (1000, "1K<n<10K"), (14_000_000, "10M<n<100M")]
)
def test_size_categories(examples, size):
    info = make_info(counts=Counts(0, 0, 0, examples, 0, {}))
    assert head_of(dataset_card.describe(info, ()))["size_categories"] == [size]


def test_facts_of_the_run():
    card = describe()
    for line in (
        "| train | 2,000 | 2 | 15 |",
        "| validation | 7 | 1 | 1 |",
        "| http\\_404 | 9 |",
        "| x\\|&lt;b&gt;y | 1 |",
        "| `--input` | a\\|b\\_\\*.txt |",
        "| `--drop_grey` | off |",
        "| x\\|\\`y\\` | string | x\\|\\`y\\` of the source; a value that is no string as JSON |",
    ):
        assert line in card.splitlines()
    assert "from a\\|b\\_\\*.txt: 2,020 lines, 1 ignored, 2 duplicates, 10 failures." in card
    # Options without effect, and those that do not shape the dataset.
    assert not any(name in card for name in ("stratify", "skip", "tinted`", "user_agent"))
    assert "licences" in card and "near" not in card.lower().partition("## where")[2]


def test_each_column_has_a_meaning():
    assert list(metadata_table.MEANINGS) == metadata_table.make_schema().names
    card = describe()
    for name in metadata_table.MEANINGS:
        assert "| {} |".format(name.replace("_", "\\_")) in card


def test_texts_of_strangers_are_no_markup():
    names = tuple(HOSTILE)
    info = make_info(
        classes={name: {"train": 2, "validation": 1} for name in names},
        counts=Counts(9, 0, 0, 3, 6, dict.fromkeys(names, 1)),
        options={"input": names[0]},
    )
    card = dataset_card.describe(info, names)
    tables, _ = tables_and_headings(card)
    shown = {table[0][0]: {row[0] for row in table[1:]} for table in tables}
    assert set(shown["class"]) == set(shown["failure"]) == set(HOSTILE.values())
    assert set(HOSTILE.values()) <= shown["column"]
    for table in tables:
        assert {len(row) for row in table} == {len(table[0])}


def test_the_largest_classes_are_listed():
    classes = {f"c{index:02}": {"train": index, "validation": index % 2} for index in range(30)}
    card = dataset_card.describe(make_info(classes=classes), ())
    [table] = [table for table in tables_and_headings(card)[0] if table[0][0] == "class"]
    assert table[1] == ["c29", "29", "1"] and len(table) == 21
    assert "30 classes:" in card and "`classes` in `dataset.json` lists all of them." in card
    assert "## Classes" not in describe()


@pytest.mark.parametrize("name", ["license", "License", "image_licence", "LICENSE_URL"])
def test_a_licence_is_that_of_each_image(name):
    card = dataset_card.describe(make_info(), ("caption", name))
    [line] = [line for line in card.splitlines() if "source states" in line]
    assert line.endswith(f"is in the column {name.replace('_', chr(92) + '_')}.")
    assert not {"license", "licence"} & set(head_of(card))
    assert "kept no column with licences" in dataset_card.describe(make_info(), ("caption",))


@pytest.mark.parametrize(
    ("encoding", "embedding", "start"),
    [
        ("lab_uint8", True, "CIE Lab planes and Inception-ResNet-v2 embeddings of images, as"),
        ("lab_float32", False, "CIE Lab planes of images, as"),
        ("rgb_png", False, "sRGB pixels of images, as"),
    ],
)
def test_the_card_says_what_the_records_hold(tmp_path, encoding, embedding, start):
    write_dataset(tmp_path, encoding, embedding=embedding)
    card = (tmp_path / "README.md").read_text()
    assert start in card and ": 12 examples." in card


def test_the_commands_work(tmp_path, monkeypatch):
    folder = Path(write_dataset(tmp_path, "lab_uint8"))
    monkeypatch.chdir(tmp_path.parent)
    card = (folder / "README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0]
    values: dict = {}
    first, second = code.strip().rpartition("\n")[::2]
    exec(first, values)
    assert sum(1 for _ in values["images"].as_numpy_iterator()) == 10
    exec(f"from beam_pipeline import dataset\n{second}", values)
    assert len(values["images"]) == 10
