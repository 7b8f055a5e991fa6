"""Tests of the report: its content, untrusted input, and its layout in a browser."""

from __future__ import annotations

import contextlib
import gzip
import json
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright
from written_dataset import write_dataset

from beam_pipeline import report, run
from beam_pipeline.reading import dataset_dir
from beam_pipeline.reporting import page, sampling

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
Scheme = Literal["light", "dark"]
HOSTILE = (
    'http://a/{}/"><script>document.title="taken"</script>'
    '<img src=x onerror="document.title=1">&$x_{{{{7*7}}}}'
)


def write_report(folder: Path, *options: str) -> str:
    assert report.main([str(folder), *options]) == 0
    return (folder / "report.html").read_text()


def add_metrics(folder: Path) -> None:
    metrics = {
        "commits": 2,
        "seconds": 90.0,
        "fetch": {"images": 12, "bytes": 1_234_567, "waited_microseconds": 3_000_000},
    }
    metrics |= {
        "decode": {"images": 12, "microseconds": 70_000},
        "write": {"bytes": 5, "microseconds": 1_000},
    }
    metrics |= {"embedding": {"num_inferences": 12, "microseconds": 2_040_000}}
    metrics |= {"encode": {"images": 12, "microseconds": 48_000}}
    (folder / "metrics.json").write_text(json.dumps(metrics))


def text_of(html: str) -> str:
    html = re.sub(r"<(style|svg)\b.*?</\1>", " ", html, flags=re.DOTALL)
    # Elements that allow a line break in a path.
    html = re.sub(r"</?span>|<wbr>", "", html)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_the_page_shows_options_and_results(tmp_path):
    folder = Path(write_dataset(tmp_path, "lab_uint8"))
    add_metrics(folder)
    text = text_of(write_report(folder))
    for fact in (
        f"12 examples in {tmp_path}",
        "10 training, 2 validation",
        "14 lines",
        "0 ignored, 0 duplicates",
        "2 failures 14.3% of the images",
        "3 shards",
        "--encoding lab_uint8",
        "http_404 1 50.0% fetch: the server answered “Not Found” http://b/old.jpg gone",
        "gone &lt;b&gt;for good&lt;/b&gt;",
        "a 12 0",
        "b 0 2 1 http_404, 1 dns",
        "wait for images 3.0 12 250.0",
        "network 2.0 12 170.0",
        "encode 0.0 12 4.0",
        "of 2 parts in 90 seconds",
        "read 1.2 MB in 12 files",
        "lab_uint8 none (this dataset)",
        "3 classes. All have the same number of images.",
        "n00000000 4",
        "From 10 of 10 training examples; validation examples are not included.",
        "The white padding is left out.",
        "is the chroma: 0 for grey",
    ):
        assert fact in text
    assert "Over all training examples" not in text and "most probable class" not in text
    assert "untrained weights and mean nothing" in text


def test_summary_and_failures_come_before_the_pictures(tmp_path):
    html = write_report(Path(write_dataset(tmp_path, "lab_uint8")))
    names = ("failures", "hosts", "time", "size", "classes", "colours", "pictures", "options")
    parts = ['<div class="figures">', *(f'<h2 id="{name}">' for name in names)]
    assert [html.count(part) for part in parts] == [1] * len(parts)
    assert sorted(parts, key=html.index) == parts
    sections, links = re.findall(r'<h2 id="(.*?)">', html), re.findall(r'<a href="#(.*?)">', html)
    assert sections == links


def test_a_dataset_with_little_to_report(tmp_path):
    folder = Path(write_dataset(tmp_path, "rgb_png", embedding=False))
    description = json.loads((folder / "dataset.json").read_text())
    description |= {"classes": {}, "hosts": [], "failures_by_stage": {}}
    description["counts"] |= {"failures": 0, "failures_by_reason": {}}
    description["options"]["resize"] = "crop"
    (folder / "dataset.json").write_text(json.dumps(description))
    text = text_of(write_report(folder))
    assert "the run left no metrics" in text
    assert "Failures No image failed." in text
    assert "Classes" not in text and "Hosts" not in text and "white padding" not in text


def test_the_best_classes_of_each_picture(tmp_path):
    folder = Path(write_dataset(tmp_path, "lab_uint8"))
    names = {index: f"class <{index}>, synonym" for index in range(1000)}
    (tmp_path.parent / "names.pkl").write_bytes(pickle.dumps(names))
    html = write_report(folder, "--class_names", str(tmp_path.parent / "names.pkl"))
    text = text_of(html)
    assert "In bold: the most probable class" in text
    for example in sampling.take_sample(dataset_dir.open_dataset_dir(folder), 100).examples:
        assert example.embedding is not None
        best = np.argsort(-example.embedding[1:], kind="stable")[:5]
        shown = [f"class &lt;{number}&gt;" for number in best]
        assert f"<b>{shown[0]}</b>" in html
        assert f"{shown[0]} {', '.join(shown[1:])}" in text


