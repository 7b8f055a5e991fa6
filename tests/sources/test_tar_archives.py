"""Tests that every image of a tar archive is found and read, and that damage costs no more."""

import bz2
import gzip
import os
import tarfile
import tracemalloc
from collections.abc import Callable

import pytest
from archives import (
    WNIDS,
    body,
    end,
    files,
    inner_names,
    list_images,
    make_config,
    make_tar,
    make_train_tar,
    read_bodies,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipeline.config import UsageError
from beam_pipeline.elements import Extent, ImageRef, Problem, Row
from beam_pipeline.sources import registry, tar_archives

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": lambda data: gzip.compress(data, 1),
    "bz2": bz2.compress,
}


def read(path: str, **options) -> list[ImageRef]:
    assert registry.find_images(path) is tar_archives
    return list_images(path, **options)


def problems(refs: list[ImageRef]) -> list[str]:
    return [ref.problem.reason for ref in refs if ref.problem]


def member(name: str, **fields) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize("packer", PACKERS)
def test_a_tar_of_tars(tmp_path, packer):
    path = write(tmp_path / "ILSVRC2012_img_train.tar", PACKERS[packer](make_train_tar()))
    refs = read(path)
    names = [(wnid, name) for wnid in WNIDS for name in inner_names(wnid)]
    assert [(ref.url, ref.id, ref.folder, ref.problem) for ref in refs] == [
        (f"{path}#{wnid}.tar/{name}", name[:-5], wnid, None) for wnid, name in names
    ]
    kind = Extent if packer == "plain" else Row
    assert all(isinstance(ref.location, kind) for ref in refs)
    assert read_bodies(refs) == {f"{path}#{wnid}.tar/{name}": body(name) for wnid, name in names}


@pytest.mark.parametrize("packer", PACKERS)
def test_folders_names_and_other_files(tmp_path, packer):
    names = [
        "val_1.JPEG",
        "./a/b/x.PNG",
        "/absolute/y.gif",
        "../../up.webp",
        "two.dots.jpg",
        "\udce9 é 犬\n.jpeg",
        "folder/" * 40 + "long.tiff",
        ".jpg",
    ]
    others = ["readme.txt2", "jpg", "x.jpg.npy"]
    data = make_tar([*files(*names, *others), member("folder.jpg", type=tarfile.DIRTYPE)])
    refs = read(path := write(tmp_path / "val", PACKERS[packer](data)))
    assert [ref.url for ref in refs] == [f"{path}#{name}" for name in names]
    assert [ref.folder for ref in refs] == [
        "", "a/b", "absolute", "../..", "", "", ("folder/" * 40)[:-1], "",
    ]  # fmt: skip
    assert [ref.id for ref in refs] == [
        "val_1", "x", "y", "up", "two.dots", "\udce9 é 犬\n", "long", "",
    ]  # fmt: skip
    assert read_bodies(refs) == {f"{path}#{name}": body(name) for name in names}
    assert sorted(os.listdir(tmp_path)) == ["val"]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_formats(tmp_path, format):
    name = "folder/" * 20 + "x" * 90 + ".jpg"
    path = write(tmp_path / "x.tar", make_tar(files("a.jpg", name, "b.jpg"), format=format))
    assert read_bodies(read(path)) == {
        f"{path}#{name}": body(name) for name in ("a.jpg", name, "b.jpg")
    }


def test_inner_folders_follow_the_inner_archive(tmp_path):
    inner = make_tar(files("./y/x.jpg"))
    [ref] = read(write(tmp_path / "x.tar", make_tar([("train/n01440764.TAR", inner)])))
    assert ref.url.endswith("#train/n01440764.TAR/./y/x.jpg")
    assert ref.folder == "train/n01440764/y"


@pytest.mark.parametrize("packer", PACKERS)
def test_members_without_their_bytes_are_problems(tmp_path, packer):
    kinds = {
        "symbolic.jpg": tarfile.SYMTYPE,
        "hard.jpg": tarfile.LNKTYPE,
        "device.jpg": tarfile.CHRTYPE,
        "block.jpg": tarfile.BLKTYPE,
        "pipe.jpg": tarfile.FIFOTYPE,
        "unknown.jpg": b"V",
        "class.tar": tarfile.SYMTYPE,
    }
    links = [member(name, type=kind, linkname="/etc/passwd") for name, kind in kinds.items()]
    data = make_tar([*files("a.jpg"), *links, *files("b.jpg")])
    refs = read(path := write(tmp_path / "x.tar", PACKERS[packer](data)))
    assert [ref.url for ref in refs] == [f"{path}#{name}" for name in ["a.jpg", *kinds, "b.jpg"]]
    assert problems(refs) == ["unsupported_member"] * len(kinds)
    assert len(read_bodies(refs)) == 2


