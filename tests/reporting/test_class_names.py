"""Tests that lists of class names are read without executing their content."""

from __future__ import annotations

import os
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest

from beam_pipeline.reporting import class_names

NAMES = {index: f"class {index}, also called {index}" for index in range(1000)}


class Call:
    """An object that pickles as a function call."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle(tmp_path, protocol):
    (tmp_path / "names.pkl").write_bytes(pickle.dumps(NAMES, protocol))
    assert class_names.read(str(tmp_path / "names.pkl")) == list(NAMES.values())


def test_a_pickle_of_python_2(tmp_path):
    # The published file has this form: protocol 0, and byte strings.
    lines = "".join(f"I{index}\nS'class {index}'\np{index + 1}\ns" for index in range(1000))
    (tmp_path / "names.pkl").write_text(f"(dp0\n{lines}.")
    assert class_names.read(str(tmp_path / "names.pkl"))[999] == "class 999"


def test_the_same_as_text(tmp_path):
    (tmp_path / "names.txt").write_text(repr(NAMES).replace("', ", "',\n "))
    (tmp_path / "lines.txt").write_text("".join(f"{name}\n" for name in NAMES.values()))
    assert (
        class_names.read(str(tmp_path / "names.txt"))
        == class_names.read(str(tmp_path / "lines.txt"))
        == list(NAMES.values())
    )


HOW_TO = "give imagenet1000_clsid_to_human.pkl, or 1,000 names as UTF-8 text, one per line"
CODE = "it is a pickle of more than numbers and names, which could execute code (opcode {})"
BROKEN = "it is not a pickle, or not a complete one"


def refusal(path: Path) -> str:
    """Return the reason in the message, which is one line."""
    with pytest.raises(ValueError) as caught:
        class_names.read(str(path))
    message = str(caught.value)
    assert message.startswith(f"--class_names {path}: ") and message.endswith(f"; {HOW_TO}")
    assert len(message.splitlines()) == 1
    return message.removeprefix(f"--class_names {path}: ").removesuffix(f"; {HOW_TO}")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_call_something_is_refused(tmp_path, protocol):
    touched = tmp_path / "touched"
    path = tmp_path / "names.pkl"
    path.write_bytes(pickle.dumps({**NAMES, 7: Call(os.mkdir, str(touched))}, protocol))
    assert refusal(path) == CODE.format("GLOBAL" if protocol < 4 else "STACK_GLOBAL")
    assert not touched.exists()


def test_a_pickle_that_calls_by_its_oldest_opcode_is_refused(tmp_path):
    path = tmp_path / "names.pkl"
    path.write_bytes(b"(S'echo'\nios\nsystem\n.")
    assert "INST" in [opcode.name for opcode, _, _ in pickletools.genops(path.read_bytes())]
    assert refusal(path) == CODE.format("INST")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.pkl", b"", "the file is empty"),
        ("empty.txt", b"", "the file is empty"),
        ("large.txt", b"a" * (10 * 2**20 + 1), "the file is larger than 10 MiB"),
        ("cut.pkl", pickle.dumps(NAMES)[:100], BROKEN),
        ("page.pkl", b"<!DOCTYPE html>", BROKEN),
        ("item.pkl", b"K\0K\1K\2s.", BROKEN),
        ("refers.pkl", b"Psomewhere\n.", CODE.format("PERSID")),
        # A key that takes 2^40 steps to hash.
        ("doubles.pkl", b"}(" + b"N" + b"2\x86" * 40 + b"K\0u.", CODE.format("NONE")),
        (
            "allocates.pkl",
            b"}r\xff\xff\xff\x07.",
            "it is a pickle that allocates 134,217,727 values",
        ),
        ("list.pkl", pickle.dumps([1, 2]), CODE.format("EMPTY_LIST")),
        ("text.pkl", pickle.dumps("x"), "it is not a dictionary of numbers and names"),
        ("few.pkl", pickle.dumps({0: "one"}), "the number of names is 1, not 1,000"),
        (
            "bytes.pkl",
            b"(dp0\nI0\nS'\xe9'\np1\ns.",
            "it is a pickle with text that is not UTF-8",
        ),
        (
            "others.pkl",
            pickle.dumps({index + 1: name for index, name in NAMES.items()}),
            "it has no name for class 0",
        ),
        (
            "colours.pkl",
            pickle.dumps({**NAMES, 3: "\x1b[31mred"}),
            "the name of class 3 is empty or not printable text",
        ),
        (
            "numbers.pkl",
            pickle.dumps(dict.fromkeys(range(1000), 1)),
            "the name of class 0 is empty or not printable text",
        ),
        ("999.txt", b"name\n" * 999, "the number of names is 999, not 1,000"),
        ("latin.txt", b"cat\ncaf\xe9\n", "it is not UTF-8 text, at byte 7"),
        ("blank.txt", b"\n" * 1000, "the name of class 0 is empty or not printable text"),
        *(
            (
                f"{name}.txt",
                data,
                "it begins with a brace, but is not a dictionary of numbers and names",
            )
            for name, data in (
                ("code", b"{0: __import__('os').getcwd()}"),
                ("cut", b"{0: 'a', "),
                ("deep", b"{" + b"[" * 10000),
                ("nul", b"{0: '\0'}"),
                ("unhashable", b"{[]: 1}"),
            )
        ),
    ],
)
def test_what_is_no_list_is_explained(tmp_path, name, data, reason):
    (tmp_path / name).write_bytes(data)
    assert refusal(tmp_path / name) == reason


def test_what_is_no_file_is_explained(tmp_path):
    assert refusal(tmp_path / "names.txt") == "there is no such file"
    assert refusal(tmp_path) == "it is a folder"
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe") == "not a regular file"


def test_the_best_classes_leave_out_the_background():
    logits = np.zeros(1001, np.float32)
    logits[[0, 1, 1000, 500]] = [9, 3, 2, 1]
    assert class_names.best(logits, list(NAMES.values()), 3) == [NAMES[0], NAMES[999], NAMES[499]]