def test_repeated_content_is_listed(tmp_path):
    folder = Path(write_dataset(tmp_path, "lab_uint8"))
    description = json.loads((folder / "dataset.json").read_text())
    body = {"sha256": "0123456789abcdef" * 4, "count": 1234, "url": "http://a/x.gif"}
    description["repeated_content"] = [body]
    (folder / "dataset.json").write_text(json.dumps(description))
    text = text_of(write_report(folder))
    assert f"{body['sha256']} 1,234 http://a/x.gif" in text


def test_untrusted_text_is_escaped(tmp_path):
    folder = Path(write_dataset(tmp_path, "lab_uint8", urls=HOSTILE))
    description = json.loads((folder / "dataset.json").read_text())
    description["hosts"].append(
        {"host": "<script>x</script>$\\frac", "examples": 1, "failures": {"<b>": 2}}
    )
    (folder / "dataset.json").write_text(json.dumps(description))
    html = write_report(folder)
    assert "<script" not in html
    assert "<img src=x" not in html
    text = text_of(html)
    assert "&lt;script&gt;" in text and "{{7*7}}" in text


def test_no_part_comes_from_elsewhere(tmp_path):
    html = write_report(Path(write_dataset(tmp_path, "lab_uint8")))
    for target in re.findall(r"""(?:src|href|data|action|url)\s*[=(]\s*["']?([^"'\s>)]+)""", html):
        assert target.startswith(("data:image/", "#")), target


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no completed run found"),
        ("{", "it is not JSON"),
        ('{"options": {}, "format_version": 1}', "missing required field `description`"),
    ],
)
def test_what_is_no_dataset(tmp_path, capsys, content, said):
    if content:
        (tmp_path / "dataset.json").write_text(content)
    assert report.main([str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "lab_images_00000-of-00003.tfrecord.gz",
            lambda data: data[:-1],
            "lab_images_00000-of-00003.tfrecord.gz cannot be read",
        ),
        (
            "lab_images_00000-of-00003.tfrecord.gz",
            lambda data: gzip.compress(b"nonsense"),
            "is broken at record 0",
        ),
        (
            "failures-00000-of-00001.jsonl",
            lambda data: b"{",
            "failures-00000-of-00001.jsonl is broken",
        ),
    ],
)
def test_what_is_broken_is_named(tmp_path, capsys, name, change, said):
    folder = Path(write_dataset(tmp_path, "lab_uint8", "gzip"))
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    assert report.main([str(folder)]) == 1
    reported = capsys.readouterr().err
    assert said in reported and reported.count("\n") == 1
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(("option", "is_written"), [([], True), (["--report=false"], False)])
def test_a_run_on_this_machine_ends_with_a_report(origin, tmp_path, capsys, option, is_written):
    (tmp_path / "urls.txt").write_text(
        "".join(f"n00004475_{index}\t{origin.url(f'good/{index}.jpg')}\n" for index in range(4))
    )
    options = (
        f"--input {tmp_path}/urls.txt --output {tmp_path}/out --checkpoint none "
        "--image_size 32 --allow_private_addresses"
    )
    assert run.main([*options.split(), *option]) == 0
    assert (tmp_path / "out" / "report.html").exists() is is_written
    assert ("report.html" in capsys.readouterr().out) is is_written
    # For a complete dataset the report is written when it is requested or missing.
    assert run.main([*options.split(), *(["--report=false"] if is_written else [])]) == 0
    assert run.main([*options.split()]) == 0
    assert (tmp_path / "out" / "report.html").exists()
    if is_written:
        reported = text_of((tmp_path / "out" / "report.html").read_text())
        assert (
            "decode, resize, Lab, measures" in reported
            and "encode" in reported
            and "127.0.0.1 4 0" in reported
            and "n00004475 4" in reported
        )


def test_a_report_that_cannot_be_written_costs_nothing(origin, tmp_path, capsys, monkeypatch):
    def fail(*unused_arguments):
        raise OSError("no space left")

    monkeypatch.setattr(page, "write", fail)
    (tmp_path / "urls.txt").write_text(origin.url("good/1.jpg") + "\n")
    options = (
        f"--input {tmp_path}/urls.txt --output {tmp_path}/out --checkpoint none "
        "--image_size 32 --allow_private_addresses"
    )
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


# The smallest contrast between a text and its background.
CONTRAST = """() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(
      v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = one => {
    const colour = rgb(getComputedStyle(one).backgroundColor);
    return colour.length === 3 || colour[3] > 0 ? light(colour) : behind(one.parentElement);
  };
  const names = "h1, h2, h3, p, a, b, span, td, th, code, summary, figcaption, svg text";
  const texts = [...document.querySelectorAll(names)].filter(one => one.textContent.trim());
  return Math.min(...texts.map(text => {
    const style = getComputedStyle(text), back = behind(text.closest("svg") || text);
    const ink = light(rgb(text.closest("svg") ? style.fill : style.color));
    return (Math.max(ink, back) + 0.05) / (Math.min(ink, back) + 0.05);
  }));
}"""

