"""The names of ImageNet's classes, from untrusted files."""

from __future__ import annotations

import ast
import pickle
import pickletools

import numpy as np

from beam_pipeline.storage import any_path

CLASSES = 1000
_MAX_BYTES = 10 * 2**20
_HOW_TO = "give imagenet1000_clsid_to_human.pkl, or 1,000 names as UTF-8 text, one per line"

# The opcodes of a pickled dictionary of integers and strings. All others are rejected: they may
# import, call, or build large objects from little data.
_OPCODES = {
    *(
        "PROTO",
        "FRAME",
        "MARK",
        "STOP",
        "EMPTY_DICT",
        "DICT",
        "SETITEM",
        "SETITEMS",
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
    ),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
}
_MAX_MEMO = 10_000


class _ContentError(ValueError):
    """The content of a file is not a list of class names. The message says why."""


def read(path: str) -> list[str]:
    """Return the names of the 1,000 classes, in the order of their indices.

    A pickle is read without executing anything in it. A text file holds a Python dictionary of
    indices and names, or one name per line.

    Args:
      path: `imagenet1000_clsid_to_human.pkl`, or the same as text.

    Raises:
      ValueError: The file cannot be read, is not such a list or could execute code. The message
        names `--class_names` and the file.
    """
    try:
        with any_path.open_file(path) as file:
            data = file.read(_MAX_BYTES + 1)
        if not data:
            raise _ContentError("the file is empty")
        if len(data) > _MAX_BYTES:
            raise _ContentError(f"the file is larger than {_MAX_BYTES >> 20} MiB")
        is_pickle = path.endswith((".pkl", ".pickle"))
        return _in_order(_read_pickle(data) if is_pickle else _read_text(data))
    except (OSError, _ContentError) as error:
        reason = any_path.reason_of(error) if isinstance(error, OSError) else str(error)
        raise ValueError(f"--class_names {path}: {reason}; {_HOW_TO}") from error


def _read_pickle(data: bytes) -> object:
    try:
        _check_pickle(data)
        return pickle.loads(data, encoding="utf-8")
    except _ContentError:
        raise
    except UnicodeDecodeError as error:
        raise _ContentError("it is a pickle with text that is not UTF-8") from error
    # A broken pickle may raise any exception.
    except Exception as error:
        raise _ContentError("it is not a pickle, or not a complete one") from error


def _check_pickle(data: bytes) -> None:
    """Raise _ContentError for a pickle with other opcodes or large memo indices."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _OPCODES:
            raise _ContentError(
                f"it is a pickle of more than numbers and names, which could execute code "
                f"(opcode {opcode.name})"
            )
        if opcode.name.endswith("PUT") and argument is not None and int(argument) > _MAX_MEMO:
            raise _ContentError(f"it is a pickle that allocates {int(argument):,} values")


def _read_text(data: bytes) -> object:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _ContentError(f"it is not UTF-8 text, at byte {error.start}") from error
    if not text.lstrip().startswith("{"):
        return dict(enumerate(text.splitlines()))
    try:
        return ast.literal_eval(text.strip())
    # A broken dictionary may raise any exception.
    except Exception as error:
        raise _ContentError(
            "it begins with a brace, but is not a dictionary of numbers and names"
        ) from error


def _in_order(names: object) -> list[str]:
    if not isinstance(names, dict):
        raise _ContentError("it is not a dictionary of numbers and names")
    if len(names) != CLASSES:
        raise _ContentError(f"the number of names is {len(names):,}, not {CLASSES:,}")
    for index in range(CLASSES):
        if index not in names:
            raise _ContentError(f"it has no name for class {index}")
        name = names[index]
        if not (isinstance(name, str) and name.strip() and name.isprintable()):
            raise _ContentError(f"the name of class {index} is empty or not printable text")
    return [names[index].strip() for index in range(CLASSES)]


def best(logits: np.ndarray, names: list[str], count: int = 5) -> list[str]:
    """Return the names of the classes with the highest logits, the highest first.

    Args:
      logits: float32 (1001,). Logit 0 is the background's; class i has logit i + 1.
      names: The names in the order of the classes.
      count: How many names to return.
    """
    return [names[index] for index in np.argsort(-logits[1:], kind="stable")[:count]]
