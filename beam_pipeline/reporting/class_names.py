"""The names of ImageNet's classes, from untrusted files."""

from __future__ import annotations

import ast
import pickle
import pickletools

import numpy as np

from beam_pipeline.storage import any_path

CLASSES = 1000
_MAX_BYTES = 10 * 2**20


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


def _check_pickle(data: bytes) -> None:
    """Raise ValueError for a pickle with other opcodes or large memo indices."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _OPCODES:
            raise ValueError(f"its {opcode.name} does more than hold numbers and names")
        if opcode.name.endswith("PUT") and argument is not None and int(argument) > _MAX_MEMO:
            raise ValueError(f"its {opcode.name} asks for room for {int(argument):,} values")


def read(path: str) -> list[str]:
    """Return the names of the 1,000 classes, in the order of their indices.

    A pickle is read without executing anything in it. A text file holds a Python dictionary of
    indices and names, or one name per line.

    Args:
      path: `imagenet1000_clsid_to_human.pkl`, or the same as text.

    Raises:
      ValueError: The file, which the message names, is not such a list or would execute code.
      OSError: The file cannot be read.
    """
    with any_path.open_file(path) as file:
        data = file.read(_MAX_BYTES)
    try:
        if path.endswith((".pkl", ".pickle")):
            _check_pickle(data)
            names = pickle.loads(data, encoding="utf-8")
        else:
            text = data.decode()
            names = (
                ast.literal_eval(text.strip())
                if text.lstrip().startswith("{")
                else dict(enumerate(text.splitlines()))
            )
        if not isinstance(names, dict) or set(names) != set(range(CLASSES)):
            raise ValueError(f"it does not hold names of the classes 0 to {CLASSES - 1}")
        if not all(
            isinstance(name, str) and name.strip() and name.isprintable() for name in names.values()
        ):
            raise ValueError("a name is no printable text")
    # A broken pickle or text may raise any exception.
    except Exception as error:
        raise ValueError(f"{path} is no list of class names: {error}") from error
    return [names[index].strip() for index in range(CLASSES)]


def best(logits: np.ndarray, names: list[str], number: int = 5) -> list[str]:
    """Return the names of the classes with the highest logits, the highest first.

    Args:
      logits: float32 (1001,). Logit 0 is the background's; class i has logit i + 1.
      names: The names in the order of the classes.
      number: How many names to return.
    """
    return [names[index] for index in np.argsort(-logits[1:], kind="stable")[:number]]
