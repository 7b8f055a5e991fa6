"""Tests of the documentation: the links of the built site, and the truth of what pages say."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
import sys
import typing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from origin import image

from beam_pipeline import dataset
from beam_pipeline.config import Config, Group, choices_of
from beam_pipeline.launch import command_line

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
UNITS = {"max_image_bytes": (2**20, "MiB"), "max_image_pixels": (10**6, "Mpx")}


class Page(HTMLParser):
    """The links of a page, the files that a browser requests with it, and its anchors."""

    def __init__(self, html: str):
        super().__init__()
        self.links: set[str] = set()
        self.requests: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src", "srcset", "data", "poster") and value:
                (self.links if tag == "a" else self.requests).add(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    """Return the pages of the site, by their paths in it."""
    files = {path.relative_to(site).as_posix(): path for path in site.rglob("*.html")}
    # The links of 404.html are absolute, because a server shows it for any address.
    return {name: Page(path.read_text()) for name, path in files.items() if name != "404.html"}


def test_every_link_leads_to_a_file_and_an_anchor(site, pages):
    broken = []
    for name, page in pages.items():
        for link in page.links | page.requests:
            url = urlsplit(urljoin(f"site/{name}", link))
            target = unquote(url.path).removeprefix("site/")
            if not url.scheme and (
                not (site / target).is_file()
                or (url.fragment and unquote(url.fragment) not in pages[target].anchors)
            ):
                broken.append((name, link))
    assert {"index.html", "docs/options.html", "CONTRIBUTING.html"} <= set(pages)
    assert broken == []


def test_a_browser_requests_nothing_from_other_hosts(site, pages):
    requests = set[str]().union(*(page.requests for page in pages.values()))
    assert any(url.endswith(".css") for url in requests)
    assert [url for url in requests if urlsplit(url).netloc] == []
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert styles and not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", styles)


def test_the_reference_has_what_users_import(pages):
    names = {f"beam_pipeline.dataset.{name}" for name in dataset.__all__}
    names |= {"beam_pipeline.pipeline.build", "beam_pipeline.config.Config"}
    assert names <= pages["docs/api.html"].anchors


def test_the_readme_is_an_introduction():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def describe_default(field: dataclasses.Field[Any]) -> str | None:
    """Return the default of an option as a table states it; None if it takes words."""
    default: Any = field.default
    if field.name in UNITS:
        size, unit = UNITS[field.name]
        return f"{default // size} {unit}"
    if default is False:
        return "off"
    if isinstance(default, (int, float)):
        return f"{default:g}"
    return f"`{default}`" if choices_of(field.name) and default else None


def test_the_tables_of_options_are_complete_and_state_the_defaults():
    text = (DOCS / "options.md").read_text()
    for group in typing.get_args(Group):
        section = text.split(f"\n## {group.capitalize()}\n")[1].split("\n## ")[0]
        stated: dict[str, str] = {}
        for options, default in re.findall(r"^\| (`--.*?) \| (.*?) \|", section, re.MULTILINE):
            names = re.findall(r"`--(\w+)`", options)
            defaults = default.split(", ") if len(names) > 1 else [default]
            stated |= dict(zip(names, defaults * (len(names) // len(defaults)), strict=True))
        fields = [field for field in dataclasses.fields(Config) if field.metadata["group"] == group]
        assert sorted(stated) == sorted(field.name for field in fields)
        for field in fields:
            assert stated[field.name] == (describe_default(field) or stated[field.name])


def read_commands() -> list[list[str]]:
    """Return the arguments of each run in README.md and docs/."""
    commands = []
    for path in (ROOT / "README.md", *DOCS.glob("*.md")):
        text = re.sub(r" *\\\n *", " ", path.read_text())
        for command in re.findall(r"python -m beam_pipeline\.run (--[^`\n]*)", text):
            commands.append(shlex.split(command.replace("$SHA256", "0" * 64)))
    return commands


@pytest.mark.parametrize("command", read_commands())
def test_every_option_of_a_command_exists(command):
    command_line.parse(command)


def test_commands_are_found():
    assert len(read_commands()) > 8


def test_the_graph_alone_makes_a_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in ("a.jpg", "b.png"):
        Path("photos", name).write_bytes(image(name))
    text = (DOCS / "api.md").read_text()
    [example] = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    exec(compile(example, "docs/api.md", "exec"), {})
    assert len(dataset.examples("data/tfrecords")) == 2