# Words and numbers that are split over two lines.
SPLIT = """() => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), split = [];
  while (texts.nextNode()) {
    const node = texts.currentNode;
    if (node.parentElement.closest("svg")) continue;
    for (const word of node.data.matchAll(/[\\p{L}\\p{N}]+/gu)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      const tops = [...range.getClientRects()].map(one => Math.round(one.top));
      if (new Set(tops).size > 1) split.push(word[0]);
    }
  }
  return split;
}"""

# The number of visible rows without a rule as wide as their table.
WITHOUT_RULE = """() => [...document.querySelectorAll("tr")].filter(row => {
  const width = row.getBoundingClientRect().width;
  return width && !(parseFloat(getComputedStyle(row).borderBottomWidth) > 0
    && Math.abs(width - row.closest("table").getBoundingClientRect().width) < 1
    && [...row.cells].every(one => getComputedStyle(one).borderBottomWidth === "0px"));
}).length"""

OPEN_ALL = "() => document.querySelectorAll('details').forEach(one => one.open = true)"


@contextlib.contextmanager
def open_report(browser: Browser, folder: Path, width: int, scheme: Scheme) -> Iterator[Page]:
    """Open a report; check that it makes no network request and logs no script error."""
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    messages: list[str] = []
    requests: list[str] = []
    tab.on("console", lambda message: messages.append(message.text))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    address = (folder / "report.html").as_uri()
    tab.goto(address, wait_until="load")
    yield tab
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [address]
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400, 320])
def test_a_browser_shows_it(browser, tmp_path, width, scheme):
    folder = Path(write_dataset(tmp_path, "lab_uint8", urls=HOSTILE))
    add_metrics(folder)
    write_report(folder)
    with open_report(browser, folder, width, scheme) as tab:
        tab.evaluate(OPEN_ALL)
        assert tab.title().startswith("12\N{NO-BREAK SPACE}examples in")
        pictures = tab.evaluate(
            """async () => Promise.all([...document.images].map(
              async one => { await one.decode(); return one.naturalWidth; }))"""
        )
        assert len(pictures) == 5 * 10 and min(pictures) > 0
        # Nothing overflows horizontally, and text is readable.
        assert tab.evaluate("() => document.documentElement.scrollWidth") <= width
        sizes = tab.evaluate(
            """() => [...document.querySelectorAll("svg text")]
              .map(one => one.getBoundingClientRect().height)"""
        )
        assert len(sizes) > 20 and min(size for size in sizes if size) >= 8
        assert tab.evaluate(CONTRAST) >= 4.5
        assert tab.evaluate(WITHOUT_RULE) == 0


@pytest.mark.parametrize("width", [1280, 400])
def test_no_word_is_split_and_paths_break_after_slashes(browser, tmp_path, width):
    folders = "2345678901/holiday-in-the-mountains"
    url = f"http://static.photos.example/{folders}/0123456789_{{}}_original.jpg"
    folder = Path(write_dataset(tmp_path, "lab_uint8", urls=url))
    add_metrics(folder)
    description = json.loads((folder / "dataset.json").read_text())
    host = f"{'long-' * 9}host.example"
    description["hosts"].append({"host": host, "examples": 1, "failures": {}})
    description["repeated_content"] = [{"sha256": "b", "count": 3, "url": url}]
    (folder / "dataset.json").write_text(json.dumps(description))
    write_report(folder)
    with open_report(browser, folder, width, "light") as tab:
        tab.evaluate(OPEN_ALL)
        assert tab.evaluate(SPLIT) == []
        # Check that the test itself can fail.
        tab.evaluate("() => document.body.style.wordBreak = 'break-all'")
        assert tab.evaluate(SPLIT) != []
        tab.evaluate("() => document.body.style.wordBreak = ''")
        shown = tab.locator("#repeated ~ table .path").first
        assert shown.inner_text() == url
        is_one_line = shown.evaluate("one => one.getClientRects().length === 1")
        assert is_one_line is (width == 1280)


def test_a_phone_shows_two_pictures_a_row_and_folds_further_sheets(browser, tmp_path):
    folder = Path(write_dataset(tmp_path, "lab_uint8"))
    write_report(folder)
    with open_report(browser, folder, 400, "light") as tab:
        tops = tab.evaluate(
            """() => [...document.querySelectorAll("figure")]
              .filter(one => one.checkVisibility({contentVisibilityAuto: true}))
              .map(one => Math.round(one.getBoundingClientRect().top))"""
        )
        assert len(tops) == 10 and len(set(tops)) == 5
        assert tab.locator("details[open]").count() == 0
        assert tab.evaluate("() => document.documentElement.scrollHeight") < 5_000


def test_an_endless_url_does_not_fill_the_page(browser, tmp_path):
    urls = f"http://a/{'x' * 30_000}/{'y/' * 9_000}{{}}"
    folder = Path(write_dataset(tmp_path, "lab_uint8", urls=urls))
    write_report(folder)
    with open_report(browser, folder, 400, "light") as tab:
        assert tab.evaluate("() => document.documentElement.scrollWidth") <= 400
        assert tab.evaluate("() => document.documentElement.scrollHeight") < 6_000
