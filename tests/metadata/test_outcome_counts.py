"""Tests of the counts of classes and hosts, over bundles and commits."""

from __future__ import annotations

import dataclasses

import apache_beam as beam
import numpy as np
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import example, given
from hypothesis import strategies as st

from beam_pipeline.dataset_info import Host, OtherHosts
from beam_pipeline.elements import EmbeddedImage, Extent, Failure, ImageRef, RgbImage
from beam_pipeline.metadata import outcome_counts
from beam_pipeline.metadata.outcome_counts import Outcomes
from beam_pipeline.sources.listing import wordnet_id
from beam_pipeline.transforms import count_outcomes


def make_example(id: str, url: str, source: str = "origin") -> EmbeddedImage:
    ref = ImageRef(id, url, image_class=wordnet_id(id))
    if "://" not in url:
        ref = dataclasses.replace(ref, location=Extent(url))
    return EmbeddedImage(RgbImage(ref, np.empty(0), (1, 1), image_source=source), None)


OUTCOMES = [
    make_example("n00004475_1", "http://a.example/1.jpg"),
    make_example("n00004475_2", "http://A.example:80/2.jpg", "fallback"),
    make_example("cat", "photos/3.jpg"),
    Failure(ImageRef("n00004475_3", "http://a.example/4.jpg"), "fetch", "timeout", ""),
    Failure(ImageRef("", "http://[broken"), "read", "invalid_url", ""),
]


def test_counts_examples_and_failures():
    with TestPipeline(runner=FnApiRunner()) as pipeline:
        counted = (
            pipeline
            | beam.Create(OUTCOMES)
            | beam.ParDo(count_outcomes.CountOutcomes(0.0))
            | beam.CombinePerKey(sum)
        )
        expected = [
            (("class", "n00004475", "train"), 2),
            (("host", "a.example", "example"), 1),
            (("host", "a.example", "timeout"), 1),
            (("source", "fallback"), 1),
        ]
        assert_that(counted, equal_to(expected))


ANY = st.text(st.characters(exclude_categories=()))


@given(st.one_of(ANY, st.builds("{}//{}".format, st.sampled_from(["", "http:"]), ANY)))
@example("http://[")
@example("//folder\udcff/1.jpg")  # a path with a byte that is not UTF-8
def test_host_of_any_url_can_be_written(url):
    assert count_outcomes.host_of(url).encode() is not None


def test_commits_add_up(tmp_path):
    first = [
        (("class", "n2", "train"), 3),
        (("host", "a", "example"), 3),
        (("host", "b", "dns"), 9),
        (("source", "fallback"), 2),
    ]
    second = [
        (("measure", "entropy", "39", "filtered"), 4),
        (("class", "n1", "train"), 1),
        (("class", "n2", "validation"), 1),
        (("host", "a", "example"), 2),
        (("host", "a", "dns"), 1),
        (("source", "fallback"), 3),
    ]
    for name, part in (("0", first), ("1", second)):
        outcome_counts.write(str(tmp_path / name), part)
    outcome_counts.write(str(tmp_path / "2"), [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    added = outcome_counts.add_up(sorted(map(str, tmp_path.iterdir())))
    entropy = added.measures.pop("entropy")
    assert (entropy.edges[0], entropy.edges[-1]) == (0, 8)
    assert (entropy.examples[39], entropy.filtered[39], sum(entropy.filtered)) == (0, 4, 4)
    assert added == Outcomes(
        classes={"n1": {"train": 1, "validation": 0}, "n2": {"train": 3, "validation": 1}},
        hosts=[Host("b", 0, {"dns": 9}), Host("a", 5, {"dns": 1})],
        other_hosts=OtherHosts(0, 0, 0),
        measures=added.measures,
        rescued=5,
    )


def test_hosts_beyond_the_first_are_summed(tmp_path, monkeypatch):
    monkeypatch.setattr(outcome_counts, "MAX_HOSTS", 1)
    outcome_counts.write(
        str(tmp_path / "0"),
        [(("host", "a", "example"), 5), (("host", "b", "example"), 2), (("host", "c", "dns"), 3)],
    )
    reported = outcome_counts.add_up([str(tmp_path / "0")])
    assert [host.host for host in reported.hosts] == ["a"]
    assert reported.other_hosts == OtherHosts(2, 2, 3)
