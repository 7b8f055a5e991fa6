"""Tests of the file that holds the images of a part."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipeline.elements import Extent, ImageRef, ListFile, Problem, Row
from beam_pipeline.sources import part_list

texts = st.text(st.characters(), max_size=20)
locations = st.one_of(
    st.none(),
    st.builds(Extent, texts, st.integers(0, 2**40), st.integers(0, 2**40), st.booleans()),
    st.builds(Row, texts, st.integers(0, 99), st.integers(0, 99)),
)
refs = st.builds(
    ImageRef,
    texts,
    texts,
    location=locations,
    image_class=texts,
    is_validation=st.sampled_from([None, True, False]),
    problem=st.one_of(st.none(), st.builds(Problem, texts, texts)),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(refs, max_size=5), st.integers(1, 600))
def test_what_is_read_is_what_was_written(tmp_path_factory, images, repeats):
    path = str(tmp_path_factory.mktemp("list") / "images")
    written = part_list.write(path, images * repeats)
    assert written.path == path
    assert list(part_list.read(written)) == images * repeats


def test_a_file_that_has_changed_is_not_unpickled(tmp_path):
    path = tmp_path / "images"
    written = part_list.write(str(path), [ImageRef("1", "http://a")])
    other = part_list.write(str(path), [ImageRef("2", "http://b")])
    assert [ref.id for ref in part_list.read(other)] == ["2"]
    with pytest.raises(ValueError, match="images has changed since the job was submitted"):
        list(part_list.read(written))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        list(part_list.read(ListFile(str(tmp_path / "nowhere"), "0" * 64)))
