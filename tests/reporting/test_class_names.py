"""Tests that lists of class names are read without executing their content."""

from __future__ import annotations

import os
import pickle
import pickletools

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


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_call_something_is_refused(tmp_path, protocol):
    touched = tmp_path / "touched"
    path = tmp_path / "names.pkl"
    path.write_bytes(pickle.dumps({**NAMES, 7: Call(os.mkdir, str(touched))}, protocol))
    with pytest.raises(
        ValueError, match=rf"^{path} is no list of class names: its (GLOBAL|STACK_GLOBAL) does more"
    ):
        class_names.read(str(path))
    assert not touched.exists()


def test_a_pickle_that_calls_by_its_oldest_opcode_is_refused(tmp_path):
    path = tmp_path / "names.pkl"
    path.write_bytes(b"(S'echo'\nios\nsystem\n.")
    assert "INST" in [opcode.name for opcode, _, _ in pickletools.genops(path.read_bytes())]
    with pytest.raises(ValueError, match="its INST does more"):
        class_names.read(str(path))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.pkl", b""),
        ("cut.pkl", pickle.dumps(NAMES)[:100]),
        ("refers.pkl", b"Psomewhere\n."),
        # A key that takes 2^40 steps to hash.
        (
            "doubles.pkl",
            b"}(" + b"N" + b"2\x86" * 40 + b"K\0u.",
        ),
        ("asks_for_room.pkl", b"]r\xff\xff\xff\x07."),
        ("colours.pkl", pickle.dumps({**NAMES, 3: "\x1b[31mred"})),
        ("list.pkl", pickle.dumps([1, 2])),
        ("few.pkl", pickle.dumps({0: "one"})),
        ("numbers.pkl", pickle.dumps(dict.fromkeys(range(1000), 1))),
        ("few.txt", b"one\ntwo\n"),
        ("code.txt", b"{0: __import__('os').getcwd()}"),
        ("bytes.txt", b"\xff\xfe"),
        ("blank.txt", b"\n" * 1000),
    ],
)
def test_what_is_no_list_is_named(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name} is no list of class names"):
        class_names.read(str(tmp_path / name))


def test_the_best_classes_leave_out_the_background():
    logits = np.zeros(1001, np.float32)
    logits[[0, 1, 1000, 500]] = [9, 3, 2, 1]
    assert class_names.best(logits, list(NAMES.values()), 3) == [NAMES[0], NAMES[999], NAMES[499]]
