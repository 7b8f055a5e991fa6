"""Tests of URL lists in every supported form, and of the errors for invalid ones."""

import bz2
import collections
import contextlib
import dataclasses
import email.message
import gzip
import http.server
import io
import json
import lzma
import os
import random
import re
import shutil
import tarfile
import tempfile
import threading
import tracemalloc
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from beam_pipeline.config import Config, UsageError
from beam_pipeline.elements import Extent, Failure, ImageRef, Problem
from beam_pipeline.fetching.http_urls import check_url
from beam_pipeline.sources import json_lines, parquet_table, text_lines
from beam_pipeline.sources.id_files import read_digests
from beam_pipeline.sources.listing import check_readable, read_refs, refuse_pipe, wordnet_id
from beam_pipeline.sources.source import stem
from beam_pipeline.sources.text_list import parse_line

LINES = b"http://a.example/1.jpg\nn02084071_7\thttp://b.example/2.jpg\n"
REFS = [ImageRef("", "http://a.example/1.jpg"), ImageRef("n02084071_7", "http://b.example/2.jpg")]
BOM = b"\xef\xbb\xbf"


def read(input: Path | str, **options) -> tuple[list[ImageRef], dict[str, int]]:
    """Return the images of a list, and the counts."""
    counts: collections.Counter[str] = collections.Counter()
    refs = list(read_refs(Config(input=str(input), output="out", **options), counts))
    # Tests of classes look at them themselves.
    refs = [dataclasses.replace(ref, image_class="") for ref in refs]
    return refs, {"lines": counts["lines"], "ignored": counts["ignored"]}


def read_bytes(folder: Path, data: bytes, **options) -> tuple[list[ImageRef], dict[str, int]]:
    path = folder / "list"
    path.write_bytes(data)
    return read(path, **options)


def ref_of(path: Path | str) -> ImageRef:
    """Return the image of a file."""
    return ImageRef(stem(str(path)), str(path), location=Extent(str(path)))


def refusal(input: Path | str) -> str:
    """Return the message for a list that cannot be read; it always names the list."""
    with pytest.raises(UsageError) as caught:
        read(input)
    assert str(input) in str(caught.value)
    return str(caught.value)


def make_tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    """Return an archive of files; a name that ends in a slash is a folder."""
    compressed = io.BytesIO()
    with tarfile.open(fileobj=compressed, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            archive.addfile(member, io.BytesIO(data))
    return compressed.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": lambda data: gzip.compress(data, 1),
    "bz2": lambda data: bz2.compress(data, 1),
    "tgz": lambda data: make_tar({"urls": data}),
    "tar": lambda data: make_tar({"urls": data}, "w"),
}


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return the bytes of an HTTP response."""
    return (
        "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *headers, "", ""]).encode() + body
    )


@contextlib.contextmanager
def serving(answers: dict[str, bytes]) -> Iterator[tuple[str, list[email.message.Message]]]:
    """Run a web server on this machine. Yield its address and the headers of its requests."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.headers)
            self.wfile.write(answers[self.path])

        def log_message(self, *unused):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def long_list() -> bytes:
    """Return a list that compression does not shrink."""
    noise = random.Random(0)
    return b"".join(
        b"http://a.example/%s.jpg\n" % noise.randbytes(20).hex().encode() for _ in range(5000)
    )


# Lines.


