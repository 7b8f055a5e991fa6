"""Tests that existing output determines the options of a run, and that other files are kept."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from output_folder import make_config, names

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import Shard
from beam_pipeline.launch import existing_output, output_dir
from beam_pipeline.launch.existing_output import ExistingOutput
from beam_pipeline.metadata import commit_manifest


def find(config, exclude_sha256=None) -> ExistingOutput:
    return existing_output.find(config, {"exclude_sha256"}, {"exclude_sha256": exclude_sha256})


def finalize_commit(config, number=0, is_last=False, digests=commit_manifest.NO_DIGESTS) -> str:
    shard = Shard(f"lab_images_{number:05}-00000-of-00001.tfrecord", 1, 10)
    metadata = Shard(f"metadata-{number:05}-00000-of-00001.parquet", 1, 10)
    for name in (shard.name, f"{shard.name}.idx", metadata.name):
        Path(config.output, name).write_text("ten bytes.")
    commit_manifest.finalize_commit(
        config, number, is_last, "", digests, {"lines": 1}, [shard], [], [], [metadata], [], []
    )
    return shard.name


def test_keeps_complete_commits(tmp_path):
    config = make_config(tmp_path)
    kept = finalize_commit(config)
    strays = (
        "lab_images_00001-00000-of-00001.tfrecord",
        "lab_images_00001-00000-of-00001.tfrecord.idx",
        f"lab_images_00001-00000-of-00001.tfrecord.idx.{'0' * 32}.tmp",
        "metadata-00001-00000-of-00001.parquet",
        f"metadata-00001-00000-of-00001.parquet.{'0' * 32}.tmp",
    )
    for name in (*strays, "notes.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "beam-temp-metadata-00001").mkdir()
    (tmp_path / "beam-temp-metadata-00001" / "rows").write_text("rows")
    found = find(config)
    assert found.info is None and len(found.commits) == 1
    output_dir.prepare(config, found.commits)
    metadata = "metadata-00000-00000-of-00001.parquet"
    assert names(tmp_path) == [
        *("commit-00000.json", kept, f"{kept}.idx", metadata, "notes.txt", "run.json")
    ]


def test_a_complete_dataset_is_found(tmp_path):
    config = make_config(tmp_path)
    assert find(config) == ExistingOutput()
    finalize_commit(config, is_last=True)
    found = find(config)
    assert found.info and found.info.counts.examples == 1
    (tmp_path / "commit-00000.json").write_text("left when the run was stopped at its very end")
    output_dir.clear_strays(str(tmp_path), found.info)
    shard = "lab_images_00000-00000-of-00001.tfrecord"
    metadata = "metadata-00000-00000-of-00001.parquet"
    assert names(tmp_path) == [
        *("README.md", "croissant.json", "dataset.json", shard, f"{shard}.idx", metadata)
    ]


@pytest.mark.parametrize("is_last", [False, True])
def test_another_dataset_is_refused_or_replaced(tmp_path, is_last):
    finalize_commit(make_config(tmp_path), is_last=is_last)
    with pytest.raises(UsageError, match="--encoding lab_float32, not rgb_png"):
        find(make_config(tmp_path, encoding="rgb_png"))
    assert find(make_config(tmp_path, encoding="rgb_png", overwrite=True)) == ExistingOutput()


def test_what_does_not_shape_the_dataset_may_change(tmp_path):
    finalize_commit(make_config(tmp_path))
    assert len(find(make_config(tmp_path, fetch_timeout=3, urls_per_commit=7)).commits) == 1


def test_overwriting_resumes_an_interrupted_run_but_not_a_complete_dataset(tmp_path):
    config = make_config(tmp_path, overwrite=True)
    finalize_commit(config)
    assert len(find(config).commits) == 1
    finalize_commit(config, 1, is_last=True)
    assert find(config) == ExistingOutput()


def test_a_run_in_which_no_image_succeeded_may_be_corrected(tmp_path):
    config = make_config(tmp_path, max_failed_fraction=0.1)
    output_dir.prepare(config, [])
    failures = Shard("failures-00000-of-00001.jsonl", 1, 10)
    (tmp_path / failures.name).write_text("ten bytes.")
    with pytest.raises(commit_manifest.CountMismatchError, match="no image succeeded"):
        commit_manifest.finalize_commit(
            config,
            0,
            True,
            "",
            commit_manifest.NO_DIGESTS,
            {"lines": 1, "failures/fetch/dns": 1},
            [],
            [],
            [failures],
            [],
            [],
            [],
        )
    assert len(commit_manifest.read_commits(config.output)) == 1
    for options in ({}, {"encoding": "rgb_png"}, {"overwrite": True}):
        assert find(make_config(tmp_path, **options)) == ExistingOutput()


@pytest.mark.parametrize("name", ["dataset.json", "commit-00000.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"options": 3}'])
def test_a_broken_record_is_named(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match="holds a broken"):
        find(make_config(tmp_path))


def test_a_missing_commit_is_noticed(tmp_path):
    config = make_config(tmp_path)
    for index in range(3):
        finalize_commit(config, index)
    (tmp_path / "commit-00001.json").unlink()
    with pytest.raises(UsageError, match="the record of a part is missing"):
        find(config)
    assert find(make_config(tmp_path, overwrite=True)) == ExistingOutput()


@pytest.mark.parametrize(
    "name",
    [
        "report.html",
        "metrics.json",
        "lab_images_00000-of-00001.tfrecord",
        "failures-00000-of-00001.jsonl",
        "transform/metadata/a",
        "holiday.jpg",
        "src/main.py",
    ],
)
def test_what_no_run_has_written_is_not_replaced(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(
        UsageError, match=f"contains {name.partition('/')[0]}, which no run has written"
    ):
        find(make_config(tmp_path))
    assert find(make_config(tmp_path, overwrite=True)) == ExistingOutput()
    assert (tmp_path / name).read_text() == "mine"


def test_what_a_run_left_before_its_first_record_is_its_own(tmp_path):
    output_dir.prepare(make_config(tmp_path), [])
    (tmp_path / "lab_images_00000-of-00001.tfrecord").write_text("renamed, but not recorded")
    assert find(make_config(tmp_path, encoding="rgb_png")) == ExistingOutput()


def adopt(folder, *given, **options) -> Config:
    return existing_output.adopt_options(
        make_config(folder, **options), {"input", "output", *given}
    )


def test_an_option_that_was_not_given_is_as_the_folder_has_it(tmp_path):
    finalize_commit(make_config(tmp_path, encoding="rgb_png", image_size=64))
    adopted = adopt(tmp_path)
    assert (adopted.encoding, adopted.image_size) == ("rgb_png", 64)
    assert len(find(adopted).commits) == 1
    with pytest.raises(UsageError, match="--encoding rgb_png, not lab_float32"):
        find(adopt(tmp_path, "encoding", encoding="lab_float32"))
    assert adopt(tmp_path, overwrite=True).encoding == "lab_float32"


def test_a_server_that_the_folder_names_is_not_asked(tmp_path):
    options = {"fallback": "wayback", "fallback_url": "https://a.test/web/"}
    finalize_commit(make_config(tmp_path, **options), is_last=False)
    with pytest.raises(UsageError, match=r"begun with --fallback_url https://a.test/web/: give"):
        adopt(tmp_path)
    adopted = adopt(tmp_path, "fallback", "fallback_url", **options)
    assert len(find(adopted).commits) == 1


def test_a_fallback_is_not_that_of_images_which_need_none(tmp_path):
    finalize_commit(make_config(tmp_path, fallback="wayback"), is_last=True)
    adopted = adopt(tmp_path, "images", input=None, images="photographs")
    assert adopted.fallback == "none"
    with pytest.raises(UsageError, match=r"made with --input .*, not without it"):
        find(adopted)


def test_a_dataset_of_images_is_none_of_a_list(tmp_path):
    finalize_commit(make_config(tmp_path, input=None, images="photographs"), is_last=True)
    with pytest.raises(UsageError, match=r"made without --input, not with list\.txt"):
        find(make_config(tmp_path, input="list.txt"))


@pytest.mark.parametrize("is_last", [False, True])
def test_the_size_of_commits_does_not_change_whether_there_are_statistics(tmp_path, is_last):
    finalize_commit(make_config(tmp_path, checkpoint="untrained"), is_last=is_last)
    # By default small commits have no statistics.
    config = make_config(tmp_path, checkpoint="untrained", urls_per_commit=10)
    assert not config.has_statistics
    adopted = existing_output.adopt_options(
        config, {"input", "output", "checkpoint", "urls_per_commit"}
    )
    assert adopted.has_statistics and find(adopted).options["statistics"]


def test_another_content_of_a_file_is_another_dataset(tmp_path):
    options = {"exclude_sha256": "placeholders.txt"}
    finalize_commit(
        make_config(tmp_path, **options), digests={"checkpoint": None, "exclude_sha256": "ab"}
    )
    assert find(make_config(tmp_path, **options), "ab").commits
    # The same content at another path is the same dataset.
    assert find(make_config(tmp_path, exclude_sha256="copy.txt"), "ab").commits
    with pytest.raises(
        UsageError, match="another --exclude_sha256, or with one whose content has changed"
    ):
        find(make_config(tmp_path, **options), "cd")
    with pytest.raises(UsageError, match="another --exclude_sha256"):
        find(make_config(tmp_path))
    assert find(make_config(tmp_path, **options, overwrite=True), "cd") == ExistingOutput()


def test_fresh_signatures_of_urls_make_no_difference(tmp_path):
    url = "https://a.example/urls.txt?X-Amz-Signature={}"
    finalize_commit(make_config(tmp_path, input=url.format("one")))
    assert len(find(make_config(tmp_path, input=url.format("two"))).commits) == 1


@pytest.mark.parametrize(
    ("pattern", "content", "state"),
    [
        ("*.tfrecord", b"ten", "damaged"),
        ("*.tfrecord", None, "missing"),
        ("*.idx", None, "missing"),
        ("*.parquet", b"ten", "damaged"),
        ("*.parquet", None, "missing"),
    ],
)
def test_a_file_of_a_commit_that_is_gone_is_noticed(tmp_path, pattern, content, state):
    config = make_config(tmp_path)
    finalize_commit(config)
    [file] = tmp_path.glob(pattern)
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(UsageError, match=f"{file.name} is {state}"):
        find(config)
    assert find(make_config(tmp_path, overwrite=True)) == ExistingOutput()


SIZES: list[Any] = [16.0, True, "16", None, [], -1]
WRONG: list[dict[str, Any]] = [
    *({"image_size": size} for size in SIZES),
    *(
        {"examples_per_shard": 2.5},
        {"count": "60"},
        {"skip": "0"},
        {"validation_fraction": None},
        {"statistics": "yes"},
    ),
    *({"max_image_pixels": {}}, {"encoding": 3}, {"encoding": "hsv"}),
]


@pytest.mark.parametrize("options", WRONG)
@pytest.mark.parametrize("is_last", [False, True])
def test_options_of_a_wrong_type_are_not_adopted(tmp_path, options, is_last):
    finalize_commit(make_config(tmp_path), is_last=is_last)
    path = tmp_path / ("dataset.json" if is_last else "commit-00000.json")
    record = json.loads(path.read_text())
    record["options"].update(options)
    path.write_text(json.dumps(record))
    with pytest.raises(UsageError, match="holds a broken"):
        adopt(tmp_path)


def test_a_file_that_only_a_record_names_is_neither_read_nor_downloaded(tmp_path):
    url = "https://a.example/model.ckpt?token=s3cr3t"
    finalize_commit(make_config(tmp_path, checkpoint=url))
    with pytest.raises(
        UsageError,
        match=r"begun with --checkpoint https://a.example/model.ckpt\?token=REDACTED: give that",
    ):
        adopt(tmp_path)
    assert adopt(tmp_path, "checkpoint", checkpoint=url).checkpoint == url


def test_of_a_complete_dataset_no_file_is_read_that_the_user_did_not_name(tmp_path):
    digests = {**commit_manifest.NO_DIGESTS, "checkpoint": "ab", "exclude_sha256": "cd"}
    finalize_commit(
        make_config(tmp_path, checkpoint="model.ckpt", exclude_sha256="ex.txt"),
        is_last=True,
        digests=digests,
    )
    config = adopt(tmp_path, checkpoint="none")
    assert config.exclude_sha256 is None
    assert existing_output.find(config, {"input", "output"}, {"exclude_sha256": None}).info


BROKEN: list[Any] = [
    *(b"[" * 100_000, b"\xff", b"null", b'{"options": {}}'),
    *(
        ("counts", None),
        ("counts", {"lines": "1"}),
        ("files", None),
        ("files", []),
        ("failure_files", [{}]),
    ),
    *(
        ("digests", None),
        ("train", [{"name": 3, "records": 1, "bytes": 10}]),
        ("is_last", 0),
        ("train", None),
    ),
]


@pytest.mark.parametrize("change", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("is_last", [False, True])
def test_a_hostile_record_is_one_clear_line(tmp_path, change, is_last):
    finalize_commit(make_config(tmp_path), is_last=is_last)
    path = tmp_path / ("dataset.json" if is_last else "commit-00000.json")
    if isinstance(change, tuple):
        record = json.loads(path.read_text())
        if change[0] not in record:
            pytest.skip("the record has no such field")
        path.write_text(json.dumps({**record, change[0]: change[1]}))
    else:
        path.write_bytes(change)
    with pytest.raises(UsageError, match="holds a broken"):
        find(make_config(tmp_path))
    assert find(make_config(tmp_path, overwrite=True)) == ExistingOutput()


@pytest.mark.parametrize(
    ("name", "make"),
    [("dataset.json", os.mkfifo), ("dataset.json", os.mkdir), ("commit-00000.json", os.mkfifo)],
)
def test_what_is_no_file_is_no_record(tmp_path, make, name):
    make(tmp_path / name)
    with pytest.raises(UsageError, match="holds a broken"):
        find(make_config(tmp_path))


@pytest.mark.parametrize("content", ["{}", "mine", "[]", '{"started_by": 3}'])
def test_a_mark_of_someone_else_permits_nothing(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UsageError, match=r"contains run\.json, which no run has written"):
        find(make_config(tmp_path))


def test_hidden_files_and_what_options_name_may_be_there(tmp_path):
    for name in (".DS_Store", "lost+found", "run.lock", "urls.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "kept" / "originals").mkdir(parents=True)
    options = {
        "input": str(tmp_path / "urls.txt"),
        "original_dir": str(tmp_path / "kept" / "originals"),
    }
    assert find(make_config(tmp_path, **options)) == ExistingOutput()


def test_a_run_that_failed_before_it_wrote_leaves_a_usable_folder(tmp_path):
    output_dir.prepare(make_config(tmp_path, encoding="rgb_png"), [])
    assert names(tmp_path) == ["run.json"]
    assert find(make_config(tmp_path, encoding="lab_uint8")) == ExistingOutput()
