"""Tests that repeated content is found over all commits, with exact counts."""

import collections
import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipeline.config import MAX_REPEATED, REPEATED
from beam_pipeline.metadata import repeated_content
from beam_pipeline.metadata.repeated_content import Repeat


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def test_merges_in_any_order():
    assert (
        repeated_content.merge([(1, "http://b"), (3, "http://a")])
        == repeated_content.merge([(3, "http://a"), (1, "http://b")])
        == (4, "http://a")
    )


def test_keeps_odd_urls(tmp_path):
    bodies = [Repeat(digest(1), 2, "http://a/ b\n\u2028\udcff.jpg")]
    repeated_content.write(str(tmp_path / "bodies"), bodies)
    assert repeated_content.read(str(tmp_path / "bodies")) == bodies


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 12), max_size=20), max_size=6))
def test_counts_over_all_commits(tmp_path_factory, commits):
    folder = tmp_path_factory.mktemp("bodies")
    for index, commit in enumerate(commits):
        counted = collections.Counter(commit).items()
        repeated_content.write(
            str(folder / str(index)),
            [Repeat(digest(body), times, f"http://{index}/{body}") for body, times in counted],
        )
    found = repeated_content.most_repeated(str(path) for path in sorted(folder.iterdir()))
    wanted = collections.Counter(body for commit in commits for body in commit)
    assert {repeat.sha256: repeat.count for repeat in found} == {
        digest(body): times for body, times in wanted.items() if times >= REPEATED
    }
    assert [repeat.count for repeat in found] == sorted(
        (repeat.count for repeat in found), reverse=True
    )
    assert all(digest(int(repeat.url.rpartition("/")[2])) == repeat.sha256 for repeat in found)


def test_lists_only_the_most_frequent(tmp_path):
    bodies = [
        Repeat(digest(index), REPEATED + index, "http://a") for index in range(MAX_REPEATED + 50)
    ]
    repeated_content.write(str(tmp_path / "bodies"), bodies)
    found = repeated_content.most_repeated([str(tmp_path / "bodies")])
    assert len(found) == MAX_REPEATED
    assert found[0].count == REPEATED + MAX_REPEATED + 49


def test_nothing_repeats():
    assert repeated_content.most_repeated([]) == []
