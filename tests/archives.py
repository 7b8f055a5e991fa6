"""Builders of archives, in the layouts in which people hold ImageNet."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from beam_pipeline.config import Config
from beam_pipeline.elements import EncodedImage, Extent, ImageRef
from beam_pipeline.fetching.stored_images import read_file
from beam_pipeline.sources import registry, tar_archives

WNIDS = ("n01440764", "n01443537")


def make_config(**options) -> Config:
    return Config(images="images", output="out", **options)


def extent(ref: ImageRef) -> Extent:
    assert isinstance(ref.location, Extent)
    return ref.location


def end(ref: ImageRef) -> int:
    """Return the position behind an image in its file."""
    assert extent(ref).size is not None
    return extent(ref).offset + (extent(ref).size or 0)


def list_images(path: str, **options) -> list[ImageRef]:
    """Return the images of a file or folder of `--images`."""
    kind = registry.find_images(path)
    return [ref for ref in kind.read_refs(path, make_config(**options)) if ref]


def body(name: str) -> bytes:
    """Return the bytes of a member, which depend on its name."""
    return f"<{name}>".encode(errors="surrogateescape") * (1 + len(name) % 40)


def make_tar(
    members: Iterable[tuple[str, bytes] | tarfile.TarInfo],
    mode: str = "w",
    format: int = tarfile.PAX_FORMAT,
) -> bytes:
    """Return an archive of files; a TarInfo is a header without a body."""
    packed = io.BytesIO()
    with tarfile.open(  # type: ignore[call-overload]
        fileobj=packed, mode=mode, format=format, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return packed.getvalue()


def files(*names: str) -> list[tuple[str, bytes]]:
    return [(name, body(name)) for name in names]


def inner_names(wnid: str, count: int = 3) -> list[str]:
    return [f"{wnid}_{number}.JPEG" for number in range(count)]


def make_train_tar(mode: str = "w") -> bytes:
    """Return an archive like ILSVRC2012_img_train.tar: a tar of each class."""
    return make_tar([(f"{wnid}.tar", make_tar(files(*inner_names(wnid)))) for wnid in WNIDS], mode)


def make_kaggle_zip(compression: int) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        archive.writestr("ILSVRC/ImageSets/CLS-LOC/train_cls.txt", "n01440764/n01440764_0 1\n")
        for wnid in WNIDS:
            archive.mkdir(f"ILSVRC/Data/CLS-LOC/train/{wnid}")
            for name in inner_names(wnid):
                archive.writestr(f"ILSVRC/Data/CLS-LOC/train/{wnid}/{name}", body(name))
    return packed.getvalue()


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def read_bodies(refs: Iterable[ImageRef], config: Config | None = None) -> dict[str, bytes]:
    """Return the bytes of images by URL, read as a run does; of those without a problem."""
    config = config or make_config()
    bodies: dict[str, bytes] = {}
    rows: list[ImageRef] = []
    for ref in refs:
        if isinstance(ref.location, Extent):
            image = read_file(ref, config.max_image_bytes)
            assert isinstance(image, EncodedImage), image
            bodies[ref.url] = image.data
        elif ref.location:
            rows.append(ref)
    for ref, data in tar_archives.read_group(rows, config):
        assert isinstance(data, bytes), data
        bodies[ref.url] = data
    return bodies
