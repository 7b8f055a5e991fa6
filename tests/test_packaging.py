"""Tests of the sdist and the wheel: their content, and the wheel after installation."""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beam_pipeline import __version__

ROOT = Path(__file__).parent.parent
READ = """
import json, sys
import beam_pipeline
from beam_pipeline import dataset
images = dataset.examples(sys.argv[1])
shapes = [image["image_l"].shape for image in images]
package, modules = beam_pipeline.__file__, list(sys.modules)
print(json.dumps({"package": package, "modules": modules, "shapes": shapes}))
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command without this process's import path. Return its standard output."""
    variables = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sdist and the wheel of the project."""
    source = tmp_path_factory.mktemp("source") / "beam_pipeline"
    generated = ["__pycache__", "*.egg-info", "build", "data", "dist", "site"]
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", *generated))
    run(sys.executable, "-m", "build", "--no-isolation", cwd=source)
    return source / "dist"


@pytest.fixture(scope="module")
def wheel(packages: Path) -> Path:
    return packages / f"beam_pipeline-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs of a fresh environment: the wheel, and the dependencies of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    [site_packages] = folder.glob("lib/python*/site-packages")
    # Python does not read the path files of that folder, such as one of an editable install.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {path for path in (ROOT / "beam_pipeline").rglob("*") if path.is_file()}
    files -= set((ROOT / "beam_pipeline").rglob("__pycache__/*"))
    assert packed == {path.relative_to(ROOT).as_posix() for path in files}
    assert {Path(name).suffix for name in packed} == {".py", ".jinja", ".json", ".txt", ".typed"}


def test_the_wheel_names_licence_and_command(wheel):
    folder = f"beam_pipeline-{__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        metadata = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
        licence = archive.read(f"{folder}/licenses/LICENSE").decode()
        entry_points = archive.read(f"{folder}/entry_points.txt").decode()
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert licence == (ROOT / "LICENSE").read_text()
    assert "Copyright 2026 The beam_pipeline authors" in licence
    assert "beam-pipeline = beam_pipeline.run:cli" in entry_points


def test_the_sdist_holds_what_a_build_needs(packages):
    with tarfile.open(packages / f"beam_pipeline-{__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "constraints.txt"} <= names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "examples"))]


def test_a_package_index_would_accept_both(packages):
    run(sys.executable, "-m", "twine", "check", "--strict", *packages.iterdir(), cwd=packages)


def test_the_installed_package_makes_and_reads_a_dataset(environment, tmp_path):
    assert "--input" in run(environment / "beam-pipeline", "--help", cwd=tmp_path)
    for index in range(3):
        pixels = np.full((20, 30, 3), 60 * index, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    options = "--images *.png --output out --checkpoint none --image_size 16"
    run(environment / "beam-pipeline", *options.split(), cwd=tmp_path)
    assert "<html" in (tmp_path / "out" / "report.html").read_text()
    read = json.loads(run(environment / "python", "-c", READ, "out", cwd=tmp_path))
    assert Path(read["package"]).is_relative_to(environment.parent)
    assert read["shapes"] == [[16, 16, 1]] * 3
    assert not {"apache_beam", "tensorflow"} & set(read["modules"])


def test_every_development_tool_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tools = {re.split("[^a-z_-]", tool)[0] for tool in project["optional-dependencies"]["dev"]}
    pins = {pin.partition("==")[0] for pin in (ROOT / "constraints.txt").read_text().splitlines()}
    assert tools <= pins


def test_make_help_lists_every_phony_target():
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    [phony] = [line for line in makefile.splitlines() if line.startswith(".PHONY:")]
    listed = [
        line.split()[0]
        for line in run("make", "--no-print-directory", "help", cwd=ROOT).splitlines()
    ]
    assert sorted(listed) == sorted(phony.split()[1:])