@pytest.mark.parametrize(
    ("line", "ref"),
    [
        (b"http://a.example/1.jpg", ImageRef("", "http://a.example/1.jpg")),
        (
            b"n00004475_6590\thttp://a.example/1.jpg\n",
            ImageRef("n00004475_6590", "http://a.example/1.jpg"),
        ),
        (b"n1_2 http://a.example/1.jpg\n", ImageRef("n1_2", "http://a.example/1.jpg")),
        (b"n1_2 \t  http://a.example/1.jpg \r\n", ImageRef("n1_2", "http://a.example/1.jpg")),
        (b"  http://a.example/1.jpg\r\n", ImageRef("", "http://a.example/1.jpg")),
        (b"n1_2 a dog http://a.example/1.jpg\n", ImageRef("n1_2", "http://a.example/1.jpg")),
        (b"http://a.example/1,2,3.jpg?x=a,b\n", ImageRef("", "http://a.example/1,2,3.jpg?x=a,b")),
        (b"n1_2,http://a.example/1.jpg\n", ImageRef("", "n1_2,http://a.example/1.jpg")),
        (b'http://a.example/"1".jpg\n', ImageRef("", 'http://a.example/"1".jpg')),
        (b"http://a.example/#2\n", ImageRef("", "http://a.example/#2")),
        (BOM + b"n1_2\thttp://a.example/1.jpg\n", ImageRef("n1_2", "http://a.example/1.jpg")),
        (BOM + b" http://a.example/1.jpg\n", ImageRef("", "http://a.example/1.jpg")),
        (b"n1_2\v\fhttp://a.example/1.jpg\n", ImageRef("n1_2", "http://a.example/1.jpg")),
        (b"n1\x1c2\thttp://a.example/1.jpg\n", ImageRef("n1\x1c2", "http://a.example/1.jpg")),
        ("http://a.example/é.jpg\n".encode(), ImageRef("", "http://a.example/é.jpg")),
        ("ñ\thttp://a.example/é.jpg\n".encode("latin-1"), ImageRef("ñ", "http://a.example/é.jpg")),
        ("http://a.example/犬.jpg\n".encode(), ImageRef("", "http://a.example/犬.jpg")),
        # In Latin-1 these bytes are control and space characters, which are frequent in the URLs of
        # old lists.
        (
            b"n1_2\thttp://a.example/\xe9/\x85\xa0.jpg\n",
            ImageRef("n1_2", "http://a.example/é/\x85\xa0.jpg"),
        ),
    ],
)
def test_parse_line(line, ref):
    assert parse_line(line) == ref


# Lists.


def test_plain_list(tmp_path):
    assert read_bytes(tmp_path, LINES) == (REFS, {"lines": 2, "ignored": 0})


def test_fall11_list(tmp_path):
    data = b"n00004475_6590\thttp://farm4.static.example/3175/2737866473_7958dc8760.jpg\nn00004475_15899\thttp://b.example/a,b.jpg\n"
    refs, _ = read_bytes(tmp_path, data)
    assert refs == [
        ImageRef("n00004475_6590", "http://farm4.static.example/3175/2737866473_7958dc8760.jpg"),
        ImageRef("n00004475_15899", "http://b.example/a,b.jpg"),
    ]


def test_blank_lines_and_comments_are_counted_and_left_out(tmp_path):
    data = b"# a list\n\n" + LINES + b"  \t\r\n  # http://c.example/3.jpg\n#\n"
    assert read_bytes(tmp_path, data) == (REFS, {"lines": 7, "ignored": 5})


@pytest.mark.parametrize(
    "data",
    [
        LINES.replace(b"\n", b"\r\n"),
        LINES.removesuffix(b"\n"),
        LINES.replace(b"\n", b"\r\n").removesuffix(b"\r\n"),
        BOM + LINES,
        BOM + LINES.replace(b"\n", b"\r\n"),
        LINES.replace(b"\n", b"\r"),
        BOM + LINES.replace(b"\n", b"\r").removesuffix(b"\r"),
    ],
    ids=[
        "crlf",
        "no-last-newline",
        "crlf-no-last-newline",
        "bom",
        "bom-crlf",
        "cr",
        "bom-cr-no-last-newline",
    ],
)
def test_line_ends_and_byte_order_marks_are_no_part_of_a_url(tmp_path, data):
    assert read_bytes(tmp_path, data) == (REFS, {"lines": 2, "ignored": 0})


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_list_of_wide_characters_is_known_by_its_byte_order_mark(tmp_path, encoding, end, pack):
    lines = [f"n1_{index} http://a.example/é犬\U0001f415/{index}.jpg" for index in range(20_000)]
    data = ("\ufeff" + end.join(["# a list", "", *lines])).encode(encoding)
    refs, counts = read_bytes(tmp_path, pack(data))
    assert [f"{ref.id} {ref.url}" for ref in refs] == lines
    assert counts == {"lines": 20_002, "ignored": 2}


def test_a_broken_character_of_a_wide_list_costs_no_other_line(tmp_path):
    lines = ["http://a.example/\ud83d.jpg", "http://a.example/2.jpg", ""]
    refs, _ = read_bytes(
        tmp_path, "\n".join(["\ufeff", *lines]).encode("utf-16-le", "surrogatepass") + b"x"
    )
    assert [ref.url for ref in refs[:2]] == [
        "http://a.example/\ufffd.jpg",
        "http://a.example/2.jpg",
    ]


