"""Runs whose images are gone from their origins, up to the dataset and its report."""

from __future__ import annotations

import json
from pathlib import Path

import archives
import pyarrow.parquet as pq
import pytest
from origin import image

from beam_pipeline import run, validate
from beam_pipeline.fetching import http_client, web_client


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(http_client, "BACKOFF", 0.001)
    monkeypatch.setattr(web_client, "ARCHIVE_INTERVAL", 0.0)


def read_rows(dataset: Path) -> dict[str, dict]:
    tables = map(pq.read_table, dataset.glob("metadata-*.parquet"))
    return {row["id"]: row for table in tables for row in table.to_pylist()}


def read_failures(dataset: Path) -> dict[str, dict]:
    lines = [line for path in dataset.glob("failures-*.jsonl") for line in path.open()]
    return {failure["id"]: failure for failure in map(json.loads, lines)}


def test_a_run_over_images_that_are_gone(origin, tmp_path, capsys):
    paths = {
        "here": "x.jpg",
        "stored": "status/404/stored",
        "archived": "status/410/archived",
        "replaced": "redirect-to?url=https://i.imgur.com/removed.png",
        "gone": "status/404/gone",
        "page": "status/404/page",
        "forbidden": "status/403",
    }
    urls = {name: origin.url(path) for name, path in paths.items()}
    for name in ("stored", "archived", "replaced"):
        origin.captures[urls[name]] = {"20100101000000": f"good/{name}.jpg"}
    origin.captures[urls["page"]] = {"20100101000000": "html/page.jpg"}
    (tmp_path / "list.txt").write_text("".join(f"{name} {url}\n" for name, url in urls.items()))
    data = archives.make_tar([("class/stored.jpg", image("other.jpg"))])
    (tmp_path / "copies.tar").write_bytes(data)
    output = tmp_path / "out"
    options = [
        *("--input", f"{tmp_path}/list.txt", "--output", str(output), "--image_size", "32"),
        *("--checkpoint", "none", "--allow_private_addresses", "--urls_per_commit", "4"),
        *("--fallback", "wayback", "--fallback_url", origin.url(host="localhost")),
        *("--fallback_images", f"{tmp_path}/copies.tar"),
    ]
    assert run.main(options) == 0
    assert "4 examples (3 rescued by a fallback), 3 failures" in capsys.readouterr().out

    rows, failures = read_rows(output), read_failures(output)
    assert {name: row["image_source"] for name, row in rows.items()} == {
        "here": "origin",
        "stored": "fallback",
        "archived": "fallback",
        "replaced": "fallback",
    }
    assert rows["stored"]["final_url"] == f"{tmp_path}/copies.tar#class/stored.jpg"
    assert rows["archived"]["final_url"] == origin.url(
        f"web/20100101000000id_/{urls['archived']}", host="localhost"
    )
    assert {name: (one["stage"], one["reason"]) for name, one in failures.items()} == {
        "gone": ("fetch", "http_404"),
        "page": ("fetch", "http_404"),
        "forbidden": ("fetch", "http_403"),
    }
    assert failures["gone"]["detail"] == "404 Not Found; fallback: http_404: 404 Not Found"
    assert failures["page"]["detail"].startswith("404 Not Found; fallback: not_an_image: ")

    info = json.loads((output / "dataset.json").read_text())
    assert info["counts"]["rescued"] == 3
    assert info["options"]["fallback"] == "wayback"
    assert "3 rescued by a fallback" in (output / "report.html").read_text()
    assert "3 images (`image_source` is `fallback`)" in (output / "README.md").read_text()
    assert "image_source" in (output / "croissant.json").read_text()
    assert validate.main([str(output)]) == 0

    info["counts"]["rescued"] = 2
    (output / "dataset.json").write_text(json.dumps(info))
    capsys.readouterr()
    assert validate.main([str(output)]) == 1
    assert "3 rows of rescued images, dataset.json lists 2" in "".join(capsys.readouterr())


@pytest.mark.parametrize("folder", ["original_dir", "resized_dir"])
def test_what_was_rescued_is_not_kept(origin, tmp_path, folder):
    url = origin.url("status/404/x")
    origin.captures[url] = {"20100101000000": "good/x.jpg"}
    (tmp_path / "list.txt").write_text(f"1 {url}\n")
    options = [
        *("--input", f"{tmp_path}/list.txt", "--checkpoint", "none", "--image_size", "32"),
        *("--allow_private_addresses", "--report=false", f"--{folder}", f"{tmp_path}/kept"),
        *("--fallback", "wayback", "--fallback_url", origin.url(host="localhost")),
    ]
    sources = []
    for name in ("a", "b"):
        assert run.main([*options, "--output", str(tmp_path / name)]) == 0
        sources.append(read_rows(tmp_path / name)["1"]["image_source"])
    assert sources == ["fallback", "fallback"]
    assert list((tmp_path / "kept").iterdir()) == []
