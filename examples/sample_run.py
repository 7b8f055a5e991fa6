"""A complete run on this machine: `make run`.

Serves the photographs of scikit-image as JPEG on loopback, adds some dead and broken links, and
runs the job on that list as a user would. No request leaves the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import io
import json
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import skimage.data
from PIL import Image

PHOTOGRAPHS = (
    *(
        "astronaut",
        "brick",
        "camera",
        "cell",
        "chelsea",
        "clock",
        "coffee",
        "coins",
        "grass",
        "gravel",
    ),
    *(
        "hubble_deep_field",
        "immunohistochemistry",
        "logo",
        "moon",
        "page",
        "retina",
        "rocket",
        "text",
    ),
)
# WordNet ids of the photographs that show an ImageNet class; the cat has two URLs.
CLASSES = {
    **{
        "chelsea": "n02121808",
        "moved": "n02121808",
        "coffee": "n03063599",
        "rocket": "n04099429",
        "camera": "n02942699",
    },
    **{"clock": "n03046257", "grass": "n12102133", "brick": "n02897820"},
}
BROKEN = ("gone", "server_error", "web_page", "half", "nothing", "loop")

UNTRAINED = (
    "\nThe embeddings in this dataset come from UNTRAINED weights: "
    "they have the right shape and mean nothing.\n"
    "For trained ones leave --checkpoint out: "
    "the published Inception-ResNet-v2 (200 MB) is downloaded once.\n"
)


class Origin(http.server.BaseHTTPRequestHandler):
    """Serves `/NAME.jpg`: a photograph, or one kind of broken link."""

    protocol_version = "HTTP/1.1"
    photographs: dict[str, bytes]

    def handle(self) -> None:
        # A client may reset a connection at any moment, when it is done or has timed out.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        name = self.path.strip("/").removesuffix(".jpg")
        photograph = self.photographs["astronaut"]
        status, body = {
            "gone": (404, b"gone"),
            "server_error": (503, b"try later"),
            "web_page": (200, b"<!DOCTYPE html><title>Photo not found</title>"),
            "half": (200, photograph[: len(photograph) // 2]),
            "nothing": (200, b""),
            "loop": (302, b""),
            "moved": (301, b""),
        }.get(name, (200, self.photographs.get(name, b"")))
        self.send_response(status)
        if status in (301, 302):
            self.send_header("Location", "/chelsea.jpg" if name == "moved" else self.path)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *unused_arguments: object) -> None:
        pass


def encode_photographs() -> dict[str, bytes]:
    """Return the photographs as JPEG files, by name."""
    encoded = {}
    for name in PHOTOGRAPHS:
        file = io.BytesIO()
        Image.fromarray(getattr(skimage.data, name)()).convert("RGB").save(file, "JPEG", quality=92)
        encoded[name] = file.getvalue()
    return encoded


@contextlib.contextmanager
def serve() -> Iterator[str]:
    """Serve on a free port of loopback until the `with` block ends. Yield the URL."""
    Origin.photographs = encode_photographs()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_list(path: Path, origin: str) -> None:
    lines = ["# ID<TAB>URL, as in ImageNet's fall11_urls.txt"]
    names = enumerate([*PHOTOGRAPHS, "moved"])
    lines += [
        f"{CLASSES.get(name, 'photograph')}_{number}\t{origin}/{name}.jpg" for number, name in names
    ]
    lines += [f"broken_{index}\t{origin}/{name}.jpg" for index, name in enumerate(BROKEN)]
    lines += [
        f"http://127.0.0.1:{unused_port()}/refused.jpg",
        "ftp://127.0.0.1/old.jpg",
        "not a URL",
        lines[1],
    ]
    path.write_text("\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--output", default="data/sample", help="folder for the dataset (default: %(default)s)"
    )
    options, rest = parser.parse_known_args()
    with serve() as origin:
        urls = Path(f"{options.output}-urls.txt")
        urls.parent.mkdir(parents=True, exist_ok=True)
        write_list(urls, origin)
        command = [
            sys.executable,
            "-m",
            "beam_pipeline.run",
            "--input",
            str(urls),
            "--output",
            options.output,
        ]
        command += ["--checkpoint", "untrained", "--allow_private_addresses", "--overwrite"]
        command += ["--filter_preset", "zhang2016", *rest]
        print(f"$ python {shlex.join(command[1:])}\n", flush=True)
        status = subprocess.run(command).returncode
    if status:
        return status
    print("\nWhat failed, and why:")
    for path in sorted(Path(options.output).glob("failures-*.jsonl")):
        for failure in map(json.loads, path.read_text().splitlines()):
            print(f"  {failure['reason']:<20} {failure['url']:<44} {failure['detail'][:100]}")
    print(f"\nThe dataset is in {Path(options.output).resolve()}. Read it with\n")
    print(f'  from beam_pipeline import dataset\n  images = dataset.load("{options.output}")')
    if "--checkpoint" not in rest:
        print(UNTRAINED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