LONG = 3 * text_lines.MAX_LINE


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["lf", "cr", "crlf"])
@pytest.mark.parametrize(
    "encode",
    [bytes, lambda data: b"\xff\xfe" + data.decode().encode("utf-16-le")],
    ids=["utf-8", "utf-16"],
)
@pytest.mark.parametrize(
    "line",
    [
        b"http://b.example/" + b"x" * LONG,
        b"x" * 40 * LONG,
        b" " * LONG,
        b'{"url": "' + b"x" * LONG + b'"}',
        b"\xc3\xa9" * LONG,
    ],
    ids=["url", "longer-than-a-block", "blank", "json", "two-bytes-a-character"],
)
def test_a_line_that_is_too_long_fails_alone(tmp_path, line, encode, end):
    data = encode(
        b"http://a.example/1.jpg" + end + line + end + b"http://a.example/2.jpg" + end + line
    )
    refs, counts = read_bytes(tmp_path, data)
    assert counts == {"lines": 4, "ignored": 0}
    assert [refs[0].url, refs[2].url] == ["http://a.example/1.jpg", "http://a.example/2.jpg"]
    path = tmp_path / "list"
    detail = "row {} has a line longer than 65,536 bytes"
    assert [refs[1], refs[3]] == [
        ImageRef("", f"{path}#{row}", problem=Problem("invalid_url", detail.format(row)))
        for row in (2, 4)
    ]


def test_the_longest_line_is_a_line_like_any_other(tmp_path):
    url = "http://a.example/" + "x" * text_lines.MAX_LINE
    for length, is_long in ((text_lines.MAX_LINE - 1, False), (text_lines.MAX_LINE, True)):
        [ref], _ = read_bytes(tmp_path, url[:length].encode() + b"\n")
        assert (ref.problem is not None) == is_long
        assert is_long or ref.url == url[:length]


def test_a_bomb_of_one_line_takes_little_memory(tmp_path):
    path = tmp_path / "urls.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(100):
            file.write(b"x" * 2**20)
    tracemalloc.start()
    try:
        refs, _ = read(path)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()
    assert [ref.problem is not None for ref in refs] == [True]


BINARY = {
    "zip": b"PK\x03\x04\x14\0\0\0",
    "zip-of-nothing": b"PK\x05\x06" + bytes(18),
    "7z": b"7z\xbc\xaf\x27\x1c\0\x04",
    "rar": b"Rar!\x1a\x07\x01\0",
    "xz": lzma.compress(LINES),
    "zstd": b"\x28\xb5\x2f\xfd\x24\x0ehttp",
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    "utf-16-without-a-mark": LINES.decode().encode("utf-16-le"),
}


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("data", BINARY.values(), ids=BINARY)
def test_what_is_no_text_is_refused(tmp_path, data, pack):
    path = tmp_path / "urls.txt"
    path.write_bytes(pack(data))
    assert re.search("unpack it, or save it as text|as UTF-8 text", refusal(path))


@pytest.mark.parametrize("first", [b"# a list\n", b"\r\n", b" \t# a list\r\n"])
def test_a_byte_order_mark_hides_no_comment_or_blank_line(tmp_path, first):
    assert read_bytes(tmp_path, BOM + first + LINES) == (REFS, {"lines": 3, "ignored": 1})


@pytest.mark.parametrize("odd", [b"\x1c", b"\x85", b"\xa0", "\u3000".encode(), BOM], ids=ascii)
def test_a_line_of_odd_spaces_ends_nothing(tmp_path, odd):
    refs, counts = read_bytes(tmp_path, odd + b"\n" + LINES)
    assert refs[-2:] == REFS
    assert counts["lines"] == 3 == counts["ignored"] + len(refs)


def test_an_empty_list_holds_nothing(tmp_path):
    assert read_bytes(tmp_path, b"") == ([], {"lines": 0, "ignored": 0})


def test_duplicate_urls_are_left_to_the_graph(tmp_path):
    assert read_bytes(tmp_path, LINES + LINES) == (REFS + REFS, {"lines": 4, "ignored": 0})


@pytest.mark.parametrize(
    ("stage", "is_retried"), [("fetch", True), ("decode", True), ("read", False)]
)
def test_failures_of_an_earlier_run_are_a_list(tmp_path, stage, is_retried):
    failures = [
        Failure(ref, stage, "http_503", "503 Service Unavailable", 3, "http://elsewhere.example/")
        for ref in REFS
    ]
    path = tmp_path / "failures-00000-of-00001.jsonl"
    path.write_text("".join(json.dumps(failure.as_json()) + "\n" for failure in failures))
    refs = [dataclasses.replace(ref, is_retried=is_retried) for ref in REFS]
    assert read(path) == (refs, {"lines": 2, "ignored": 0})


# --skip and --count.


