"""Tests of finding a checkpoint, of every kind of path, and of naming one that is refused."""

import gzip
import hashlib
import json
import os
import shutil
import socket
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from beam_pipeline.config import UsageError
from beam_pipeline.embedding import checkpoint_cache, checkpoints

ALL_VARIABLES = json.loads((Path(__file__).parents[1] / "data" / "variables.json").read_text())


def write_checkpoint(
    path: Path, version: int, variables: dict[str, list[int]] | None = None
) -> Path:
    """Write a TF1 checkpoint in the published one's format, with the weights of `untrained`."""
    variables = ALL_VARIABLES if variables is None else variables
    names, data = (
        list(variables),
        [checkpoints.untrained_weights(name, shape) for name, shape in variables.items()],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    if version == 1:
        tf.raw_ops.Save(filename=str(path), tensor_names=names, data=data)
    else:
        tf.raw_ops.SaveV2(
            prefix=str(path), tensor_names=names, shape_and_slices=[""] * len(names), tensors=data
        )
    return path


@pytest.fixture(scope="module")
def v1(tmp_path_factory) -> Path:
    return write_checkpoint(
        tmp_path_factory.mktemp("v1") / "inception_resnet_v2_2016_08_30.ckpt", 1
    )


@pytest.fixture(scope="module")
def v2(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("v2") / "model.ckpt", 2)


@pytest.fixture(scope="module")
def archive(v1) -> Path:
    path = v1.parent / "inception_resnet_v2_2016_08_30.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=0) as members:
        members.add(v1, v1.name)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "beam_pipeline"


def expected_weights():
    return [
        checkpoints.untrained_weights(name, shape)
        for name, shape in checkpoints.expected_variables().items()
    ]


def assert_weights(checkpoint: str):
    for got, wanted in zip(checkpoints.read_weights(checkpoint), expected_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_expected_variables_are_the_published_ones_without_the_training_head():
    expected = checkpoints.expected_variables()
    assert list(expected.items()) == [
        item for item in ALL_VARIABLES.items() if "AuxLogits" not in item[0]
    ]


def test_untrained_weights_are_the_same_each_time_and_differ_by_name():
    first, again = (checkpoints.untrained_weights("a/weights", [3, 3, 2, 4]) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32 and first.shape == (3, 3, 2, 4)
    assert not np.array_equal(first, checkpoints.untrained_weights("b/weights", [3, 3, 2, 4]))


def test_reads_a_v1_file(v1):
    assert_weights(str(v1))


def test_reads_a_v2_prefix(v2):
    assert_weights(str(v2))


def test_reads_the_archive(archive, cache):
    assert_weights(str(archive))
    assert [path.name for path in cache.glob("*/*")] == ["inception_resnet_v2_2016_08_30.ckpt"]


def test_sha256_is_the_files_wherever_they_come_from(v1, archive):
    direct = checkpoints.verify(str(v1))
    assert direct == hashlib.sha256(v1.read_bytes()).hexdigest() == checkpoints.verify(str(archive))


def test_the_sha256_that_is_asked_for(v1, v2, archive):
    of_v2 = hashlib.sha256(
        b"".join(path.read_bytes() for path in [Path(f"{v2}.index"), *v2.parent.glob("*.data-*")])
    )
    for path, sha256 in (
        (v1, file_sha256(v1)),
        (archive, file_sha256(archive)),
        (v2, of_v2.hexdigest()),
    ):
        assert checkpoints.verify(str(path), sha256.upper())
        with pytest.raises(
            UsageError,
            match=rf"{path}: its sha256 is {sha256}, but --checkpoint_sha256 is {'0' * 64};",
        ):
            checkpoints.verify(str(path), "0" * 64)


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_workers_load_what_was_verified_or_nothing(v1, tmp_path):
    path = tmp_path / "model.ckpt"
    shutil.copy(v1, path)
    sha256 = checkpoints.verify(str(path))
    next(checkpoints.read_weights(str(path), sha256))
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(
        UsageError,
        match=f"it has changed since the run began; its sha256 is {file_sha256(path)}, not",
    ):
        next(checkpoints.read_weights(str(path), sha256))


def test_untrained_has_no_sha256():
    assert checkpoints.verify("untrained") is None


def test_names_the_variable_that_is_missing(tmp_path):
    variables = dict(ALL_VARIABLES)
    del variables["InceptionResnetV2/Mixed_6a/Branch_1/Conv2d_0b_3x3/weights"]
    path = write_checkpoint(tmp_path / "a.ckpt", 2, variables)
    with pytest.raises(
        UsageError,
        match="of another network, without the variable InceptionResnetV2/Mixed_6a/Branch_1/Conv2d",
    ):
        checkpoints.verify(str(path))


def test_names_the_variable_of_another_shape(tmp_path):
    variables = {**ALL_VARIABLES, "InceptionResnetV2/Logits/Logits/biases": [1000]}
    path = write_checkpoint(tmp_path / "a.ckpt", 1, variables)
    with pytest.raises(UsageError, match=r"biases has the shape \[1000\], not \[1001\];"):
        checkpoints.verify(str(path))


def refusal(checkpoint: str) -> str:
    """Return the reason in the message, which is one line and ends with what to do."""
    with pytest.raises(UsageError) as caught:
        checkpoints.verify(checkpoint)
    start, end = f"--checkpoint {checkpoint}: ", f"; {checkpoint_cache.HOW_TO}"
    message = str(caught.value)
    assert message.startswith(start) and message.endswith(end)
    assert len(message.splitlines()) == 1
    return message.removeprefix(start).removesuffix(end)


NOT_A_CHECKPOINT = "it is not a checkpoint, or it is damaged"
NOT_AN_ARCHIVE = "it is not a .tar.gz archive, or it is damaged"


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("nothing.ckpt", None, "there is no such file"),
        ("nothing.tar.gz", None, "there is no such file"),
        ("empty.ckpt", b"", "the file is empty"),
        ("notes.ckpt", b"not a checkpoint", NOT_A_CHECKPOINT),
        ("empty.tar.gz", b"", NOT_AN_ARCHIVE),
        ("notes.tar.gz", b"not an archive", NOT_AN_ARCHIVE),
        ("notes.tgz", gzip.compress(b"not an archive"), NOT_AN_ARCHIVE),
        ("cut.tar.gz", gzip.compress(bytes(1 << 16))[:-8], "the archive is incomplete"),
    ],
)
def test_explains_what_is_no_checkpoint(tmp_path, name, data, reason):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    assert refusal(str(tmp_path / name)) == reason


@pytest.mark.parametrize("name", ["model.ckpt", "model.tar.gz"])
def test_explains_a_folder(tmp_path, name):
    (tmp_path / name).mkdir()
    assert refusal(str(tmp_path / name)) == "it is a folder"


def test_explains_an_archive_that_is_cut(archive, tmp_path):
    path = tmp_path / archive.name
    path.write_bytes(archive.read_bytes()[:-1000])
    assert refusal(str(path)) == "the archive is incomplete"


def test_explains_which_file_of_a_v2_checkpoint_is_missing(v2, tmp_path):
    prefix = str(tmp_path / "model.ckpt")
    [data] = v2.parent.glob("*.data-*")
    shutil.copy(f"{v2}.index", tmp_path)
    for path in (prefix, f"{prefix}.index"):
        assert refusal(path) == f"{prefix}.index exists, but {prefix}.data-* does not"
    os.remove(f"{prefix}.index")
    shutil.copy(data, tmp_path)
    for path in (prefix, str(tmp_path / data.name)):
        assert refusal(path) == f"{prefix}.data-* exists, but {prefix}.index does not"


def test_explains_that_a_v2_checkpoint_goes_by_its_prefix(v2):
    for path in v2.parent.glob("model.ckpt.*"):
        assert refusal(str(path)) == (
            f"it is one of several files; give the part of the path that they share, {v2}"
        )


@pytest.mark.parametrize("scheme", ["ftp", "bogus"])
def test_explains_an_unknown_filesystem(scheme):
    assert refusal(f"{scheme}://a/b.ckpt") == f"files cannot be read from {scheme}://"


def test_explains_a_url_that_leads_nowhere():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        reason = "the server cannot be reached: Connection refused"
        assert refusal(f"http://127.0.0.1:{port}/model.ckpt") == reason
    for url in ("http://[::1/model.ckpt", "http://two words/model.ckpt"):
        assert refusal(url) == "it is not a valid URL"


def test_names_the_variable_that_cannot_be_read(v2, tmp_path):
    for path in v2.parent.glob("model.ckpt.*"):
        shutil.copy(path, tmp_path)
    [data] = tmp_path.glob("model.ckpt.data-*")
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(
        UsageError,
        match=r"model\.ckpt: it is damaged at the variable InceptionResnetV2/[^\n]*; give",
    ):
        checkpoints.verify(str(tmp_path / "model.ckpt"))
