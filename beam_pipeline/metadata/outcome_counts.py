"""How classes and hosts fared: counted in the graph, added up over the commits."""

from __future__ import annotations

import collections
import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam

from beam_pipeline.config import HOSTS_TOLD
from beam_pipeline.elements import EmbeddedImage, Failure
from beam_pipeline.storage import filesystem
from beam_pipeline.transforms.thread_map import windowed

# ("class", WNID), or ("host", HOST, "example" or the reason of a failure), and how often.
Tally = tuple[tuple[str, ...], int]


class CountOutcomes(beam.DoFn):
    """EmbeddedImage | Failure -> Tally, at the end of each bundle."""

    def start_bundle(self) -> None:
        self._counts: collections.Counter[tuple[str, ...]] = collections.Counter()

    def process(self, outcome: EmbeddedImage | Failure) -> None:
        is_example = not isinstance(outcome, Failure)
        if host := host_of(outcome.ref.url):
            self._counts["host", host, "example" if isinstance(outcome, EmbeddedImage) else outcome.reason] += 1
        if is_example and (wnid := class_of(outcome.ref.id)):
            self._counts["class", wnid] += 1

    def finish_bundle(self) -> Iterator[Any]:
        return map(windowed, self._counts.items())


def host_of(url: str) -> str:
    """The host of a URL, in small letters; empty for a path, or if there is none."""
    try:
        host = urllib.parse.urlsplit(url).hostname or ""
    except ValueError:
        return ""
    # Beam cannot encode the surrogates that stand for bytes of a path that are no text.
    return host.encode(errors="replace").decode()


def class_of(image_id: str) -> str:
    """The WordNet id with which ImageNet's IDs begin: `n00004475` of `n00004475_6590`; empty if there is none."""
    match = re.match(r"(n\d{8})(?:_|$)", image_id)
    return match[1] if match else ""


def write(path: str, tallies: Iterable[Tally]) -> None:
    """Writes the tallies of a commit, one a line; none, no file: Beam cannot write an empty one to S3."""
    if lines := "".join(json.dumps(tally) + "\n" for tally in tallies):
        filesystem.write_bytes(path, lines.encode())


def add_up(paths: Iterable[str]) -> dict[str, Any]:
    """What `dataset.json` tells of the tallies of all commits.

    Returns:
      `classes`: examples by WordNet id. `hosts`: of the hosts with most images, `host`, `examples` and `failures` by reason;
      `other_hosts`: `hosts`, `examples` and `failures` of all others together.
    """
    classes: collections.Counter[str] = collections.Counter()
    hosts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for path in paths:
        for (kind, name, *outcome), number in map(json.loads, filesystem.read_bytes(path).splitlines()):
            if kind == "class":
                classes[name] += number
            else:
                hosts[name][outcome[0]] += number
    ordered = sorted(hosts, key=lambda host: (-hosts[host].total(), host))
    told, others = ordered[:HOSTS_TOLD], ordered[HOSTS_TOLD:]
    return {
        "classes": dict(sorted(classes.items())),
        "hosts": [{"host": host, "examples": hosts[host].pop("example", 0), "failures": dict(hosts[host])} for host in told],
        "other_hosts": {
            "hosts": len(others),
            "examples": sum(hosts[host]["example"] for host in others),
            "failures": sum(hosts[host].total() - hosts[host]["example"] for host in others),
        },
    }