@pytest.mark.parametrize(
    ("skip", "count", "kept"),
    [
        *(
            (0, None, range(0, 10)),
            (3, None, range(3, 10)),
            (0, 4, range(0, 4)),
            (3, 4, range(3, 7)),
            (9, 5, range(9, 10)),
        ),
        *((10, None, range(0)), (50, 5, range(0)), (0, 10, range(10)), (0, 99, range(10))),
    ],
)
def test_skip_and_count_are_of_images_and_not_of_lines(tmp_path, skip, count, kept):
    data = b"".join(b"# comment\n\nhttp://a.example/%d\n" % index for index in range(10))
    refs, counts = read_bytes(tmp_path, data, skip=skip, count=count)
    assert [ref.url for ref in refs] == [f"http://a.example/{number}" for number in kept]
    assert counts == {"lines": 30, "ignored": 30 - len(kept)}


LINE = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [
            b"",
            b"#",
            b" ",
            b"\r",
            b"\x85",
            b"\xa0",
            "\u3000".encode(),
            BOM,
            BOM + b"#",
            b"{",
            b"{}",
            b'{"url": 1}',
        ]
    ),
    st.builds(lambda text: text.encode(), st.text(max_size=8)),
    st.builds(
        lambda text: json.dumps({"id": text, "url": text}).encode(),
        st.text(st.characters(), max_size=8),
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(LINE, max_size=8), st.integers(0, 9), st.one_of(st.none(), st.integers(1, 9)))
@example([b"\x1c"], 0, None)
@example([b"\x1f\x8b\x08"], 0, None)
@example([b"BZh9"], 0, None)
@example([b"PK\x03\x04"], 0, None)
@example([b"PAR1"], 0, None)
def test_counts_add_up_for_any_list(lines, skip, count):
    data = b"\n".join(lines)
    with tempfile.TemporaryDirectory() as folder:
        assume(not json_lines.recognizes("list", data))
        damaged = (b"\x1f\x8b", b"BZh", parquet_table.MAGIC, *text_lines.NOT_LISTS)
        if data.startswith(damaged) or b"\0" in data:
            with pytest.raises(UsageError, match="list"):
                read_bytes(Path(folder), data)
            return
        everything, all_counts = read_bytes(Path(folder), data)
        refs, counts = read_bytes(Path(folder), data, skip=skip, count=count)
    number = len(data.splitlines())
    assert counts["lines"] == all_counts["lines"] == number
    assert all_counts["ignored"] + len(everything) == number
    assert counts["ignored"] + len(refs) == number
    assert refs == everything[skip:][:count]
    for ref in everything:
        assert ref.name
        assert ref.id.encode() is not None
        check_url(ref)


# Compressed lists.


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(LINES),
        gzip.compress(LINES[:20]) + gzip.compress(LINES[20:]),
        bz2.compress(LINES),
        bz2.compress(LINES[:20]) + bz2.compress(LINES[20:]),
        make_tar({"urls.txt": LINES}),
        make_tar({"urls/": b"", "urls/urls.txt": LINES}),
        make_tar({"urls.txt": LINES}, "w"),
        make_tar({"urls.txt": LINES}, "w:bz2"),
        gzip.compress(BOM + LINES),
    ],
    ids=[
        "gz",
        "gz-two-members",
        "bz2",
        "bz2-two-streams",
        "tgz",
        "tgz-folder",
        "tar",
        "tar.bz2",
        "gz-bom",
    ],
)
@pytest.mark.parametrize("name", ["urls", "urls.txt"])
def test_compressed_lists_are_recognized_by_their_bytes(tmp_path, data, name):
    path = tmp_path / name
    path.write_bytes(data)
    assert read(path) == (REFS, {"lines": 2, "ignored": 0})


