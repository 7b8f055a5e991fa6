"""An origin of photographs on loopback, for benchmarks. As a command it tells its URL, and serves until its input is closed.

So it runs in a process of its own, whose processor time is not that of what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import skimage.data
from aiohttp import web
from PIL import Image

ROOT = Path(__file__).parent.parent
WIDTH, HEIGHT = 500, 375  # ImageNet's usual size
SOURCES = ("astronaut", "coffee", "rocket", "retina", "immunohistochemistry", "hubble_deep_field")
OF_EACH = 8


def make_photographs() -> list[bytes]:
    """JPEGs of 500x375, cut from the colour photographs that scikit-image ships."""
    rng, photographs = random.Random(0), []
    for name in SOURCES:
        whole = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        for _ in range(OF_EACH):
            left, top = rng.randint(0, whole.width - WIDTH), rng.randint(0, whole.height - HEIGHT)
            file = io.BytesIO()
            whole.crop((left, top, left + WIDTH, top + HEIGHT)).save(file, "JPEG", quality=95)
            photographs.append(file.getvalue())
    return photographs


def write_list(path: Path, origin: str, number: int, delay: float = 0.0) -> Path:
    """Writes a list of so many different URLs, each answered with one of the photographs after `delay` seconds."""
    path.write_text("".join(f"{origin}/{delay}/{index}.jpg\n" for index in range(number)))
    return path


@contextlib.contextmanager
def serve() -> Iterator[str]:
    origin = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.photographs"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert origin.stdin and origin.stdout
    yield origin.stdout.readline().strip()
    origin.stdin.close()
    origin.wait()


async def _main() -> None:
    photographs = make_photographs()

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(float(request.match_info["delay"]))
        return web.Response(body=photographs[int(request.match_info["index"]) % len(photographs)], content_type="image/jpeg")

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
