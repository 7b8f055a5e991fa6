"""An origin of photographs on loopback, for benchmarks.

As a command it prints its URL and serves until its input closes. It runs in a process of its own,
so that its processor time is not part of what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import skimage.data
from aiohttp import web
from PIL import Image

from benchmarks import measure

WIDTH, HEIGHT = 500, 375  # ImageNet's usual size
SOURCES = ("astronaut", "coffee", "rocket", "retina", "immunohistochemistry", "hubble_deep_field")
OF_EACH = 8


def make_photographs() -> list[bytes]:
    """Return JPEGs of 500x375, cut from the colour photographs of scikit-image."""
    rng, photographs = random.Random(0), []
    for name in SOURCES:
        whole = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        for _ in range(OF_EACH):
            left, top = rng.randint(0, whole.width - WIDTH), rng.randint(0, whole.height - HEIGHT)
            file = io.BytesIO()
            whole.crop((left, top, left + WIDTH, top + HEIGHT)).save(file, "JPEG", quality=95)
            photographs.append(file.getvalue())
    return photographs


def write_folder(folder: Path, number: int) -> Path:
    """Write `number` photographs in 20 class folders."""
    photographs = make_photographs()
    for index in range(number):
        path = folder / f"n{index % 20:08}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photographs[index % len(photographs)])
    return folder


def write_tar(folder: Path, path: Path) -> Path:
    """Write a tar of tars, one for each class folder, as ImageNet has it."""
    with tarfile.open(path, "w") as outer:
        for inner in sorted(folder.iterdir()):
            data = io.BytesIO()
            with tarfile.open(fileobj=data, mode="w") as archive:
                archive.add(inner, "")
            member = tarfile.TarInfo(f"{inner.name}.tar")
            member.size = data.tell()
            data.seek(0)
            outer.addfile(member, data)
    return path


def write_parquet(folder: Path, path: Path) -> Path:
    """Write a Parquet file of images as Hugging Face has it, in row groups of 100."""
    names = sorted(folder.rglob("*.jpg"))
    rows = [
        {"image": {"bytes": name.read_bytes(), "path": name.name}, "label": name.parent.name}
        for name in names
    ]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=100)
    return path


def write_list(path: Path, number: int, origin: str, delay: float = 0.0) -> Path:
    """Write a list of `number` different URLs.

    The origin answers each of them with one of the photographs after `delay` seconds.
    """
    path.write_text("".join(f"{origin}/{delay}/{index}.jpg\n" for index in range(number)))
    return path


def serve() -> contextlib.AbstractContextManager[str]:
    return measure.serve(["-m", "benchmarks.photographs"])


async def _main() -> None:
    photographs = make_photographs()

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(float(request.match_info["delay"]))
        return web.Response(
            body=photographs[int(request.match_info["index"]) % len(photographs)],
            content_type="image/jpeg",
        )

    app = web.Application()
    app.router.add_get("/{delay}/{index}.jpg", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_main())