@pytest.mark.parametrize("name", ["urls.gz", "urls.bz2", "urls.tgz", "urls.tar"])
def test_compressed_lists_may_have_their_usual_names(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(PACKERS[name.removeprefix("urls.")](LINES))
    assert read(path) == (REFS, {"lines": 2, "ignored": 0})


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_long_lists_are_read_to_their_end(tmp_path, pack):
    data = long_list() * 8
    assert len(data) > 2 * 2**20
    refs, counts = read_bytes(tmp_path, pack(data))
    assert [ref.url for ref in refs] == data.decode().split()
    assert counts == {"lines": 40_000, "ignored": 0}


def test_an_archive_of_two_lists_is_refused(tmp_path):
    path = tmp_path / "urls.tgz"
    path.write_bytes(make_tar({"train.txt": LINES, "test.txt": LINES}))
    assert "more than one file" in refusal(path)


@pytest.mark.parametrize(
    "data",
    [make_tar({"urls/": b""}), make_tar({"urls": b""}), make_tar({}), make_tar({}, "w")],
    ids=["tgz-folder", "tgz-empty-list", "tgz-empty", "tar-empty"],
)
def test_an_archive_without_a_list_holds_nothing(tmp_path, data):
    assert read_bytes(tmp_path, data) == ([], {"lines": 0, "ignored": 0})


@pytest.mark.parametrize("packing", ["gz", "bz2", "tgz", "tar"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_list_is_refused(tmp_path, packing, part):
    compressed = PACKERS[packing](long_list())
    path = tmp_path / f"urls.{packing}"
    path.write_bytes(compressed[: int(len(compressed) * part)])
    refusal(path)


@pytest.mark.parametrize("packing", ["gz", "bz2", "tgz"])
@pytest.mark.parametrize("part", [0.01, 0.3, 0.9])
def test_a_damaged_list_is_refused(tmp_path, packing, part):
    compressed = PACKERS[packing](long_list())
    position = int(len(compressed) * part)
    path = tmp_path / f"urls.{packing}"
    path.write_bytes(compressed[:position] + b"\xff" * 40 + compressed[position + 40 :])
    refusal(path)


# Locations of lists.


def test_a_glob_takes_its_lists_in_order(tmp_path):
    for number in (2, 0, 1):
        (tmp_path / f"urls-{number}.txt").write_bytes(b"http://a.example/%d\n" % number)
    (tmp_path / "other.txt").write_bytes(LINES)
    refs, counts = read(tmp_path / "urls-*.txt")
    assert [ref.url for ref in refs] == [
        "http://a.example/0",
        "http://a.example/1",
        "http://a.example/2",
    ]
    assert counts == {"lines": 3, "ignored": 0}


def test_a_glob_may_take_lists_that_are_compressed_in_different_ways(tmp_path):
    (tmp_path / "urls-0.txt").write_bytes(LINES)
    (tmp_path / "urls-1.gz").write_bytes(gzip.compress(BOM + LINES))
    (tmp_path / "urls-2.tgz").write_bytes(make_tar({"urls": LINES}))
    refs, counts = read(tmp_path / "urls-*", skip=1, count=4)
    assert refs == (REFS * 3)[1:5]
    assert counts == {"lines": 6, "ignored": 2}


@pytest.mark.parametrize(
    "pattern", ["urls.txt", "./urls.txt", "*.txt", "./*.txt", "url?.txt", "../here/urls.txt"]
)
def test_a_list_may_be_named_from_the_current_folder(tmp_path, monkeypatch, pattern):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("urls.txt").write_bytes(LINES)
    assert read(pattern) == (REFS, {"lines": 2, "ignored": 0})


def test_a_list_that_is_not_there_is_refused(tmp_path):
    assert "matches no file" in refusal(tmp_path / "urls.txt")
    assert "matches no file" in refusal(tmp_path / "*.txt")
    assert "matches no file" in refusal(tmp_path / "folder" / "urls.txt")


def test_a_folder_is_no_list(tmp_path):
    refusal(tmp_path)


def test_a_filesystem_that_is_not_known_is_refused():
    refusal("nosuch://bucket/urls.txt")


# Pipes.


@contextlib.contextmanager
def piping(data: bytes, path: Path | None = None) -> Iterator[str]:
    """Yield the path of a pipe into which a thread writes once."""
    if path:
        os.mkfifo(path)
        reader, name = None, str(path)
    else:
        reader, writer = os.pipe()
        name = f"/dev/fd/{reader}"

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), open(path or writer, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield name
    finally:
        if reader is not None:
            os.close(reader)
        thread.join(10)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_a_list_from_a_pipe_is_read_as_often_as_it_is_needed(tmp_path, pack, named):
    data = long_list()
    with piping(pack(data), tmp_path / "pipe" if named else None) as path:
        config = Config(input=path, output="out")
        check_readable(config)
        for same in (config, Config(input=path, output="out")):
            counts: collections.Counter[str] = collections.Counter()
            assert [ref.url for ref in read_refs(same, counts)] == data.decode().split()
            assert counts["lines"] == 5000


def test_two_readers_of_a_pipe_do_not_disturb_each_other(tmp_path):
    with piping(long_list()) as path:
        config = Config(input=path, output="out")
        one, other = (read_refs(config, collections.Counter()) for _ in range(2))
        assert all(ref == again for ref, again in zip(one, other, strict=True))


def test_a_pipe_is_forgotten_with_the_options(tmp_path):
    for data in (LINES, LINES.replace(b"http", b"https")):
        with piping(data, tmp_path / "pipe") as path:
            assert read(path)[0] == [parse_line(line) for line in data.splitlines()]
        Path(path).unlink()


def test_a_pipe_that_would_fill_the_disk_is_refused(monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=2 * len(LINES) - 2)
    )
    with piping(LINES) as path:
        assert "half of the disk" in refusal(path)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero"])
def test_a_device_is_no_list(path):
    assert "is a device" in refusal(path)


def test_workers_elsewhere_cannot_read_a_pipe(tmp_path):
    with (
        piping(LINES) as path,
        pytest.raises(UsageError, match=r"is a pipe, .* Save the list to a file"),
    ):
        refuse_pipe(Config(input=path, output="out"))
    (tmp_path / "urls.txt").write_bytes(LINES)
    refuse_pipe(Config(input=str(tmp_path / "urls.txt"), output="out"))
    refuse_pipe(Config(input="http://127.0.0.1/urls.txt", output="out"))


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("sized", [True, False])
def test_a_list_behind_a_url(pack, sized):
    body = pack(LINES)
    headers = [f"Content-Length: {len(body)}"] if sized else []
    with serving({"/urls?version=2": answer(body, *headers)}) as (address, requests):
        assert read(f"{address}/urls?version=2") == (REFS, {"lines": 2, "ignored": 0})
    [request] = requests
    assert request["User-Agent"].startswith("beam_pipeline/")


def test_a_list_behind_a_redirect():
    moved = answer(b"", "Location: /new", "Content-Length: 0", status="301 Moved Permanently")
    with serving({"/old": moved, "/new": answer(LINES, f"Content-Length: {len(LINES)}")}) as (
        address,
        _,
    ):
        assert read(f"{address}/old")[0] == REFS


def test_a_list_in_chunks():
    chunks = (
        b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in LINES.splitlines(keepends=True))
        + b"0\r\n\r\n"
    )
    with serving({"/urls": answer(chunks, "Transfer-Encoding: chunked")}) as (address, _):
        assert read(f"{address}/urls")[0] == REFS


@pytest.mark.parametrize("status", ["404 Not Found", "403 Forbidden", "500 Internal Server Error"])
def test_a_list_that_a_server_does_not_give_is_refused(status):
    with serving({"/urls": answer(LINES, f"Content-Length: {len(LINES)}", status=status)}) as (
        address,
        _,
    ):
        assert status[:3] in refusal(f"{address}/urls")


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_a_list_whose_server_breaks_off_is_refused(pack):
    body = pack(long_list())
    cut = answer(body[: len(body) // 2], f"Content-Length: {len(body)}")
    with serving({"/urls": cut}) as (address, _):
        refusal(f"{address}/urls")


def test_a_list_in_chunks_whose_server_breaks_off_is_refused():
    cut = answer(b"%x\r\n%s\r\n40\r\nhttp://b" % (len(LINES), LINES), "Transfer-Encoding: chunked")
    with serving({"/urls": cut}) as (address, _):
        refusal(f"{address}/urls")


def test_a_list_whose_server_is_not_there_is_refused():
    with serving({}) as (address, _):
        pass
    refusal(f"{address}/urls")


@pytest.mark.parametrize("path", ["/two words.txt", "/é.txt"])
def test_a_url_of_a_list_that_no_request_can_hold_is_refused(path):
    with serving({}) as (address, _):
        refusal(address + path)


@pytest.mark.parametrize(
    "url", ["http://[::1/urls.txt", "http://127.0.0.1:port/urls.txt", "http:///urls.txt"]
)
def test_a_url_of_a_list_that_is_none_is_refused(url):
    refusal(url)


# --images.


def read_images(pattern: Path | str, **options) -> tuple[list[ImageRef], dict[str, int]]:
    counts: collections.Counter[str] = collections.Counter()
    refs = list(read_refs(Config(images=str(pattern), output="out", **options), counts))
    # Tests of classes look at them themselves.
    refs = [dataclasses.replace(ref, image_class="") for ref in refs]
    return refs, {"lines": counts["lines"], "ignored": counts["ignored"]}


def test_images_are_taken_in_the_order_of_a_hash(tmp_path):
    for name in ("b.jpg", "a, b.jpg", "é.jpg", "a.png"):
        (tmp_path / name).write_bytes(b"data")
    (tmp_path / "folder.jpg").mkdir()
    refs, counts = read_images(tmp_path / "*.jpg")
    expected = [ref_of(tmp_path / name) for name in ("a, b.jpg", "b.jpg", "é.jpg")]
    assert refs == sorted(expected, key=lambda ref: ref.name)
    assert counts == {"lines": 3, "ignored": 0}


def test_skip_and_count_hold_for_images_too(tmp_path):
    for index in range(10):
        (tmp_path / f"{index}.jpg").write_bytes(b"data")
    refs, counts = read_images(tmp_path / "*.jpg", skip=2, count=3)
    assert sorted(Path(ref.url).name for ref in refs) == ["2.jpg", "3.jpg", "4.jpg"]
    assert counts == {"lines": 5, "ignored": 2}, "the listing ends at --count"


@pytest.mark.parametrize(
    "pattern", ["photos/*.jpg", "./photos/*.jpg", "*/*.jpg", "ph*/1.jpg", "photos/1.jpg"]
)
def test_images_may_be_named_from_the_current_folder(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("photos/1.jpg").write_bytes(b"data")
    refs, counts = read_images(pattern)
    assert [Path(ref.url) for ref in refs] == [Path("photos/1.jpg")]
    assert counts == {"lines": 1, "ignored": 0}


@pytest.mark.parametrize("name", ["#1.jpg", "  ", '{"url": "x"}', " # .jpg"])
def test_a_path_is_no_comment_and_no_blank(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(f"{name}s").mkdir()
    Path(f"{name}s/{name}").write_bytes(b"data")
    refs, counts = read_images(f"{name}s/*")
    assert refs == [ref_of(f"{name}s/{name}")]
    assert counts == {"lines": 1, "ignored": 0}


def test_a_file_name_that_is_not_utf8_costs_no_other_image(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"data")
    try:
        Path(os.fsdecode(bytes(tmp_path) + b"/\xe9.jpg")).write_bytes(b"data")
    except OSError:
        pytest.skip("this filesystem has UTF-8 names only")
    refs, counts = read_images(tmp_path / "*.jpg")
    assert len({ref.name for ref in refs}) == counts["lines"] == 2


ODD = ["b[1].jpg", "c\\d.jpg", "e*.jpg", "f?.jpg", "[g].jpg", "h!.jpg", "new\nline.jpg"]


@pytest.mark.parametrize("folder", ["plain", "br[1]", "back\\slash", "st*r", "qu?stion", "[x]/[y]"])
def test_no_image_is_lost_for_its_name(tmp_path, folder):
    inside = tmp_path / folder
    inside.mkdir(parents=True)
    for name in ODD:
        (inside / name).write_bytes(b"data")
    refs, _ = read_images(inside / "*.jpg")
    assert sorted(ref.url for ref in refs) == sorted(str(inside / name) for name in ODD)
    for name in ODD[:-1]:
        assert read_images(inside / name)[0] == [ref_of(inside / name)]


@pytest.mark.parametrize("name", ODD[:-1])
def test_a_list_may_have_any_name(tmp_path, name):
    for path in (tmp_path / name, tmp_path / "br[1]" / name):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(LINES)
        assert read(path)[0] == REFS
        assert read(path.parent / f"{name[0]}*")[0] == REFS


def test_images_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"--images .*/\*\.jpg matches no file"):
        read_images(tmp_path / "*.jpg")


# Checks before any fetch.


@pytest.mark.parametrize(
    "data",
    [b"", b"\n\n", b"# nothing\n \n", PACKERS["gz"](b"\n"), PACKERS["tgz"](b"#\n")],
    ids=range(5),
)
def test_check_readable_refuses_a_list_without_a_url(tmp_path, data):
    path = tmp_path / "urls.txt"
    path.write_bytes(data)
    with pytest.raises(UsageError, match="contains no URL") as caught:
        check_readable(Config(input=str(path), output="out"))
    assert str(path) in str(caught.value)


def test_check_readable_refuses_what_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="matches no file"):
        check_readable(Config(input=str(tmp_path / "urls.txt"), output="out"))
    with pytest.raises(UsageError, match="matches no file"):
        check_readable(Config(images=str(tmp_path / "*.jpg"), output="out"))


@pytest.mark.parametrize("options", [{}, {"skip": 1}, {"count": 1}])
def test_check_readable_accepts_a_list_with_a_url(tmp_path, options):
    path = tmp_path / "urls.txt"
    path.write_bytes(b"# a list\n" + LINES)
    check_readable(Config(input=str(path), output="out", **options))


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://a.example/1.jpg",
            "https://a.example",
            "HTTP://A.EXAMPLE/1.JPG",
            "http://a.example:8080/?a=1,2&b=%20#x",
        ),
        *(
            "http://127.0.0.1/1.jpg",
            "http://[::1]/1.jpg",
            "http://münchen.example/é.jpg",
            "http://user:secret@a.example/",
        ),
        *("http://a_b.example/1.jpg", "http://a.example/[1].jpg", "http://a.example/100%.jpg"),
    ],
)
def test_check_url_accepts_what_can_be_asked_for(url):
    assert check_url(ImageRef("", url)) is None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        *(
            (url, "invalid_url")
            for url in ("", "1.jpg", "a.example/1.jpg", "/photos/1.jpg", "//a.example/1.jpg", "\0")
        ),
        *(
            (url, "invalid_url")
            for url in ("http://", "http:///1.jpg", "http://:80/1.jpg", "http:1.jpg", "http://?x")
        ),
        *(
            (url, "invalid_url")
            for url in ("http://[::1/1.jpg", "http://a.example:99999/", "http://a.example:port/")
        ),
        *(
            (url, "invalid_url")
            for url in ("http://[79]x@/", "http://[79] @a.example/", "http://[a].example/")
        ),
        *(
            (url, "unsupported_scheme")
            for url in ("ftp://a.example/1.jpg", "file:///etc/passwd", "gs://bucket/1.jpg")
        ),
        *(
            (url, "unsupported_scheme")
            for url in ("data:image/png;base64,AAAA", "javascript:alert(1)", "HTTPX://a.example/")
        ),
    ],
)
def test_check_url_returns_the_reason(url, reason):
    ref = ImageRef("n1_2", url)
    failure = check_url(ref)
    assert failure is not None
    assert (failure.ref, failure.stage, failure.reason, failure.attempts) == (
        ref,
        "read",
        reason,
        0,
    )
    assert failure.detail


