"""How classes and hosts fared: counted in the graph, added up over the commits."""

from __future__ import annotations

import collections
import json
from collections.abc import Iterable
from typing import Any

from beam_pipeline.config import HOSTS_TOLD
from beam_pipeline.elements import Tally
from beam_pipeline.storage import filesystem


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
