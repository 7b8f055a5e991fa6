"""Only what a run writes is removed."""

from beam_pipeline import outputs

OURS = (
    "dataset.json",
    "failures-00000-of-00001.jsonl",
    "lab_images-00000-of-00002.tfrecord",
    "lab_images-00000-of-00009.tfrecord.gz",
    "val_lab_images-00000-of-00001.tfrecord",
)


def test_removes_what_a_run_writes_and_nothing_else(tmp_path):
    kept = ["notes.txt", "images-00000-of-00001.tfrecord", "report.html"]
    for name in (*kept, *OURS):
        (tmp_path / name).write_text(name)
    for folder in ("beam-temp-lab_images-1", "beam-temp-failures-2"):
        (tmp_path / folder).mkdir()
    (tmp_path / "beam-temp-lab_images-1" / "shard").write_text("half")
    outputs.remove_dataset(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_removing_nothing_is_fine(tmp_path):
    outputs.remove_dataset(str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()