HOST = st.one_of(
    st.text(max_size=12),
    st.text("0123456789abcdefxX.:[]@%-_\0\xad\u200b①。", max_size=14),
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map("[{}]".format),
)
URL = st.one_of(
    st.text(max_size=20),
    st.builds(
        "{}://{}{}".format,
        st.sampled_from(["http", "https", "HTTP", "ftp"]),
        HOST,
        st.text(max_size=8),
    ),
)


@settings(max_examples=500, deadline=None)
@given(URL)
@example("http://[79]x@/")
@example("http://[")
def test_check_url_never_raises(url):
    failure = check_url(ImageRef("", url))
    assert failure is None or (
        failure.stage == "read" and failure.reason in ("invalid_url", "unsupported_scheme")
    )


# --exclude_sha256.

DIGESTS = frozenset({"0" * 64, "f" * 64})


@pytest.mark.parametrize(
    "data",
    [
        b"%s\n%s\n" % (b"0" * 64, b"F" * 64),
        b"# bodies\r\r" + b"0" * 64 + b"  caf\xe9\x85.jpg\r" + b"f" * 64,
        BOM + b"0" * 64 + b"\r\n\r\n" + b"f" * 64 + b" *a.jpg\r\n",
        ("\ufeff" + "0" * 64 + "\r\n" + "f" * 64).encode("utf-16-le"),
    ],
    ids=["plain", "cr-latin-1", "bom-crlf", "utf-16"],
)
def test_digests_are_read_as_lists_are(tmp_path, data):
    (tmp_path / "digests").write_bytes(data)
    assert read_digests(str(tmp_path / "digests")) == DIGESTS


