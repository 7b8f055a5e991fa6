"""Images by class, host and measure, counted in the graph and added up over the commits."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterable

from beam_pipeline import naming
from beam_pipeline.config import MAX_HOSTS
from beam_pipeline.dataset_info import Host, MeasureCounts, OtherHosts, Split
from beam_pipeline.elements import OutcomeCount
from beam_pipeline.images import measures
from beam_pipeline.storage import filesystem


def write(path: str, outcomes: Iterable[OutcomeCount]) -> None:
    """Write the outcome counts of a commit, one per line.

    Without outcomes no file is written: Beam cannot write an empty one to S3.
    """
    if lines := "".join(json.dumps(outcome) + "\n" for outcome in outcomes):
        filesystem.write_bytes(path, lines.encode())


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """The fields of `DatasetInfo` and `Counts` with these names."""

    classes: dict[str, dict[Split, int]]
    hosts: list[Host]
    other_hosts: OtherHosts
    measures: dict[str, MeasureCounts]
    rescued: int


def add_up(paths: Iterable[str]) -> Outcomes:
    """Return the outcomes of all commits.

    Args:
      paths: The files of the commits' outcome counts.
    """
    classes: dict[str, dict[Split, int]] = {}
    hosts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    counts = {
        name: MeasureCounts(list(edges), [0] * (len(edges) - 1), [0] * (len(edges) - 1))
        for name, edges in measures.BIN_EDGES.items()
    }
    rescued = 0
    for path in paths:
        for (kind, name, *outcome), number in map(
            json.loads, filesystem.read_bytes(path).splitlines()
        ):
            if kind == "class":
                splits = classes.setdefault(name, dict.fromkeys(naming.SPLITS, 0))
                splits[outcome[0]] += number
            elif kind == "measure":
                index, result = outcome
                bins = counts[name].examples if result == "example" else counts[name].filtered
                bins[int(index)] += number
            elif kind == "source":
                rescued += number
            else:
                hosts[name][outcome[0]] += number
    ordered = sorted(hosts, key=lambda host: (-hosts[host].total(), host))
    listed, others = ordered[:MAX_HOSTS], ordered[MAX_HOSTS:]
    return Outcomes(
        classes=dict(sorted(classes.items())),
        hosts=[
            Host(host, examples=hosts[host].pop("example", 0), failures=dict(hosts[host]))
            for host in listed
        ],
        other_hosts=OtherHosts(
            hosts=len(others),
            examples=sum(hosts[host]["example"] for host in others),
            failures=sum(hosts[host].total() - hosts[host]["example"] for host in others),
        ),
        measures=counts,
        rescued=rescued,
    )
