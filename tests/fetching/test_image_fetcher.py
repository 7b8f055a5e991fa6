"""Tests of the FetchImages step and of its Fetcher."""

from __future__ import annotations

import concurrent.futures
import gc
import hashlib
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from origin import Origin, image, peak
from patience import PATIENCE, in_time, wait_until

from beam_pipeline.config import Config
from beam_pipeline.elements import EncodedImage, Extent, Failure, ImageRef, StoredCopy
from beam_pipeline.fetching import http_client, image_fetcher, web_client
from beam_pipeline.fetching.image_fetcher import Fetcher
from beam_pipeline.fetching.web_client import MAX_COST, Bundle
from beam_pipeline.images.png_notes import encode_png
from beam_pipeline.transforms import fetch_images
from beam_pipeline.transforms.fetch_images import FetchImages


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(http_client, "BACKOFF", 0.001)


def make_config(**options) -> Config:
    source = {} if "images" in options else {"input": "-"}
    return Config(
        **{
            **source,
            "output": "-",
            "checkpoint": "none",
            "allow_private_addresses": True,
            "fetch_timeout": 5,
            **options,
        }
    )


def make_refs(origin: Origin, *paths: str) -> list[ImageRef]:
    return [ImageRef("", origin.url(path)) for path in paths]


def numbered(origin: Origin, count: int, form: str = "{}.jpg") -> list[ImageRef]:
    return make_refs(origin, *(form.format(index) for index in range(count)))


def summarize(outcome: EncodedImage | Failure) -> tuple[str, str | bytes, int]:
    """Return the URL, the reason or the bytes, and the number of attempts."""
    return (
        outcome.ref.url,
        outcome.reason if isinstance(outcome, Failure) else outcome.data,
        outcome.attempts,
    )


