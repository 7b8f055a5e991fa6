"""The page about a dataset: what it tells, what it never executes, and how a browser shows it."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Error, sync_playwright
from test_dataset import write_dataset

from beam_pipeline import report, run
from beam_pipeline.reading import dataset_dir
from beam_pipeline.reporting import charts, page, sampling

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = 'http://a/{}/"><script>document.title="taken"</script><img src=x onerror="document.title=1">&$x_{{{{7*7}}}}'


def write_report(folder: Path, *options: str) -> str:
    assert report.main([str(folder), *options]) == 0
    return (folder / "report.html").read_text()


def add_metrics(folder: Path) -> None:
    told = {"commits": 2, "seconds": 90.0, "fetch": {"images": 12, "bytes": 1_234_567, "waited_microseconds": 3_000_000}}
    told |= {"decode_image": {"images": 12, "microseconds": 70_000}, "write": {"bytes": 5, "microseconds": 1_000}}
    told |= {"embedding": {"num_inferences": 12, "microseconds": 2_040_000}}
    told |= {"encode_example": {"images": 12, "microseconds": 48_000}}
    (folder / "metrics.json").write_text(json.dumps(told))


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", re.sub(r"<(style|svg)\b.*?</\1>", " ", html, flags=re.DOTALL)))


def test_tells_what_was_asked_and_what_came_out(tmp_path):
    folder = Path(write_dataset(tmp_path, "lab_uint8"))
    add_metrics(folder)
    told = text_of(write_report(folder))
    for fact in (
        f"12 examples in {tmp_path}",
        "14 lines",
        "2 failures",
        "3 shards",
        "--encoding lab_uint8",
        "fetch http_404 1 50.0% http://b/old.jpg gone &lt;b&gt;for good&lt;/b&gt;",
        "a 12 0",
        "b 0 2 1 http_404, 1 dns",
        "fetch (waited) 3.0 12 250.0",
        "network 2.0 12 170.0",
        "Lab, encode 0.0 12 4.0",
        "of 2 commits in 90 seconds",
        "1.2 MB came in, in 12 files",
        "lab_uint8 (this one) none",
        "3 classes by the WordNet ids",
        "n00000000 4",
        "From 10 of 12 examples",
    ):
        assert fact in told
    assert "Over all training examples" not in told and "best classes" not in told
    assert "untrained weights and mean nothing" in told


def test_a_dataset_with_little_to_tell(tmp_path):
    folder = Path(write_dataset(tmp_path, "rgb_png", embedding=False))
    description = json.loads((folder / "dataset.json").read_text())
    description |= {"classes": {}, "hosts": [], "failures_by_stage": {}}
    description["counts"] |= {"failures": 0, "failures_by_reason": {}}
    (folder / "dataset.json").write_text(json.dumps(description))
    told = text_of(write_report(folder))
    assert "the run left no metrics" in told
    assert "Failures None." in told
    assert "Classes" not in told and "Hosts" not in told


def test_the_best_classes_of_each_picture(tmp_path):
    folder = Path(write_dataset(tmp_path, "lab_uint8"))
    (tmp_path.parent / "names.pkl").write_bytes(pickle.dumps({number: f"class <{number}>" for number in range(1000)}))
    html = write_report(folder, "--class_names", str(tmp_path.parent / "names.pkl"))
    for seen in sampling.take_sample(dataset_dir.open_dataset_dir(folder), 100).seen:
        assert seen.embedding is not None
        best = np.argsort(-seen.embedding[1:], kind="stable")[:5]
        assert f"<b>class &lt;{best[0]}&gt;</b>class &lt;{best[1]}&gt;; class &lt;{best[2]}&gt;" in html


def test_the_sheets_show_the_extremes(tmp_path):
    seen = sampling.take_sample(dataset_dir.open_dataset_dir(write_dataset(tmp_path, "lab_float32")), 100).seen
    sheets = {sheet["title"]: [card["url"] for card in sheet["cards"]] for sheet in page.make_sheets(seen, None)}
    # The originals grow with their number; the first two images are black and white.
    assert sheets["The smallest"] == [f"http://a/{index}" for index in range(10)]
    assert sheets["The largest"] == sheets["The smallest"][::-1]
    assert set(sheets["The greyest"][:2]) == {"http://a/0", "http://a/1"}
    assert sheets["The most colourful"] == sheets["The greyest"][::-1]
    assert sorted(sheets["Training examples"]) == sorted(sheets["The smallest"])


def test_what_strangers_wrote_is_only_text(tmp_path):
    folder = Path(write_dataset(tmp_path, "lab_uint8", urls=HOSTILE))
    description = json.loads((folder / "dataset.json").read_text())
    description["hosts"].append({"host": "<script>x</script>$\\frac", "examples": 1, "failures": {"<b>": 2}})
    (folder / "dataset.json").write_text(json.dumps(description))
    html = write_report(folder)
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "&lt;script&gt;" in html and "{{7*7}}" in html


def test_no_part_comes_from_elsewhere(tmp_path):
    html = write_report(Path(write_dataset(tmp_path, "lab_uint8")))
    for target in re.findall(r"""(?:src|href|data|action|url)\s*[=(]\s*["']?([^"'\s>)]+)""", html):
        assert target.startswith(("data:image/", "#")), target


@pytest.mark.parametrize(("content", "said"), [(None, "no run has ended"), ("{", "is not JSON")])
def test_what_is_no_dataset(tmp_path, capsys, content, said):
    if content:
        (tmp_path / "dataset.json").write_text(content)
    assert report.main([str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("lab_images_00000-of-00003.tfrecord.gz", lambda data: data[:-1], "lab_images_00000-of-00003.tfrecord.gz cannot be read"),
        ("lab_images_00000-of-00003.tfrecord.gz", lambda data: gzip.compress(b"nonsense"), "is broken at record 0"),
        ("failures-00000-of-00001.jsonl", lambda data: b"{", "failures-00000-of-00001.jsonl is broken"),
        ("dataset.json", lambda data: b'{"options": {}, "format_version": 1}', "dataset.json lacks what a run writes"),
    ],
)
def test_what_is_broken_is_named(tmp_path, capsys, name, change, said):
    folder = Path(write_dataset(tmp_path, "lab_uint8", "gzip"))
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    assert report.main([str(folder)]) == 1
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
    assert not (folder / "report.html").exists()


def test_charts_take_the_pages_ink():
    svg = charts.draw_bars("x", {"a & b": [1, 2]}, [("one", charts.GREEN), ("two", charts.RED)], "images")
    assert svg.startswith("<svg ") and "a &amp; b" in svg
    assert "currentColor" in svg and "#010203" not in svg and "black" not in svg


def test_no_pixel_is_no_error():
    assert "<svg" in charts.draw_colours(np.zeros((110, 110), np.int64), 110)
    assert "<svg" in charts.draw_lightness(np.zeros(101, np.int64))


@pytest.mark.parametrize(("option", "is_written"), [([], True), (["--report=false"], False)])
def test_a_run_on_this_machine_ends_with_a_report(origin, tmp_path, capsys, option, is_written):
    (tmp_path / "urls.txt").write_text("".join(f"n00004475_{number}\t{origin.url(f'good/{number}.jpg')}\n" for number in range(4)))
    options = f"--input {tmp_path}/urls.txt --output {tmp_path}/out --checkpoint none --image_size 32 --allow_private_addresses"
    assert run.main([*options.split(), *option]) == 0
    assert (tmp_path / "out" / "report.html").exists() is is_written
    assert ("report.html" in capsys.readouterr().out) is is_written
    # Of a dataset that is whole it is written when it is asked for, or is not there.
    assert run.main([*options.split(), *(["--report=false"] if is_written else [])]) == 0
    assert run.main([*options.split()]) == 0
    assert (tmp_path / "out" / "report.html").exists()
    if is_written:
        told = text_of((tmp_path / "out" / "report.html").read_text())
        assert "decode, resize" in told and "Lab, encode" in told and "127.0.0.1 4 0" in told and "n00004475 4" in told


def test_a_report_that_cannot_be_written_costs_nothing(origin, tmp_path, capsys, monkeypatch):
    def fail(*unused_arguments):
        raise OSError("no space left")

    monkeypatch.setattr(page, "write", fail)
    (tmp_path / "urls.txt").write_text(origin.url("good/1.jpg") + "\n")
    options = f"--input {tmp_path}/urls.txt --output {tmp_path}/out --checkpoint none --image_size 32 --allow_private_addresses"
    assert run.main(options.split()) == 0
    assert "has no report: no space left" in capsys.readouterr().err
    assert (tmp_path / "out" / "dataset.json").exists()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no Chromium here")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except Error as error:
            pytest.skip(f"Chromium does not start: {error}")
        yield browser
        browser.close()


CONTRAST = """() => {
  const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const page = light(rgb(getComputedStyle(document.body).backgroundColor));
  const texts = [...document.querySelectorAll("h1, h2, p, td, th, figcaption, svg text")];
  return Math.min(...texts.map(text => {
    const style = getComputedStyle(text);
    const ink = light(rgb(text.closest("svg") ? style.fill : style.color));
    return (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
  }));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_it(browser, tmp_path, width, scheme):
    folder = Path(write_dataset(tmp_path, "lab_uint8", urls=HOSTILE))
    add_metrics(folder)
    write_report(folder)
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said, requests = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto((folder / "report.html").as_uri(), wait_until="load")
    tab.evaluate("() => document.querySelectorAll('details').forEach(one => one.open = true)")

    assert said == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in requests if url.startswith("file:")]) == 1
    assert tab.title().startswith("12 examples in")
    pictures = tab.evaluate(
        "async () => Promise.all([...document.images].map(async one => { await one.decode(); return one.naturalWidth; }))"
    )
    assert len(pictures) == 5 * 10 and min(pictures) > 0
    # Nothing sticks out sideways; letters keep a size and an ink that can be read.
    assert tab.evaluate("() => document.documentElement.scrollWidth") <= width
    assert (
        tab.evaluate("() => [...document.querySelectorAll('.wide')].filter(one => one.scrollWidth > one.clientWidth).length") == 0
    )
    sizes = tab.evaluate("() => [...document.querySelectorAll('svg text')].map(one => one.getBoundingClientRect().height)")
    assert len(sizes) > 20 and min(size for size in sizes if size) >= 8
    assert tab.evaluate(CONTRAST) >= 4.5
    tab.close()
