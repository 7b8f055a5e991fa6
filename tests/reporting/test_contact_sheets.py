"""Tests of the contact sheets of a report."""

from __future__ import annotations

import dataclasses

from written_dataset import write_dataset

from beam_pipeline.reading import dataset_dir
from beam_pipeline.reporting import contact_sheets, sampling


def take_sample(folder):
    dataset = dataset_dir.open_dataset_dir(write_dataset(folder, "lab_float32"))
    return sampling.take_sample(dataset, 100).examples


def test_the_sheets_show_the_extremes(tmp_path):
    made = contact_sheets.make_sheets(take_sample(tmp_path), None)
    sheets = {sheet["title"]: [card["url"] for card in sheet["cards"]] for sheet in made}
    # The size of the originals grows with their number; the first two images are black and white.
    assert sheets["Smallest"] == [f"http://a/{index}" for index in range(10)]
    assert sheets["Largest"] == sheets["Smallest"][::-1]
    assert set(sheets["Greyest"][:2]) == {"http://a/0", "http://a/1"}
    assert sheets["Most colourful"] == sheets["Greyest"][::-1]
    assert sorted(sheets["Examples"]) == sorted(sheets["Smallest"])
    assert "More examples" not in sheets


def test_many_examples_fill_a_second_sheet(tmp_path):
    examples = take_sample(tmp_path) * 3
    made = contact_sheets.make_sheets(examples, None)
    assert [len(sheet["cards"]) for sheet in made] == [12] * 6
    assert made[1]["title"] == "More examples"
    assert contact_sheets.make_sheets([], None) == []


def test_a_card_names_classes_and_hides_credentials(tmp_path):
    example = dataclasses.replace(take_sample(tmp_path)[0], url="http://me:pw@a/b/c.jpg")
    names = [f"name {index}, synonym" for index in range(999)] + [",odd"]
    card = contact_sheets.make_sheets([example], names)[0]["cards"][0]
    assert len(card["best"]) == 5
    assert all(name.startswith("name ") or name == ",odd" for name in card["best"])
    assert not any("synonym" in name for name in card["best"])
    assert card["url"] == "http://REDACTED@a/b/c.jpg"
    assert card["short_url"] == "REDACTED@a/…/c.jpg"
