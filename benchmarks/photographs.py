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
from pathlib import Path

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
