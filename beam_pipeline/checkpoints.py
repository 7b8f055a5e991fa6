"""Finds the checkpoint that the user named, wherever it is, and makes sure that it is the network's."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import importlib.resources
import json
import logging
import os
import shutil
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from beam_pipeline import quiet
from beam_pipeline.config import UsageError

_LOGGER = logging.getLogger(__name__)
_TIMEOUT = 60  # seconds without a byte from the server of a checkpoint
_HOW_TO = "give an inception_resnet_v2 .ckpt, its .tar.gz or a URL of that, or `untrained` or `none`"


def expected_variables() -> dict[str, list[int]]:
    """Names and shapes of the 898 variables that give the logits, in the order in which the network creates them.

    Those of `inception_resnet_v2_2016_08_30.ckpt` but `AuxLogits`, the training-time head.
    """
    return json.loads(importlib.resources.files("beam_pipeline").joinpath("inception_resnet_v2.json").read_text())


def read_weights(checkpoint: str) -> Iterator[np.ndarray]:
    """The weights, float32, in the order of `expected_variables`.

    Args:
      checkpoint: As the option has it, but `none`.

    Raises:
      UsageError: the checkpoint cannot be read, or lacks a variable or has one of another shape; names it.
    """
    names = expected_variables()
    if checkpoint == "untrained":
        yield from (untrained_weights(name, shape) for name, shape in names.items())
        return
    reader = _open_checkpoint(locate(checkpoint), checkpoint)
    for name in names:
        try:
            weights = reader.get_tensor(name)
        # As when it is opened.
        except Exception as error:
            raise UsageError(f"--checkpoint {checkpoint}: {name} cannot be read: {_first_line(error)}; {_HOW_TO}") from error
        yield weights


def untrained_weights(name: str, shape: list[int], seed: int = 0) -> np.ndarray:
    """Fixed pseudo-random weights, float32, of a size under which activations neither vanish nor explode."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith("moving_variance"):
        values = rng.uniform(0.5, 1.5, shape)
    elif name.endswith("weights"):
        # He et al. 2015, https://arxiv.org/abs/1502.01852
        values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
    else:
        values = 0.1 * rng.standard_normal(shape)
    return values.astype(np.float32)


def verify(checkpoint: str) -> str | None:
    """Makes sure of a checkpoint before anything else is done.

    Returns:
      The sha256 of its files, in hex; None for `untrained`.

    Raises:
      UsageError: as `read_weights`.
    """
    if checkpoint == "untrained":
        return None
    prefix = locate(checkpoint)
    for _ in read_weights(checkpoint):
        pass
    digest = hashlib.sha256()
    for path in _files_of(prefix):
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def locate(checkpoint: str) -> str:
    """Brings a checkpoint to this machine, once: what is fetched or unpacked stays in the cache folder.

    Returns:
      The path of a V1 file, or the prefix of a V2 checkpoint.

    Raises:
      UsageError: it is not there, or holds no checkpoint.
    """
    packed = checkpoint.endswith((".tar.gz", ".tgz"))
    remote = "://" in checkpoint
    if not packed and not remote:
        if not _files_of(checkpoint):
            raise UsageError(f"--checkpoint {checkpoint} is not there; {_HOW_TO}")
        return checkpoint
    key = checkpoint
    if not remote:
        try:
            stat = os.stat(checkpoint)
        except OSError as error:
            raise UsageError(f"--checkpoint {checkpoint} cannot be read: {error.strerror}; {_HOW_TO}") from error
        key = f"{os.path.abspath(checkpoint)} {stat.st_size} {stat.st_mtime_ns}"
    folder = cache_folder() / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not folder.exists():
        try:
            _bring(checkpoint, packed, folder)
        except (OSError, EOFError, tarfile.TarError, zlib.error, BeamIOError, ValueError) as error:
            raise UsageError(f"--checkpoint {checkpoint} cannot be read: {error}; {_HOW_TO}") from error
    return _prefix_in(folder, checkpoint)


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/beam_pipeline`, or `~/.cache/beam_pipeline`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beam_pipeline"


def _bring(checkpoint: str, packed: bool, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        beside = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder.parent)))
        unpacked = beside / "unpacked"
        unpacked.mkdir()
        if packed:
            archive = beside / "archive"
            _copy(checkpoint, archive)
            with tarfile.open(archive) as members:
                for member in members:
                    name = os.path.basename(member.name)
                    if member.isfile() and ".ckpt" in name:
                        with cast(IO[bytes], members.extractfile(member)) as source, open(unpacked / name, "wb") as target:
                            shutil.copyfileobj(source, target, 1 << 20)
        elif checkpoint.startswith(("http://", "https://")):
            _copy(checkpoint, unpacked / os.path.basename(checkpoint))
        else:
            for match in FileSystems.match([checkpoint, checkpoint + ".index", checkpoint + ".data-*"]):
                for file in match.metadata_list:
                    _copy(file.path, unpacked / os.path.basename(file.path))
        _prefix_in(unpacked, checkpoint)
        # Another process may have been quicker; its copy is as good.
        with contextlib.suppress(OSError):
            unpacked.rename(folder)


def _copy(path: str, target: Path) -> None:
    """Copies a URL or a file on any filesystem that Beam knows to a local file."""
    if path.startswith(("http://", "https://")):
        _LOGGER.warning("downloading %s to %s, once", path, cache_folder())
        with urllib.request.urlopen(path, timeout=_TIMEOUT) as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
            promised = source.headers.get("Content-Length")
            if promised is not None and file.tell() != int(promised):
                raise OSError(f"the server sent {file.tell()} of {promised} bytes")
    else:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)


def _prefix_in(folder: Path, checkpoint: str) -> str:
    paths = [str(path).removesuffix(".index") for path in folder.iterdir() if ".data-" not in path.name]
    if len(paths) != 1 or not _files_of(paths[0]):
        raise UsageError(f"--checkpoint {checkpoint} holds {len(paths)} checkpoints where one is needed; {_HOW_TO}")
    return paths[0]


def _files_of(prefix: str) -> list[str]:
    """The one file of a V1 checkpoint, or the index and the data files of a V2 one."""
    if os.path.isfile(prefix):
        return [prefix]
    index = [prefix + ".index"] if os.path.isfile(prefix + ".index") else []
    data = sorted(glob.glob(glob.escape(prefix) + ".data-*"))
    return index + data if index and data else []


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _open_checkpoint(prefix: str, checkpoint: str):
    """A tf.train.CheckpointReader of a checkpoint that holds every variable of the network, in its shape."""
    with quiet.silent_imports():
        import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes = reader.get_variable_to_shape_map()
    # The reader raises RuntimeError, ValueError or one of tf.errors, by the way in which a file is broken.
    except Exception as error:
        raise UsageError(f"--checkpoint {checkpoint} is no TensorFlow checkpoint: {_first_line(error)}; {_HOW_TO}") from error
    for name, shape in expected_variables().items():
        if name not in shapes:
            raise UsageError(f"--checkpoint {checkpoint} lacks the variable {name}; {_HOW_TO}")
        if list(shapes[name]) != shape:
            raise UsageError(f"--checkpoint {checkpoint}: {name} has shape {shapes[name]}, not {shape}; {_HOW_TO}")
    return reader
