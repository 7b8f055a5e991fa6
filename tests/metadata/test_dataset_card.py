"""Tests of the dataset card: its YAML head, and that nothing in it is markup by accident."""

from __future__ import annotations

import pytest
import yaml
from written_dataset import make_info

from beam_pipeline.dataset_info import Counts, ExampleFile, NearDuplicates
from beam_pipeline.metadata import dataset_card
from beam_pipeline.records import metadata_table

FILES = [
    ExampleFile("lab_images_00000-of-00002.tfrecord", "train", 1500, 10),
    ExampleFile("lab_images_00001-of-00002.tfrecord", "train", 500, 5),
    ExampleFile("val_lab_images_00000-of-00001.tfrecord", "validation", 7, 1),
]
OPTIONS = {"output": 'gs://b/my "data": #1/', "input": "a|b_*.txt", "stratify": False}


def describe(**fields) -> str:
    info = make_info(
        description="Lab planes",
        options=OPTIONS,
        files=FILES,
        counts=Counts(2020, 1, 2, 2007, 10, {"http_404": 9, "x|<b>y": 1}),
        **fields,
    )
    return dataset_card.describe(info, ("caption", "x|`y`"))


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
            {"config_name": "metadata", "data_files": "metadata-*.parquet"},
            {"config_name": "near_duplicates", "data_files": "near_duplicates.parquet"},
        ],
    }
    assert len(head_of(describe())["configs"]) == 1


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
        "| x\\|\\`y\\` | string | x\\|\\`y\\` of the source; a value that is no string as JSON |",
    ):
        assert line in card.splitlines()
    assert "from a\\|b\\_\\*.txt: 2,020 lines, 1 ignored, 2 duplicates, 10 failures." in card
    assert "stratify" not in card
    assert "licences" in card and "near" not in card.lower().partition("## where")[2]


def test_each_column_has_a_meaning():
    assert list(metadata_table.MEANINGS) == metadata_table.make_schema().names
    card = describe()
    for name in metadata_table.MEANINGS:
        assert "| {} |".format(name.replace("_", "\\_")) in card