def run_graph(
    config: Config, refs: list[ImageRef], images: list, failures: list
) -> beam.runners.runner.PipelineResult:
    """Fetch in a graph of its own and assert on its outputs, in the form of `summarize`."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    fetched = (
        pipeline
        | beam.Create([[ref] for ref in refs])
        | "FetchImages" >> beam.ParDo(FetchImages(config)).with_outputs("failures", main="main")
    )
    assert_that(fetched.main | "SummarizeImages" >> beam.Map(summarize), equal_to(images), "Images")
    assert_that(
        fetched.failures | "SummarizeFailures" >> beam.Map(summarize),
        equal_to(failures),
        "Failures",
    )
    return pipeline.run()


def copy(images: FetchImages) -> FetchImages:
    """Return another instance of the same step, as a worker makes for each thread."""
    another = pickle.loads(pickle.dumps(images))
    another.setup()
    return another


def outcomes_of(outputs: Iterable) -> list[EncodedImage | Failure]:
    """Return the images and failures that a step yields, with or without tag and window."""
    values = []
    for output in outputs:
        while hasattr(output, "value"):
            output = output.value
        values.append(output)
    return [value for value in values if isinstance(value, EncodedImage | Failure)]


def ref_of(path: Path | str) -> ImageRef:
    """Return the image of a file."""
    return ImageRef("", str(path), location=Extent(str(path)))


def run_bundle(images: FetchImages, refs: list[ImageRef]) -> list[EncodedImage | Failure]:
    images.start_bundle()
    handed_on = [output for ref in refs for output in images.process([ref])]
    return outcomes_of([*handed_on, *images.finish_bundle()])


class TestGraph:
    def test_parts_images_from_failures(self, origin):
        refs = make_refs(
            origin,
            "x.jpg",
            "status/404",
            "flaky/1/503/y.png",
            "hang",
            "reset-body/z.jpg",
            "redirect/2/x.jpg",
            "half/x.jpg",
        )
        result = run_graph(
            make_config(fetch_timeout=0.5),
            refs,
            [
                (refs[0].url, image("x.jpg"), 1),
                (refs[2].url, image("y.png"), 2),
                (refs[5].url, image("x.jpg"), 1),
                (refs[6].url, image("x.jpg")[: len(image("x.jpg")) // 2], 1),
            ],
            [
                (refs[1].url, "http_404", 1),
                (refs[3].url, "timeout", 3),
                (refs[4].url, "connection_lost", 3),
            ],
        )
        counters = result.metrics().query(MetricsFilter().with_namespace("fetch"))["counters"]
        size = 2 * len(image("x.jpg")) + len(image("y.png")) + len(image("x.jpg")) // 2
        reported = {counter.key.metric.name: counter.committed for counter in counters}
        assert reported.pop("waited_microseconds") > 0
        assert reported == {"images": 4, "bytes": size}

    def test_refuses_private_addresses(self, origin):
        refs = make_refs(origin, "x.jpg")
        run_graph(
            make_config(allow_private_addresses=False),
            refs,
            [],
            [(refs[0].url, "blocked_address", 1)],
        )
        assert not origin.requests

    def test_empty(self):
        assert run_bundle(copy(FetchImages(make_config())), []) == []

    def test_takes_what_is_kept(self, origin, tmp_path):
        refs = make_refs(origin, "x.jpg", "y.png", "status/404")
        for ref, name in zip(refs[:2], ("x.jpg", "y.png"), strict=True):
            (tmp_path / ref.name).write_bytes(image(name))
        kept = [(refs[0].url, image("x.jpg"), 0), (refs[1].url, image("y.png"), 0)]
        run_graph(
            make_config(original_dir=str(tmp_path)), refs, kept, [(refs[2].url, "http_404", 1)]
        )
        assert origin.paths == ["/status/404"]

    def test_reads_local_files(self, origin, tmp_path):
        (tmp_path / "x.jpg").write_bytes(image("x.jpg"))
        refs = [ref_of(tmp_path / name) for name in ("x.jpg", "none.jpg")]
        run_graph(
            make_config(images=f"{tmp_path}/*.jpg"),
            refs,
            [(refs[0].url, image("x.jpg"), 1)],
            [(refs[1].url, "not_found", 1)],
        )

    def test_downloads_while_what_has_come_is_worked_on(self, origin):
        OVERLAP.update(origin=origin, arrived=[])
        with beam.Pipeline(runner=FnApiRunner()) as pipeline:
            fetched = (
                pipeline
                | beam.Create([[ref] for ref in numbered(origin, 40, "delay/0.05/{}.jpg")])
                | beam.ParDo(FetchImages(make_config(fetch_concurrency=2))).with_outputs(
                    "failures", main="main"
                )
            )
            _ = fetched.main | beam.Map(work_slowly)
        assert len(OVERLAP["arrived"]) == 40
        assert sum(OVERLAP["arrived"]) >= 10


OVERLAP: dict = {}


def work_slowly(_image: EncodedImage) -> None:
    before = len(OVERLAP["origin"].requests)
    time.sleep(0.02)
    OVERLAP["arrived"].append(len(OVERLAP["origin"].requests) - before)


class TestKeptImages:
    @pytest.fixture
    def config(self, tmp_path):
        folders = {name: tmp_path / name for name in ("original_dir", "resized_dir")}
        for folder in folders.values():
            folder.mkdir()
        return make_config(image_size=30, **{name: str(folder) for name, folder in folders.items()})

    def fetch(self, config: Config, ref: ImageRef) -> EncodedImage:
        [outcome] = run_bundle(copy(FetchImages(config)), [ref])
        assert isinstance(outcome, EncodedImage)
        return outcome

    def png(self, side: int) -> bytes:
        return encode_png(np.zeros((side, side, 3), np.uint8), resize="pad")

    def test_resized_comes_before_original(self, origin, config):
        [ref] = make_refs(origin, "x.jpg")
        path = Path(config.resized_dir, ref.name)
        path.write_bytes(self.png(30))
        Path(config.original_dir, ref.name).write_bytes(image("other.jpg"))
        outcome = self.fetch(config, ref)
        assert (outcome.data, outcome.attempts, outcome.final_url) == (self.png(30), 0, str(path))
        assert not origin.requests

    def test_resized_to_another_size_is_left_alone(self, origin, config):
        kept, downloaded = make_refs(origin, "x.jpg", "y.jpg")
        for ref in (kept, downloaded):
            Path(config.resized_dir, ref.name).write_bytes(self.png(31))
        Path(config.original_dir, kept.name).write_bytes(image("other.jpg"))
        assert self.fetch(config, kept).data == image("other.jpg")
        assert self.fetch(config, downloaded).data == image("y.jpg")
        assert origin.paths == ["/y.jpg"]

    @pytest.mark.parametrize(
        "content", [b"", b"no image", image("x.png")[:20], b"\x89PNG\r\n\x1a\n" + bytes(40)]
    )
    def test_resized_that_is_none_is_left_alone(self, origin, config, content):
        [ref] = make_refs(origin, "x.jpg")
        Path(config.resized_dir, ref.name).write_bytes(content)
        assert self.fetch(config, ref).data == image("x.jpg")

    def test_resized_in_another_way_is_left_alone(self, origin, tmp_path):
        ref = ImageRef("", origin.url("x.jpg"))
        (tmp_path / ref.name).write_bytes(
            encode_png(np.zeros((64, 64, 3), np.uint8), resize="crop")
        )
        config = make_config(resized_dir=str(tmp_path), image_size=64, resize="pad")
        assert self.fetch(config, ref).data == image("x.jpg")
        config = make_config(resized_dir=str(tmp_path), image_size=64, resize="crop")
        assert self.fetch(config, ref).data == (tmp_path / ref.name).read_bytes()

    def test_original_without_a_byte_is_left_alone(self, origin, config):
        # Such a file remains when a machine loses power while it writes.
        [ref] = make_refs(origin, "x.jpg")
        path = Path(config.original_dir, ref.name)
        path.touch()
        assert self.fetch(config, ref).data == image("x.jpg")


class TestBundles:
    def test_more_images_than_are_under_way_at_a_time(self, origin):
        paths = [f"{index}.jpg" if index % 3 else f"status/404/{index}" for index in range(100)]
        refs = make_refs(origin, *paths)
        outcomes = in_time(run_bundle, copy(FetchImages(make_config(fetch_concurrency=1))), refs)
        reported = [
            (ref.url, *((image(path), 1) if path.endswith("jpg") else ("http_404", 1)))
            for ref, path in zip(refs, paths, strict=True)
        ]
        assert sorted(map(summarize, outcomes), key=str) == sorted(reported, key=str)
        assert peak(origin.requests) == 1

    def test_hand_on_what_has_come_before_too_much_is_under_way(self, origin):
        images = copy(FetchImages(make_config(fetch_concurrency=1)))
        images.start_bundle()
        refs = numbered(origin, 3 * fetch_images._QUEUED_PER_REQUEST, "delay/0.01/{}.jpg")
        handed_on = in_time(
            lambda: outcomes_of(output for ref in refs for output in images.process([ref]))
        )
        at_the_end = in_time(outcomes_of, images.finish_bundle())
        assert len(handed_on) + len(at_the_end) == len(refs)
        assert len(at_the_end) < fetch_images._QUEUED_PER_REQUEST

    def test_share_the_limits(self, origin):
        images = FetchImages(make_config(fetch_concurrency=4, host_concurrency=3))
        bundles = [numbered(origin, 12, f"delay/0.03/{bundle}-{{}}.jpg") for bundle in range(3)]
        with concurrent.futures.ThreadPoolExecutor() as threads:
            outcomes = list(threads.map(run_bundle, [copy(images) for _ in bundles], bundles))
        for bundle, refs in zip(outcomes, bundles, strict=True):
            assert {outcome.ref for outcome in bundle} == set(refs)
        assert peak(origin.requests) == 3

    def test_hold_no_more_than_there_is_room_for(self, origin):
        images = copy(FetchImages(make_config(fetch_concurrency=2)))
        images.start_bundle()
        first, *others = numbered(origin, 80)
        outcomes = outcomes_of(images.process([first]))
        # The step emits results only when the next image is requested, as when a network is busy
        # with the first.
        for ref in others:
            future = images._fetcher.submit(ref, images._bundle)
            images._under_way.add(future)
            future.add_done_callback(images._done.put)
        assert wait_until(lambda: len(origin.requests) >= MAX_COST)
        time.sleep(0.2)
        assert len(origin.requests) <= 1 + MAX_COST + 2
        outcomes += in_time(outcomes_of, images.finish_bundle())
        assert len(outcomes) == len(origin.requests) == 80

    def test_that_are_broken_off_leave_their_room_to_the_next(self, origin):
        images = FetchImages(make_config(fetch_concurrency=2))
        for attempt in range(3):
            broken_off = copy(images)
            broken_off.start_bundle()
            for ref in numbered(origin, 5, f"delay/0.02/{attempt}-{{}}.jpg"):
                for _ in broken_off.process([ref]):
                    pass
            time.sleep(0.1 * attempt)
            broken_off.teardown()
        outcomes = in_time(run_bundle, copy(images), numbered(origin, 10))
        assert [type(outcome) for outcome in outcomes] == [EncodedImage] * 10

    def test_that_fail_leave_their_room_to_the_next(self, origin):
        images = FetchImages(make_config(fetch_concurrency=1))

        def run(then: Callable) -> None:
            with beam.Pipeline(runner=FnApiRunner()) as pipeline:
                refs = numbered(origin, 10, "delay/0.02/{}.jpg")
                fetched = (
                    pipeline
                    | beam.Create([[ref] for ref in refs])
                    | beam.ParDo(images).with_outputs("failures", main="main")
                )
                _ = fetched.main | beam.Map(then)

        for _ in range(2):
            with pytest.raises(Exception, match="a bug"):
                in_time(run, fail)
        in_time(run, summarize)
        assert len(origin.requests) >= 10


class TestFallback:
    def test_images_that_wait_for_an_archive_leave_room_to_others(self, origin, monkeypatch):
        monkeypatch.setattr(web_client, "ARCHIVE_INTERVAL", 0.05)
        config = make_config(
            fetch_concurrency=1, fallback="wayback", fallback_url=origin.url(host="localhost")
        )
        gone = numbered(origin, 2 * fetch_images._QUEUED_PER_REQUEST, "status/404/{}")
        present = numbered(origin, 5)
        outcomes = in_time(run_bundle, copy(FetchImages(config)), [*gone, *present])
        assert sum(isinstance(outcome, EncodedImage) for outcome in outcomes) == 5
        assert len(outcomes) == len(gone) + 5
        asked = [request for request in origin.requests if request.path.startswith("/web/")]
        fetched = [request for request in origin.requests if request.path.endswith(".jpg")]
        assert len(asked) == len(gone)
        assert fetched[-1].begun < asked[len(gone) // 2].begun

    def test_no_more_than_a_limit_wait(self, origin, monkeypatch):
        monkeypatch.setattr(web_client, "ARCHIVE_INTERVAL", 0.02)
        monkeypatch.setattr(fetch_images, "_WAITING_PER_REQUEST", 20)
        config = make_config(
            fetch_concurrency=1, fallback="wayback", fallback_url=origin.url(host="localhost")
        )
        images = copy(FetchImages(config))
        images.start_bundle()
        most = 0

        def run() -> list:
            nonlocal most
            outcomes = []
            for ref in numbered(origin, 60, "status/404/{}"):
                outcomes += outcomes_of(images.process([ref]))
                most = max(most, len(images._under_way))
            return [*outcomes, *outcomes_of(images.finish_bundle())]

        assert len(in_time(run)) == 60
        assert fetch_images._QUEUED_PER_REQUEST <= most < 20

    def test_what_is_excluded_is_gone(self, origin, tmp_path):
        (tmp_path / "copy.jpg").write_bytes(image("copy.jpg"))
        path = str(tmp_path / "copy.jpg")
        fallback = StoredCopy(path, Extent(path))
        ref = ImageRef("copy", origin.url("x.jpg"), fallback=fallback)
        excluded = frozenset({hashlib.sha256(image("x.jpg")).hexdigest()})
        config = make_config(fallback_images=path)
        [outcome] = run_bundle(copy(FetchImages(config, 1, excluded)), [ref])
        assert isinstance(outcome, EncodedImage)
        assert (outcome.data, outcome.final_url) == (image("copy.jpg"), path)
        [outcome] = run_bundle(copy(FetchImages(make_config(), 1, excluded)), [ref])
        assert isinstance(outcome, EncodedImage) and outcome.data == image("x.jpg")


def fail(_image: EncodedImage) -> None:
    time.sleep(0.2)
    raise RuntimeError("a bug")


def open_things() -> tuple[int, int, set[threading.Thread]]:
    """Return the numbers of open files and of threads, and the threads that Python knows.

    The number of threads includes those that Python does not know.
    """
    return (
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
        set(threading.enumerate()),
    )


class TestFetcher:
    def use(self, refs: list[ImageRef], wait: bool = True, **options) -> Fetcher:
        fetcher = Fetcher(make_config(fetch_concurrency=4, **options))
        bundle = Bundle(100)
        futures = [fetcher.submit(ref, bundle) for ref in refs]
        if wait:
            for future in futures:
                assert isinstance(future.result(PATIENCE), EncodedImage)
        return fetcher

    @pytest.mark.parametrize("end", ["closed", "forgotten"])
    def test_leaves_nothing_open(self, origin, tmp_path, end):
        refs = numbered(origin, 4)
        self.use(refs).close()  # creates what is created once per process and kept
        files, tasks, threads = open_things()
        for _ in range(3):
            fetcher = self.use(refs, original_dir=str(tmp_path))
            if end == "closed":
                in_time(fetcher.close)
            del fetcher
        wait_until(lambda: open_things()[0] <= files and open_things()[1] <= tasks)
        assert open_things()[0] <= files
        assert open_things()[1] <= tasks
        assert not open_things()[2] - threads

    def test_that_is_closed_is_not_shared_again(self, origin, monkeypatch):
        """A process that another one has started keeps the last one."""
        monkeypatch.setattr(image_fetcher, "_kept", [])
        monkeypatch.setattr(image_fetcher.multiprocessing, "parent_process", lambda: object())
        config = make_config()
        first = image_fetcher.shared_fetcher(config)
        assert image_fetcher.shared_fetcher(config) is first
        first.close()
        second = image_fetcher.shared_fetcher(config)
        [ref] = numbered(origin, 1)
        assert isinstance(second.submit(ref, Bundle(100)).result(PATIENCE), EncodedImage)
        second.close()

    def test_reads_no_more_files_than_there_is_room_for(self, tmp_path):
        (tmp_path / "x.jpg").write_bytes(image("x.jpg"))
        fetcher = Fetcher(make_config(images=f"{tmp_path}/*", fetch_concurrency=2))
        bundle = Bundle(3)
        futures = [fetcher.submit(ref_of(tmp_path / "x.jpg"), bundle) for _ in range(10)]
        assert wait_until(lambda: sum(future.done() for future in futures) == 3)
        time.sleep(0.1)
        assert sum(future.done() for future in futures) == 3
        first = futures[0].result()
        assert isinstance(first, EncodedImage)
        for _ in range(7):
            fetcher.release(first, bundle)
        assert {type(future.result(PATIENCE)) for future in futures} == {EncodedImage}

    def test_breaks_off_what_is_under_way(self, origin):
        fetcher = self.use(
            [*make_refs(origin, "hang"), *numbered(origin, 3, "slow/1/{}.jpg")], wait=False
        )
        assert wait_until(lambda: len(origin.requests) == 4)
        in_time(fetcher.close)
        assert wait_until(
            lambda: all(request.ended < time.monotonic() for request in origin.requests)
        )

    @pytest.mark.parametrize("where", ["loop", "files"])
    def test_may_be_forgotten_in_its_own_threads(self, origin, where):
        cycle: list = [self.use(numbered(origin, 1))]
        loop, thread = cycle[0]._loop, cycle[0]._thread
        cycle.append(cycle)
        gc.disable()
        try:
            del cycle
            loop.call_soon_threadsafe(
                *((gc.collect,) if where == "loop" else (loop.run_in_executor, None, gc.collect))
            )
            thread.join(PATIENCE)
        finally:
            gc.enable()
        assert not thread.is_alive()

    def test_does_not_keep_a_process_from_ending(self, origin):
        program = f"""
from beam_pipeline.config import Config
from beam_pipeline.elements import ImageRef
from beam_pipeline.transforms.fetch_images import FetchImages

images = FetchImages(Config(input="-", output="-", allow_private_addresses=True))
images.setup()
for path in ("x.jpg", "hang"):
    images.start_bundle()
    list(images.process([ImageRef("", {origin.url()!r} + path)]))
    print(path == "hang" or len(list(images.finish_bundle())) > 0)
"""
        root = Path(__file__).parents[2]
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "True\nTrue\n", "")
