"""Verification of the network's checkpoint, and reading of its weights."""

from __future__ import annotations

import glob
import importlib.resources
import json
import os
import re
import zlib
from collections.abc import Iterator

import numpy as np

from beam_pipeline.config import UsageError
from beam_pipeline.embedding import checkpoint_cache, checkpoint_sources
from beam_pipeline.embedding.checkpoint_cache import HOW_TO
from beam_pipeline.embedding.checkpoint_sources import NO_SUCH_FILE
from beam_pipeline.process import native_output
from beam_pipeline.storage import any_path


def expected_variables() -> dict[str, list[int]]:
    """Return the names and shapes of the 898 variables that compute the logits.

    These are the variables of `inception_resnet_v2_2016_08_30.ckpt` except `AuxLogits`, the
    training-time head.

    Returns:
      Shapes by name, in the order in which the network creates the variables.
    """
    return json.loads(
        importlib.resources.files("beam_pipeline.embedding")
        .joinpath("inception_resnet_v2.json")
        .read_text()
    )


def read_weights(checkpoint: str, sha256: str | None = None) -> Iterator[np.ndarray]:
    """Yield the weights of a checkpoint.

    Args:
      checkpoint: The value of `--checkpoint`, except `none`.
      sha256: The value that `verify` returned. Workers load only weights with this sha256.

    Yields:
      float32 arrays, in the order of `expected_variables`.

    Raises:
      UsageError: The checkpoint cannot be read or has another sha256, or a variable is missing or
        has another shape. The error names the checkpoint and the variable.
    """
    if checkpoint == "untrained":
        yield from (untrained_weights(name, shape) for name, shape in expected_variables().items())
    else:
        yield from _read(_locate(checkpoint, sha256), checkpoint)


def untrained_weights(name: str, shape: list[int], seed: int = 0) -> np.ndarray:
    """Return reproducible pseudo-random weights for a variable.

    Their scale keeps activations from vanishing and exploding.

    Args:
      name: Name of the variable.
      shape: Shape of the variable.
      seed: Another seed returns other weights.

    Returns:
      float32 array of the given shape.
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith("moving_variance"):
        values = rng.uniform(0.5, 1.5, shape)
    elif name.endswith("weights"):
        # He et al. 2015, https://arxiv.org/abs/1502.01852
        values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
    else:
        values = 0.1 * rng.standard_normal(shape)
    return values.astype(np.float32)


def verify(checkpoint: str, source_sha256: str | None = None) -> str | None:
    """Verify a checkpoint at the start of a run; download it if necessary.

    Args:
      checkpoint: The value of `--checkpoint`, except `none`.
      source_sha256: The value of `--checkpoint_sha256`.

    Returns:
      The sha256 of the concatenation of the checkpoint's files, in hex, by which workers request
      it. None for `untrained`.

    Raises:
      UsageError: See `read_weights`, or the file does not have the sha256 `source_sha256`.
    """
    if checkpoint == "untrained":
        return None
    if not checkpoint_sources.is_readable(checkpoint):
        return checkpoint_cache.bring(
            checkpoint, source_sha256, lambda prefix: _check(prefix, checkpoint)
        )[1]
    sha256 = _digest_of_local(checkpoint)
    checkpoint_cache.check_source(checkpoint, sha256, source_sha256)
    _check(checkpoint, checkpoint)
    return sha256


def _locate(checkpoint: str, sha256: str | None) -> str:
    """Return the local path or prefix of the checkpoint that the command verified."""
    if checkpoint_sources.is_readable(checkpoint):
        prefix, found = checkpoint, _digest_of_local(checkpoint)
    elif sha256 and (kept := checkpoint_cache.recall(sha256)):
        return kept
    else:
        prefix, found = checkpoint_cache.bring(
            checkpoint, None, lambda prefix: _check(prefix, checkpoint)
        )
    if sha256 not in (None, found):
        raise UsageError(
            f"--checkpoint {checkpoint}: it has changed since the run began; "
            f"its sha256 is {found}, not {sha256}; restore the file, or begin a new run"
        )
    return prefix


def _digest_of_local(checkpoint: str) -> str:
    if problem := _problem_of_local(checkpoint):
        raise UsageError(f"--checkpoint {checkpoint}: {problem}; {HOW_TO}")
    try:
        return checkpoint_cache.digest_of(checkpoint)
    except OSError as error:
        raise UsageError(
            f"--checkpoint {checkpoint}: {any_path.reason_of(error)}; {HOW_TO}"
        ) from error


def _problem_of_local(checkpoint: str) -> str | None:
    """Return why a local checkpoint is not complete, as a clause; None if it is."""
    suffix = re.search(r"\.(index|data-\d+-of-\d+)\Z", checkpoint)
    prefix = checkpoint[: suffix.start()] if suffix else checkpoint
    if os.path.isdir(checkpoint):
        return "it is a folder"
    has_index = os.path.isfile(prefix + ".index")
    has_data = bool(glob.glob(glob.escape(prefix) + ".data-*"))
    if has_index and has_data and suffix:
        return f"it is one of several files; give the part of the path that they share, {prefix}"
    if checkpoint_cache.files_of(checkpoint) and not suffix:
        return None
    if has_index:
        return f"{prefix}.index exists, but {prefix}.data-* does not"
    if has_data:
        return f"{prefix}.data-* exists, but {prefix}.index does not"
    return NO_SUCH_FILE


def _check(prefix: str, checkpoint: str) -> None:
    for _ in _read(prefix, checkpoint):
        pass


def _read(prefix: str, checkpoint: str) -> Iterator[np.ndarray]:
    reader = _open_checkpoint(prefix, checkpoint)
    for name in expected_variables():
        try:
            weights = reader.get_tensor(name)
        # The type of the exception varies, as in `_open_checkpoint`.
        except Exception as error:
            raise UsageError(
                f"--checkpoint {checkpoint}: it is damaged at the variable {name}; {HOW_TO}"
            ) from error
        yield weights


def _open_checkpoint(prefix: str, checkpoint: str):
    """Return a tf.train.CheckpointReader of a checkpoint.

    Raises:
      UsageError: The file is not a readable checkpoint, or a variable of the network is missing or
        has another shape.
    """
    with native_output.suppress_stderr():
        import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes = reader.get_variable_to_shape_map()
    # The reader raises RuntimeError, ValueError or one of tf.errors, depending on the damage.
    except Exception as error:
        is_empty = os.path.isfile(prefix) and not os.path.getsize(prefix)
        problem = "the file is empty" if is_empty else "it is not a checkpoint, or it is damaged"
        raise UsageError(f"--checkpoint {checkpoint}: {problem}; {HOW_TO}") from error
    for name, shape in expected_variables().items():
        if name not in shapes:
            raise UsageError(
                f"--checkpoint {checkpoint}: it is of another network, without the variable "
                f"{name}; {HOW_TO}"
            )
        if list(shapes[name]) != shape:
            raise UsageError(
                f"--checkpoint {checkpoint}: it is of another network, whose variable {name} "
                f"has the shape {shapes[name]}, not {shape}; {HOW_TO}"
            )
    return reader
