"""The names of ImageNet's classes, from files that strangers have made."""

from __future__ import annotations

import ast
import pickle
import pickletools

import numpy as np

from beam_pipeline.storage import any_path

CLASSES = 1000
_MAX_BYTES = 10 * 2**20


# All that a pickle of numbers and texts in a dictionary is made of. Nothing else is let in: not what imports or calls, nor what
# makes much of little.
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
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _OPCODES:
            raise ValueError(f"its {opcode.name} does more than hold numbers and names")
        if opcode.name.endswith("PUT") and argument is not None and int(argument) > _MAX_MEMO:
            raise ValueError(f"its {opcode.name} asks for room for {int(argument):,} values")


def read(path: str) -> list[str]:
    """Reads the names of the 1,000 classes, by number: `imagenet1000_clsid_to_human.pkl`, or the same as text.

    A pickle is read without executing anything in it. A text is a Python dictionary of numbers and names, or has one name a line.

    Raises:
      ValueError: it is no such list, or would execute something; names the file.
      OSError: it cannot be read.
    """
    with any_path.open_file(path) as file:
        data = file.read(_MAX_BYTES)
    try:
        if path.endswith((".pkl", ".pickle")):
            _check_pickle(data)
            names = pickle.loads(data, encoding="utf-8")
        else:
            text = data.decode()
            names = ast.literal_eval(text.strip()) if text.lstrip().startswith("{") else dict(enumerate(text.splitlines()))
        if not isinstance(names, dict) or set(names) != set(range(CLASSES)):
            raise ValueError(f"it does not hold names of the classes 0 to {CLASSES - 1}")
        if not all(isinstance(name, str) and name.strip() and name.isprintable() for name in names.values()):
            raise ValueError("a name is no printable text")
    # What a broken pickle or text raises is bounded by nothing.
    except Exception as error:
        raise ValueError(f"{path} is no list of class names: {error}") from error
    return [names[number].strip() for number in range(CLASSES)]


def best(logits: np.ndarray, names: list[str], number: int = 5) -> list[str]:
    """The names of the best classes, the best first.

    Args:
      logits: float32 (1001,). Logit 0 is the background's; class i has logit i + 1.
      names: By class.
    """
    return [names[index] for index in np.argsort(-logits[1:], kind="stable")[:number]]
