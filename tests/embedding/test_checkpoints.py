"""Tests of finding a checkpoint, of every kind of path, and of naming one that is refused."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from beam_pipeline.config import UsageError
from beam_pipeline.embedding import checkpoints

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
            match=rf"{path} has the sha256 {sha256}, but --checkpoint_sha256 is {'0' * 64}$",
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
        match=f"has changed since the run began: its sha256 is {file_sha256(path)}, not {sha256}",
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
        match="lacks the variable InceptionResnetV2/Mixed_6a/Branch_1/Conv2d_0b_3x3/weights",
    ):
        checkpoints.verify(str(path))


def test_names_the_variable_of_another_shape(tmp_path):
    variables = {**ALL_VARIABLES, "InceptionResnetV2/Logits/Logits/biases": [1000]}
    path = write_checkpoint(tmp_path / "a.ckpt", 1, variables)
    with pytest.raises(
        UsageError, match=r"InceptionResnetV2/Logits/Logits/biases has shape \[1000\], not \[1001\]"
    ):
        checkpoints.verify(str(path))


@pytest.mark.parametrize("name", ["nothing.ckpt", "nothing.tar.gz"])
def test_refuses_what_is_not_there(tmp_path, name):
    with pytest.raises(UsageError, match=name):
        checkpoints.verify(str(tmp_path / name))


def test_refuses_what_is_no_checkpoint(tmp_path):
    path = tmp_path / "notes.ckpt"
    path.write_text("not a checkpoint")
    with pytest.raises(
        UsageError,
        match=r"notes\.ckpt is no TensorFlow checkpoint, or it is damaged; give an [^\n]*$",
    ):
        checkpoints.verify(str(path))


def test_refuses_an_index_without_data(v2, tmp_path):
    shutil.copy(f"{v2}.index", tmp_path / "model.ckpt.index")
    with pytest.raises(UsageError, match=r"model\.ckpt is not there"):
        checkpoints.verify(str(tmp_path / "model.ckpt"))


def test_names_the_variable_that_cannot_be_read(v2, tmp_path):
    for path in v2.parent.glob("model.ckpt.*"):
        shutil.copy(path, tmp_path)
    [data] = tmp_path.glob("model.ckpt.data-*")
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(
        UsageError,
        match=r"model\.ckpt is damaged: the variable InceptionResnetV2/.* cannot be read;",
    ):
        checkpoints.verify(str(tmp_path / "model.ckpt"))
