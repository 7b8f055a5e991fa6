"""Tests that the parts of a list add up to the list, wherever a run is resumed."""

import collections

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipeline.config import FIRST_PART, MAX_PART, MAX_PART_PER_PROCESS, Config, UsageError
from beam_pipeline.elements import Commit, ListFile
from beam_pipeline.launch import commits
from beam_pipeline.launch.commits import PartSize
from beam_pipeline.metadata.commit_manifest import CommitManifest
from beam_pipeline.sources import listing


def make_config(folder, lines, **options) -> Config:
    (folder / "urls.txt").write_text("".join(f"{line}\n" for line in lines))
    return Config(**{"input": str(folder / "urls.txt"), "output": "out", **options})


def plan(config: Config, size: int, done: list[CommitManifest]):
    return commits.plan(config, lambda: size, done)


def done(commit: Commit) -> CommitManifest:
    return CommitManifest(commit.counts, [], [], [], [], commit.is_last, commit.list_digest, {}, {})


def urls(commit: Commit) -> list[str]:
    assert commit.refs is not None and not isinstance(commit.refs, ListFile)
    return sorted(ref.url for ref in commit.refs)


def test_a_short_list_is_one_commit_whose_files_have_plain_names(tmp_path):
    [commit] = plan(make_config(tmp_path, ["# list", "http://a", "", "http://b"]), 10, [])
    assert urls(commit) == ["http://a", "http://b"]
    assert commit.counts == {"lines": 4, "ignored": 2, "duplicates": 0}
    assert (commit.index, commit.is_last, commit.file_prefix) == (0, True, "")


def test_a_list_that_just_fits_is_one_commit(tmp_path):
    assert len(list(plan(make_config(tmp_path, ["http://a", "http://b", "# end"]), 2, []))) == 1


def test_a_longer_list_is_split(tmp_path):
    first, second, third = plan(
        make_config(
            tmp_path, ["http://a", "#", "http://b", "#", "http://c", "http://d", "http://e", "#"]
        ),
        2,
        [],
    )
    assert [urls(commit) for commit in (first, second, third)] == [
        ["http://a", "http://b"],
        ["http://c", "http://d"],
        ["http://e"],
    ]
    assert [commit.counts["lines"] for commit in (first, second, third)] == [3, 3, 2]
    assert [commit.is_last for commit in (first, second, third)] == [False, False, True]
    assert [commit.file_prefix for commit in (first, second, third)] == [
        "00000-",
        "00001-",
        "00002-",
    ]


def test_duplicates_of_earlier_commits_are_dropped_and_counted(tmp_path):
    first, second = plan(
        make_config(tmp_path, ["1 http://a", "2 http://b", "3 http://a", "4 http://c"]), 2, []
    )
    assert urls(first) == ["http://a", "http://b"]
    assert urls(second) == ["http://c"]
    assert second.counts == {"lines": 2, "ignored": 0, "duplicates": 1}


lists = st.lists(
    st.one_of(st.integers(0, 30).map("http://a/{}".format), st.sampled_from(["", "# comment"])),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(
    lines=lists,
    size=st.integers(1, 20),
    resumed_size=st.integers(1, 20),
    stop=st.integers(0, 60),
    skip=st.integers(0, 5),
)
def test_nothing_is_lost_or_taken_twice_wherever_a_run_is_taken_up(
    tmp_path_factory, lines, size, resumed_size, stop, skip
):
    config = make_config(tmp_path_factory.mktemp("list"), lines, skip=skip)
    before = list(plan(config, size, []))[:stop]
    if before and before[-1].is_last:
        before = before[:-1]
    after = list(plan(config, resumed_size, [done(commit) for commit in before]))
    counts: collections.Counter[str] = collections.Counter()
    refs = list(listing.read_refs(config, counts))
    # Within one commit, the graph drops the duplicates.
    taken = [url for commit in (*before, *after) for url in dict.fromkeys(urls(commit))]
    assert sorted(taken) == sorted({ref.url for ref in refs})
    assert [commit.index for commit in (*before, *after)] == list(range(len(before) + len(after)))
    assert [commit.is_last for commit in (*before, *after)] == [False] * (
        len(before) + len(after) - 1
    ) + [True]
    reported: collections.Counter[str] = collections.Counter()
    for commit in (*before, *after):
        reported.update(commit.counts)
        reported.update({"refs": len(urls(commit))})
    assert (reported["lines"], reported["ignored"]) == (len(lines), counts["ignored"])
    assert reported["lines"] == reported["ignored"] + reported["duplicates"] + reported["refs"]


@pytest.mark.parametrize("changed", [["http://x", "http://b", "http://c"], ["http://a"], []])
def test_another_list_is_not_taken_for_the_rest(tmp_path, changed):
    first, _ = plan(make_config(tmp_path, ["http://a", "http://b", "http://c"]), 2, [])
    with pytest.raises(UsageError, match=r"urls\.txt has changed"):
        list(plan(make_config(tmp_path, changed), 2, [done(first)]))


def test_neighbours_are_apart_but_equal_ones_keep_their_order(tmp_path):
    [commit] = plan(
        make_config(tmp_path, [f"{number} http://a/{number % 50}" for number in range(100)]),
        100,
        [],
    )
    assert commit.refs is not None and not isinstance(commit.refs, ListFile)
    assert [ref.name for ref in commit.refs] == sorted(ref.name for ref in commit.refs)
    assert all(
        int(first.id) + 50 == int(second.id)
        for first, second in zip(commit.refs[::2], commit.refs[1::2], strict=True)
    )


def test_duplicates_of_commits_before_an_interruption_are_dropped_too(tmp_path):
    config = make_config(tmp_path, ["1 http://a", "2 http://b", "3 http://a", "4 http://c"])
    first, second = plan(config, 2, [])
    [resumed] = plan(config, 2, [done(first)])
    assert urls(resumed) == urls(second) == ["http://c"]
    assert resumed.counts == second.counts == {"lines": 2, "ignored": 0, "duplicates": 1}


def test_the_size_of_parts_may_change_from_part_to_part(tmp_path):
    sizes = iter([1, 3, 2])
    config = make_config(tmp_path, [f"http://a/{number}" for number in range(6)])
    parts = commits.plan(config, lambda: next(sizes), [])
    assert [len(urls(commit)) for commit in parts] == [1, 3, 2]


def test_a_part_takes_about_two_minutes_at_the_measured_rate():
    size = PartSize()
    assert size() == FIRST_PART
    size.adapt(1_000, 100.0)
    assert size() == 1200
    size.adapt(1200, 12_000.0)
    assert size() == 100, "a restart costs less than a part of so few images"
    size.adapt(100, 0.5)
    assert size() == MAX_PART_PER_PROCESS, "the memory of a part is bounded"
    size.adapt(0, 3.0)
    assert size() == MAX_PART_PER_PROCESS, "a part of duplicates has no rate"


def test_more_workers_process_more_images_in_the_same_time():
    size = PartSize(workers=4)
    assert size() == 4 * FIRST_PART
    size.adapt(4000, 1.0)
    assert size() == 4 * MAX_PART_PER_PROCESS
    size = PartSize(workers=64)
    size.adapt(100_000, 1.0)
    assert size() == MAX_PART


def test_a_size_that_was_given_is_kept():
    size = PartSize(fixed=7)
    size.adapt(7, 0.01)
    assert size() == 7