@pytest.mark.parametrize(
    "data", [b"x" * LONG, b"0" * 65, bytes(64), gzip.compress(b"0" * 64)], ids=range(4)
)
def test_what_is_no_digest_is_refused_in_a_short_line(tmp_path, data):
    (tmp_path / "digests").write_bytes(data)
    with pytest.raises(UsageError, match=r"--exclude_sha256 .* is not a sha256") as caught:
        read_digests(str(tmp_path / "digests"))
    assert len(str(caught.value)) < 1000


def test_digests_without_end_are_refused(tmp_path):
    (tmp_path / "digests").touch()
    os.truncate(tmp_path / "digests", 10**12)
    with pytest.raises(UsageError, match=r"--exclude_sha256 .* is larger than 256 MiB"):
        read_digests(str(tmp_path / "digests"))


def test_digests_from_a_pipe_are_refused(tmp_path):
    with (
        piping(b"0" * 64) as path,
        pytest.raises(UsageError, match=r"--exclude_sha256 .* not a regular file"),
    ):
        read_digests(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=r"--exclude_sha256 .* not a regular file"):
        read_digests(str(tmp_path / "pipe"))


@pytest.mark.parametrize(
    ("image_id", "wnid"),
    [
        ("n00004475_6590", "n00004475"),
        ("n00004475", "n00004475"),
        ("n0000447_6590", ""),
        ("photograph_1", ""),
        ("n000044756_1", ""),
        ("", ""),
    ],
)
def test_wordnet_id(image_id, wnid):
    assert wordnet_id(image_id) == wnid