def test_sparse_members_are_problems(tmp_path):
    header = bytearray(member("sparse.jpg", type=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    # One piece of 4 bytes at byte 10; a file of 20 bytes.
    header[386:410] = b"%011o\0%011o\0" % (10, 4)
    header[483:495] = b"%011o\0" % 20
    header[124:136] = b"%011o\0" % 4
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    data = bytes(header) + b"data".ljust(512, b"\0") + make_tar(files("b.jpg"))
    pax = member("sparse2.jpg", pax_headers={"GNU.sparse.map": "10,4", "GNU.sparse.size": "20"})
    for archive in (data, make_tar([pax, *files("b.jpg")])):
        refs = read(write(tmp_path / "x.tar", archive))
        assert [ref.problem and ref.problem.reason for ref in refs] == ["unsupported_member", None]
        assert list(read_bodies(refs).values()) == [body("b.jpg")]


@pytest.mark.parametrize("packer", PACKERS)
def test_large_members_are_not_read(tmp_path, packer):
    data = make_tar([("a.jpg", bytes(1001)), ("b.jpg", bytes(1000)), *files("c.jpg")])
    refs = read(write(tmp_path / "x.tar", PACKERS[packer](data)), max_image_bytes=1000)
    assert problems(refs) == ["too_large"]
    assert len(read_bodies(refs, make_config(max_image_bytes=1000))) == 2


@pytest.mark.parametrize("packer", PACKERS)
def test_empty_members_are_problems(tmp_path, packer):
    path = write(tmp_path / "x.tar", PACKERS[packer](make_tar([("a.jpg", b""), *files("b.jpg")])))
    assert [ref.problem and ref.problem.reason for ref in read(path)] == ["empty", None]


def test_one_name_twice_is_two_images(tmp_path):
    refs = read(write(tmp_path / "x.tar", make_tar([("a.jpg", b"1"), ("a.jpg", b"2")])))
    assert refs[0].url == refs[1].url and refs[0].location != refs[1].location


@pytest.mark.parametrize("packer", PACKERS)
def test_one_level_of_inner_archives_is_read(tmp_path, packer):
    data = make_tar([*files("x.jpg")])
    for level in range(3):
        data = make_tar([(f"{level}.tar", data), *files(f"{level}.jpg")])
    refs = read(path := write(tmp_path / "x.tar", PACKERS[packer](data)))
    assert [(ref.url.removeprefix(path), bool(ref.problem)) for ref in refs] == [
        ("#2.tar/1.tar", True),
        ("#2.tar/1.jpg", False),
        ("#2.jpg", False),
    ]
    assert problems(refs) == ["unsupported_member"]


@pytest.mark.parametrize("packer", PACKERS)
def test_a_damaged_inner_archive_costs_only_what_is_behind_its_damage(tmp_path, packer):
    inner = bytearray(make_tar(files(*inner_names("n01440764"))))
    inner[1024] ^= 0xFF  # the second header
    data = make_tar([("n1.tar", bytes(inner)), ("n2.tar", b"no archive"), *files("b.jpg")])
    refs = read(path := write(tmp_path / "x.tar", PACKERS[packer](data)))
    assert [ref.url.removeprefix(path) for ref in refs] == [
        "#n1.tar/n01440764_0.JPEG",
        "#n1.tar",
        "#n2.tar",
        "#b.jpg",
    ]
    assert problems(refs) == ["corrupt_container"] * 2
    assert len(read_bodies(refs)) == 2


def boundaries(data: bytes) -> st.SearchStrategy[int]:
    """Return lengths of a truncated archive, at and beside the ends of blocks."""
    block = st.integers(1, len(data) // 512)
    near = st.builds(lambda number, shift: number * 512 + shift, block, st.integers(-2, 2))
    return st.one_of(near, st.integers(512, len(data))).filter(lambda size: size >= 512)


TRAIN = make_train_tar()
FLAT = make_tar(files("a.jpg", "b/c.png", "x" * 300 + ".jpg", "readme", "d.jpg"))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), archive=st.sampled_from([TRAIN, FLAT]))
def test_a_truncated_archive_costs_what_is_cut_off(tmp_path_factory, data, archive):
    folder = tmp_path_factory.mktemp("tar")
    path = write(folder / "x.tar", archive)
    complete = read(path)
    size = data.draw(boundaries(archive))
    write(folder / "x.tar", archive[:size])
    try:
        refs = read(path)
    except UsageError as error:
        assert "holds no image" in str(error)  # cut where an archive may end
        return
    is_damaged = bool(problems(refs))
    kept = refs[:-1] if is_damaged else refs
    assert kept == complete[: len(kept)]
    assert all(end(ref) <= size for ref in kept)
    missed = complete[len(kept) :]
    assert not missed or end(missed[0]) > size
    if is_damaged:
        assert problems(refs) == ["corrupt_container"]
    elif missed:  # cut at a legal end: between two members of the outer archive
        assert size % 512 == 0


@settings(max_examples=30, deadline=None)
@given(
    data=st.data(), archive=st.sampled_from([TRAIN, FLAT]), packer=st.sampled_from(["gz", "bz2"])
)
def test_a_truncated_compressed_archive(tmp_path_factory, data, archive, packer):
    folder = tmp_path_factory.mktemp("tar")
    packed = PACKERS[packer](archive)
    path = write(folder / "x.tgz", packed)
    complete = read(path)
    write(folder / "x.tgz", packed[: data.draw(st.integers(0, len(packed) - 1))])
    try:
        refs = read(path)
    except UsageError as error:
        assert path in str(error) and len(str(error).splitlines()) == 1
        return
    is_damaged = bool(problems(refs))
    kept = refs[:-1] if is_damaged else refs
    assert kept == complete[: len(kept)]
    assert problems(refs) == ["corrupt_container"] if is_damaged else kept == complete
    assert len(read_bodies(kept)) == len(kept)


@settings(max_examples=100, deadline=None)
@given(
    archive=st.sampled_from([TRAIN, FLAT]),
    place=st.integers(0, len(FLAT) - 1),
    garbage=st.binary(min_size=1, max_size=600),
)
def test_garbage_never_raises_anything_else(tmp_path_factory, archive, place, garbage):
    folder = tmp_path_factory.mktemp("tar")
    path = write(folder / "x.tar", archive[:place] + garbage + archive[place + len(garbage) :])
    try:
        refs = read(path)
    except UsageError as error:
        assert path in str(error)
        return
    assert all(ref.problem or end(ref) <= len(archive) + len(garbage) for ref in refs)


EXTENDED = make_tar(
    [
        *files("first.jpg", "x" * 300 + ".jpg"),
        member("a.jpg", pax_headers={"GNU.sparse.map": "10,4", "GNU.sparse.size": "20"}),
        member("b.jpg", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
        member("c.jpg", pax_headers={"size": "00000", "mtime": "1.5", "path": "d.jpg"}),
    ]
) + make_tar(files("y" * 300 + ".jpg", "z.jpg"), format=tarfile.GNU_FORMAT)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_header_with_the_right_checksum(tmp_path_factory, data):
    packed = bytearray(EXTENDED)
    block = 512 * data.draw(st.integers(0, len(packed) // 512 - 1))
    place = data.draw(st.sampled_from([0, 100, 124, 124, 135, 156, 156, 257, 345, 386, 482, 483]))
    garbage = data.draw(
        st.one_of(st.binary(min_size=1, max_size=12), st.sampled_from([b"S", b"x", b"g", b"L"]))
    )
    packed[block + place : block + place + len(garbage)] = garbage
    packed[block + 148 : block + 156] = b"        "
    packed[block + 148 : block + 156] = b"%06o\0 " % sum(packed[block : block + 512])
    path = write(tmp_path_factory.mktemp("tar") / "x.tar", bytes(packed))
    try:
        refs = list_images(path)
    except UsageError as error:
        assert path in str(error)
        return
    assert all(ref.problem or end(ref) <= len(packed) + 12 for ref in refs)


def numbered(header: tarfile.TarInfo, size: int) -> bytes:
    """Return a header with a size of any value, in GNU's binary form."""
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (size % 2**96).to_bytes(12, "big")
    block[124] = 0xFF if size < 0 else 0x80
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


HOSTILE = {
    "10 GB": numbered(member("a.jpg"), 10 << 30),
    "10 GB that is no image": numbered(member("a"), 10 << 30),
    "2**80": numbered(member("a.jpg"), 2**80),
    "negative": numbered(member("a.jpg"), -512),
    "negative, no image": numbered(member("a"), -1024),
    "10 GB of pax": numbered(member("a", type=tarfile.XHDTYPE), 10 << 30),
    "negative pax": numbered(member("a", type=tarfile.XHDTYPE), -512),
    "10 GB of a name": numbered(member("a", type=tarfile.GNUTYPE_LONGNAME), 10 << 30),
    "pax size": make_tar([member("a.jpg", pax_headers={"size": "-1024"})])[:1536],
    "pax size of 2**80": make_tar([member("a.jpg", pax_headers={"size": str(2**80)})])[:1536],
    "pax in pax": numbered(member("a", type=tarfile.XHDTYPE), 0) * 5000,
    "10 GB in an inner tar": make_tar([("n.tar", numbered(member("a.jpg"), 10 << 30))])[:1024],
}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("header", HOSTILE.values(), ids=HOSTILE)
def test_hostile_headers_cost_one_failure_and_no_memory(tmp_path, header, packer):
    data = make_tar(files("first.jpg"))[:1024] + header + make_tar(files("b.jpg"))
    path = write(tmp_path / "x.tar", PACKERS[packer](data))
    tracemalloc.start()
    refs = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    assert refs[0].url == f"{path}#first.jpg" and refs[0].problem is None
    assert problems(refs).count("corrupt_container") == 1
    assert all(ref.problem or ref.location for ref in refs)


def test_global_headers_are_not_collected(tmp_path):
    one = make_tar([member("a", pax_headers={})], format=tarfile.PAX_FORMAT)
    assert one
    path = tmp_path / "x.tar"
    with path.open("wb") as file:
        for number in range(2000):
            text = b"key%d=%s\n" % (number, b"x" * 9000)
            record = next(
                b"%d %s" % (size, text)
                for size in range(len(text), len(text) + 10)
                if len(b"%d %s" % (size, text)) == size
            )
            file.write(numbered(member("g", type=tarfile.XGLTYPE), len(record)))
            file.write(record.ljust(-(-len(record) // 512) * 512, b"\0"))
            file.write(member("other").tobuf())
        file.write(make_tar(files("a.jpg")))
    tracemalloc.start()
    assert len(read(str(path))) == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("packer", ["plain", "gz"])
def test_memory_is_flat_for_many_members(tmp_path, packer):
    path = tmp_path / "x.tar"
    with path.open("wb") if packer == "plain" else gzip.open(path, "wb", 1) as file:
        for number in range(20_000):
            # All in one folder, and with one key as WebDataset sees it.
            file.write(member(f"n1.{number:06}.jpg", size=1).tobuf() + b"x".ljust(512, b"\0"))
    tracemalloc.start()
    count = sum(1 for _ in tar_archives.read_refs(str(path), make_config()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 1 << 20


def test_an_old_archive_without_a_magic_number(tmp_path):
    block = bytearray(member("a.jpg", size=1).tobuf(tarfile.USTAR_FORMAT))
    block[257:500] = bytes(243)
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    assert len(read(write(tmp_path / "x", bytes(block) + b"x".ljust(1536, b"\0")))) == 1


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.tar", b"", "is empty"),
        ("x.tgz", b"", "is empty"),
        ("x.tar", b"text\n" * 1000, "is not a tar archive"),
        ("x.tar.gz", gzip.compress(b"text\n" * 1000), "is not a tar archive"),
        ("x.tar.bz2", bz2.compress(b"text\n" * 1000), "is not a tar archive"),
        ("x.tar.gz", b"\x1f\x8b" + bytes(1000), "cannot be read"),
        ("x.tar", bytes(10240), "holds no image"),
        ("x.tar", make_tar(files("a.txt2")), "holds no image"),
    ],
)
def test_what_is_no_archive_is_refused(tmp_path, name, data, message):
    path = write(tmp_path / name, data)
    with pytest.raises(UsageError, match=message) as caught:
        read(path)
    assert path in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_an_archive_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read(str(tmp_path / "x.tar"))


# What can only be read from front to back.


class Openings:
    """Counts how often archives are opened."""

    def __init__(self, monkeypatch):
        self.count, self._open = 0, tar_archives._open
        monkeypatch.setattr(tar_archives, "_open", self.open)

    def open(self, *arguments):
        self.count += 1
        return self._open(*arguments)


def test_parts_continue_an_open_archive(tmp_path, monkeypatch):
    names = [f"{number:03}.jpg" for number in range(40)]
    path = write(tmp_path / "x.tgz", make_tar(files(*names), "w:gz"))
    refs = read(path)
    openings = Openings(monkeypatch)
    bodies: dict[str, bytes] = {}
    for start in range(0, 40, 10):
        bodies |= read_bodies(refs[start : start + 10 : 3])
    assert bodies == {
        f"{path}#{names[index]}": body(names[index])
        for start in range(0, 40, 10)
        for index in range(start, start + 10, 3)
    }
    assert openings.count == 1
    assert len(read_bodies(refs[:5])) == 5  # passed: it is opened anew
    assert openings.count == 2


def test_many_archives_do_not_stay_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        path = write(tmp_path / f"{number}.tgz", make_tar(files("a.jpg"), "w:gz"))
        assert len(read_bodies(read(path))) == 1
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * tar_archives.MAX_OPEN


def test_an_archive_that_takes_the_place_of_another_is_read(tmp_path):
    path = write(tmp_path / "x.tgz", make_tar(files("a.jpg", "b.jpg"), "w:gz"))
    refs = read(path)
    read_bodies(refs[:1])
    os.remove(path)
    write(tmp_path / "x.tgz", make_tar([("1.jpg", b"other"), ("2.jpg", b"new")], "w:gz"))
    assert list(read_bodies(refs[1:]).values()) == [b"new"]


def test_an_archive_that_is_damaged_after_its_listing(tmp_path):
    noise = [(f"{number}.jpg", os.urandom(5000)) for number in range(20)]
    data = make_tar(noise, "w:gz")
    refs = read(path := write(tmp_path / "x.tgz", data))
    write(tmp_path / "x.tgz", data[: len(data) // 2])
    outcomes = [outcome for _, outcome in tar_archives.read_group(refs, make_config())]
    good = [outcome for outcome in outcomes if isinstance(outcome, bytes)]
    assert good == [data for _, data in noise[: len(good)]]
    bad = outcomes[len(good) :]
    assert bad
    assert {isinstance(item, Problem) and item.reason for item in bad} == {"corrupt_container"}
    os.remove(path)
    outcomes = [outcome for _, outcome in tar_archives.read_group(refs, make_config())]
    assert {isinstance(outcome, Problem) and outcome.reason for outcome in outcomes} <= {
        "not_found",
        "corrupt_container",
    }


def test_one_member_at_a_time_is_in_memory(tmp_path):
    noise = [(f"{number}.jpg", os.urandom(4 << 20)) for number in range(5)]
    refs = read(write(tmp_path / "x.tgz", make_tar(noise, "w:gz")))
    tracemalloc.start()
    for _, data in tar_archives.read_group(refs, make_config()):
        assert len(data) == 4 << 20
        del data
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


def test_two_readers_of_one_archive_do_not_disturb_each_other(tmp_path, monkeypatch):
    names = [f"{number:02}.jpg" for number in range(20)]
    path = write(tmp_path / "x.tgz", make_tar(files(*names), "w:gz"))
    refs = list_images(path)
    openings = Openings(monkeypatch)
    for start in (0, 5):
        groups = [
            tar_archives.read_group(refs[begin + start : begin + start + 5], make_config())
            for begin in (0, 10)
        ]
        for (first, one), (second, other) in zip(*groups, strict=True):
            assert (one, other) == (body(first.id + ".jpg"), body(second.id + ".jpg"))
    assert openings.count == 2


def test_an_archive_that_was_packed_in_several_pieces(tmp_path):
    data = make_train_tar()
    for packer in (gzip.compress, bz2.compress):
        pieces = b"".join(packer(data[start : start + 700]) for start in range(0, len(data), 700))
        refs = list_images(write(tmp_path / "x", pieces))
        assert len(read_bodies(refs)) == len(refs) == 6
