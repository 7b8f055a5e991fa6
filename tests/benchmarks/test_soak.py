"""Tests of the parts of the endurance run: its inputs, its comparison, and its trends."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import doctest
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from beam_pipeline import run
from beam_pipeline.config import Config
from beam_pipeline.sources import listing
from benchmarks import measure, soak, soak_figures, soak_inputs, soak_runs
from benchmarks.soak_figures import Sample


def make_samples(count: int, **figures: float) -> list[Sample]:
    """Return samples of a long run: noise of +-4 on memory, and what rises in it altogether."""
    rng = random.Random(0)
    rise = {"megabytes": 0.0, "files": 0.0, "threads": 0.0, **figures}
    return [
        Sample(
            seconds=index / 2,
            images=100 * min(index // 5, count // 5 - 2),
            megabytes=300 + rng.uniform(-4, 4) + rise["megabytes"] * index / count,
            files=round(40 + rise["files"] * index / count),
            threads=round(30 + rise["threads"] * index / count),
            processes=1,
        )
        for index in range(count)
    ]


def test_doctests():
    assert doctest.testmod(soak_figures).failed == doctest.testmod(soak_runs).failed == 0


@pytest.mark.parametrize(
    ("figure", "rise", "is_flat"),
    [
        *(("megabytes", 0, True), ("megabytes", 8, True), ("megabytes", 60, False)),
        *(("files", 0, True), ("files", 20, False), ("threads", 0, True), ("threads", 20, False)),
        ("megabytes", -60, True),
    ],
)
def test_a_rise_is_told_from_noise(figure, rise, is_flat):
    samples = soak_figures.steady(make_samples(600, **{figure: rise}))
    trend = soak_figures.fit(samples, figure)
    assert trend.is_flat == is_flat
    assert trend.rise == pytest.approx(rise * len(samples) / 600, abs=3)


def test_single_outliers_are_no_trend():
    samples = make_samples(600)
    samples[-20:-16] = [dataclasses.replace(one, megabytes=2000) for one in samples[-20:-16]]
    assert soak_figures.fit(soak_figures.steady(samples), "megabytes").is_flat


@pytest.mark.parametrize(("rise", "is_flat"), [(0, True), (20, False)])
def test_what_each_part_opens_and_closes_is_no_trend(rise, is_flat):
    rng = random.Random(0)
    samples = [
        # Open within a part, more in later ones, and closed between two parts.
        dataclasses.replace(one, files=one.files + bool(index % 10) * round(rng.uniform(0, index)))
        for index, one in enumerate(make_samples(600, files=rise))
    ]
    assert soak_figures.fit(soak_figures.steady(samples), "files").is_flat == is_flat


def test_start_warm_up_and_end_are_left_out():
    samples = make_samples(600)
    steady = soak_figures.steady(samples)
    assert steady[0].images > 0 and steady[-1].images < samples[-1].images
    assert len(steady) == pytest.approx(len(samples) * 2 / 3, abs=10)
    with pytest.raises(ValueError, match="give more minutes"):
        soak_figures.fit(soak_figures.steady(make_samples(10)), "files")


def test_the_rate_leaves_out_the_start():
    assert soak_figures.rate(make_samples(600)) == pytest.approx(100 / 2.5)
    assert soak_figures.rate(make_samples(10)) is None


def test_rows_of_a_table_are_at_even_times():
    samples = make_samples(600)
    rows = soak_figures.at_even_times(samples, 10)
    assert len(rows) == 10 and (rows[0], rows[-1]) == (samples[0], samples[-1])
    assert soak_figures.at_even_times(samples[:4], 10) == samples[:4]


def make_result(problems: list[str], **rises: float) -> soak.Result:
    kind = soak.Kind("images", soak_inputs.write_images, "", 100)
    life = soak_runs.Execution(0, 300.0, make_samples(600, **rises), "", [])
    kills = [soak_runs.Kill(2.5, 0), soak_runs.Kill(9.0, 200)]
    return soak.Result(kind, 1200, soak_runs.Round(kills, life, problems))


def test_the_results_are_described(monkeypatch):
    monkeypatch.setattr(measure, "describe_machine", lambda: "A machine.")
    options = argparse.Namespace(seed=3, kills=2)
    good = make_result([])
    text, is_good = soak.describe(options, 60, [good, good], [good])
    assert is_good and "60 minutes, seed 3" in text
    assert "| images | 2 | 2,400 | 4 | 2.5 to 9.0 s | 2 | 0 |" in text
    assert re.search(r"\| images \| 1,200 \| 100 \| 5.0 \| 300, .* \| 40, .* \| yes \| 0 \|", text)
    assert "## Problems" not in text and max(map(len, text.splitlines()[3:])) <= 150
    text, is_good = soak.describe(options, 60, [good], [make_result(["x is lost\nmore"])])
    assert not is_good and text.endswith("## Problems\n\n- x is lost\n")
    text, is_good = soak.describe(options, 60, [good], [make_result([], megabytes=90)])
    assert not is_good and "| NO | 0 |" in text
    life = good.round.last._replace(samples=make_samples(10))
    short = good._replace(round=good.round._replace(last=life))
    text, is_good = soak.describe(options, 1, [good], [short])
    assert not is_good and "give more minutes" in text


def test_a_process_and_its_children_are_sampled(tmp_path):
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        while len(soak_figures.descendants(process.pid)) < 2:
            assert process.poll() is None
        sample = soak_figures.take_sample(process.pid, tmp_path, 1.0, 5)
        assert process.stdin
        process.stdin.close()
    assert sample.processes == 2 and sample.threads >= 2 and sample.files >= 6
    assert (sample.seconds, sample.images) == (1.0, 5) and sample.megabytes > 5
    assert soak_figures.take_sample(process.pid, tmp_path, 2.0, 5).processes == 0


@pytest.mark.parametrize(
    ("different", "times", "counted"),
    [
        (soak_figures.KEPT_OPEN, 1, 0),
        (soak_figures.KEPT_OPEN, 2, soak_figures.KEPT_OPEN),
        (soak_figures.KEPT_OPEN + 20, 1, 20),
    ],
)
def test_files_of_the_input_count_beyond_those_that_are_kept(tmp_path, different, times, counted):
    program = (
        "import sys; files = [open(f'{sys.argv[1]}/{number}', 'a') "
        f"for number in range({different}) for _ in range({times})]; print(flush=True); input()"
    )

    def count(folder: Path, source: Path) -> int:
        with subprocess.Popen(
            [sys.executable, "-c", program, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin and process.stdout
            process.stdout.readline()
            files = soak_figures.take_sample(process.pid, source, 0.0, 0).files
            process.stdin.close()
        return files

    elsewhere = count(tmp_path, tmp_path / "elsewhere")
    assert count(tmp_path, tmp_path) == elsewhere - different * times + counted


def test_every_url_is_in_one_list_or_table(tmp_path):
    inputs = soak_inputs.write_urls(tmp_path, 200, "http://127.0.0.1:1/", random.Random(0))
    config = Config(input=inputs.arguments[1], output="out", checkpoint="none")
    counts: collections.Counter[str] = collections.Counter()
    urls = [ref.url for ref in listing.read_refs(config, counts)]
    assert set(urls) == set(inputs.outcomes) and len(inputs.outcomes) == 200
    assert len(urls) - len(set(urls)) == inputs.duplicates == 4
    assert (counts["lines"], counts["ignored"]) == (inputs.lines, inputs.ignored)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, soak_inputs.Inputs]:
    """Return a dataset of every kind of container, and its input."""
    folder = tmp_path_factory.mktemp("soak")
    inputs = soak_inputs.write_images(folder, 140, random.Random(0))
    fixed = "--checkpoint none --image_size 16 --encoding lab_uint8 --report=false"
    output = folder / "dataset"
    assert run.main([*inputs.arguments, *fixed.split(), "--output", str(output)]) == 0
    return output, inputs


def test_what_is_put_in_comes_out(made):
    output, inputs = made
    assert soak_runs.check(output, inputs) == (len(inputs.outcomes) + 1, [])
    assert len({outcome for possible in inputs.outcomes.values() for outcome in possible}) == 4


def test_what_does_not_reconcile_is_found(made):
    output, inputs = made
    first, second, *_ = (url for url, possible in inputs.outcomes.items() if possible == ("",))
    other = {**inputs.outcomes, first: ("timeout",), "lost": ("",)}
    del other[second]
    _, problems = soak_runs.check(output, dataclasses.replace(inputs, outcomes=other, damaged=0))
    assert sorted(problems) == sorted(
        [
            f"{first} became an example",
            f"{second} became an example",
            "1 images are lost, such as lost",
            "1 damaged containers are reported, not 0",
        ]
    )
    _, problems = soak_runs.check(output, dataclasses.replace(inputs, lines=1))
    assert problems == [f"lines, ignored, duplicates are ({inputs.lines}, 0, 0), not (1, 0, 0)"]
