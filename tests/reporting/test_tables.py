"""Tests of the tables of a report, and of when their rows have bars."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from written_dataset import make_info, write_dataset

from beam_pipeline.dataset_info import Host, OtherHosts
from beam_pipeline.reading import dataset_dir
from beam_pipeline.reporting import sampling, tables


def describe_hosts(hosts):
    return tables.describe_hosts(
        make_info(hosts=[Host(**host) for host in hosts], other_hosts=OtherHosts(3, 4, 5))
    )


def test_failures_of_equal_number_have_no_bars(tmp_path):
    folder = dataset_dir.open_dataset_dir(write_dataset(tmp_path, "lab_uint8"))
    table = tables.describe_failures(folder)
    assert table is not None
    assert [row["reason"] for row in table["rows"]] == ["dns", "http_404"]
    assert not table["has_bars"]
    folder.info.failures_by_stage["fetch"]["dns"] = 3
    table = tables.describe_failures(folder)
    assert table is not None
    assert table["has_bars"]
    assert [round(row["bar"]) for row in table["rows"]] == [100, 33]
    assert table["rows"][0]["explanation"] == "the host name was not found"
    assert table["rows"][0]["example"]["url"] == "http://b/lost.jpg"


def test_a_broken_file_of_failures_is_named(tmp_path):
    folder = dataset_dir.open_dataset_dir(write_dataset(tmp_path, "lab_uint8"))
    Path(tmp_path / "failures-00000-of-00001.jsonl").write_text(json.dumps({"stage": "fetch"}))
    with pytest.raises(ValueError, match=r"failures-00000-of-00001\.jsonl is broken"):
        tables.describe_failures(folder)


def test_hosts_beyond_those_shown_are_added_to_the_others():
    hosts = [{"host": f"h{n}", "examples": 50 - n, "failures": {"dns": n}} for n in range(25)]
    table = describe_hosts(hosts)
    assert len(table["rows"]) == 20 and table["has_bars"]
    examples, failed = sum(50 - n for n in range(20, 25)), sum(range(20, 25))
    assert table["others"] == {"hosts": 8, "examples": 4 + examples, "failed": 5 + failed}
    last = table["rows"][-1]
    assert (last["examples_bar"], last["failed_bar"]) == pytest.approx((62, 38))
    assert last["reasons"] == "19 dns"


def test_hosts_that_are_alike_have_no_bars():
    assert not describe_hosts([{"host": "a", "examples": 5, "failures": {"dns": 2}}])["has_bars"]
    alike = [{"host": name, "examples": 5, "failures": {}} for name in "ab"]
    assert not describe_hosts(alike)["has_bars"]
    assert describe_hosts([]) is None


def test_time_without_metrics():
    assert tables.describe_time(None) is None
    assert tables.describe_time({"commits": 1, "seconds": 2.0}) is None


def test_sizes_share_a_unit_in_each_column(tmp_path):
    folder = dataset_dir.open_dataset_dir(write_dataset(tmp_path, "lab_uint8"))
    sizes = tables.describe_sizes(folder, sampling.take_sample(folder, 100))
    assert len(sizes["rows"]) == 6 and sizes["examples"] == 10
    assert [row["encoding"] for row in sizes["rows"] if row["is_this"]] == ["lab_uint8"]
    assert sizes["units"] == {"each": "kB", "all": "kB"}
    for row in sizes["rows"]:
        each, in_all = (float(row[name].replace(",", "")) for name in ("each", "all"))
        assert in_all == pytest.approx(12 * each, abs=1)


def test_classes_of_equal_size_have_neither_chart_nor_bars():
    table = tables.describe_classes(
        {f"n{index:08}": {"train": 3, "validation": 1} for index in range(50)}
    )
    assert table is not None
    assert table["chart"] is None and not table["has_bars"]
    assert table["effective"] == pytest.approx(50)
    assert tables.describe_classes({}) is None


@pytest.mark.parametrize(("number", "largest", "smallest"), [(1, 1, 0), (20, 20, 0), (21, 5, 5)])
def test_each_class_is_listed_once(number, largest, smallest):
    table = tables.describe_classes(
        {f"n{index:08}": {"train": index + 1, "validation": 0} for index in range(number)}
    )
    assert table is not None
    assert (len(table["rows"]), len(table["smallest"])) == (largest, smallest)
    names = [row["name"] for row in table["rows"] + table["smallest"]]
    assert len(set(names)) == len(names)
    assert (table["chart"] is not None) is bool(smallest)
