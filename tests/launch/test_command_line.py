"""Tests of the command line: defaults, checks, and the arguments passed to Beam."""

import dataclasses
import typing

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import example, given, settings
from hypothesis import strategies as st

import beam_pipeline
from beam_pipeline.config import Config, Group, UsageError, type_of
from beam_pipeline.launch.command_line import check_beam_flags, parse

REQUIRED = ["--input", "urls.txt", "--output", "out"]

DEFAULTS = {
    "input": "urls.txt",
    "images": None,
    "output": "out",
    "checkpoint": "https://storage.googleapis.com/download.tensorflow.org/models/inception_resnet_v2_2016_08_30.tar.gz",
    "checkpoint_sha256": None,
    "skip": 0,
    "count": None,
    "image_size": 299,
    "resize": "pad",
    "encoding": "lab_float32",
    "compression": "none",
    "examples_per_shard": 500,
    "validation_fraction": 0.0,
    "min_side": None,
    "max_aspect_ratio": None,
    "drop_grey": None,
    "drop_tinted": None,
    "min_colorfulness": None,
    "filter_preset": None,
    "near_duplicates": None,
    "measures": False,
    "batch_size": 32,
    "precision": "float32",
    "fetch_concurrency": 64,
    "host_concurrency": 16,
    "fetch_timeout": 10.0,
    "fetch_attempts": 3,
    "max_image_bytes": 32 * 1024 * 1024,
    "max_image_pixels": 64_000_000,
    "user_agent": f"beam_pipeline/{beam_pipeline.__version__}",
    "obey_robots_txt": False,
    "fallback": "none",
    "fallback_url": "https://web.archive.org",
    "fallback_images": None,
    "allow_private_addresses": False,
    "original_dir": None,
    "resized_dir": None,
    "exclude_sha256": None,
    "retry_reasons": None,
    "max_failed_fraction": 1.0,
    "urls_per_commit": None,
    "parts": False,
    "class_names": None,
    "url_column": None,
    "id_column": None,
    "class_column": None,
    "sha256_column": None,
    "md5_column": None,
    "image_column": "image",
    "keep_columns": None,
    "class_file": None,
    "validation_input": None,
    "validation_images": None,
    "validation_ids": None,
    "stratify": False,
    "statistics": None,
    "report": None,
    "overwrite": False,
    "verbose": False,
}

# Every option except --images, which excludes --input, and other sources of the split, with a value
# other than its default.
FULL = {
    "input": "gs://bucket/list-*.tgz",
    "output": "data/tfrecords",
    "checkpoint": "model.ckpt",
    "checkpoint_sha256": "0123456789abcdefABCDEF" + 42 * "0",
    "skip": 7,
    "count": 1000,
    "image_size": 64,
    "resize": "crop",
    "encoding": "rgb_png",
    "compression": "gzip",
    "examples_per_shard": 10,
    "validation_fraction": 0.25,
    "min_side": 64,
    "max_aspect_ratio": 3.5,
    "min_colorfulness": 12.5,
    "filter_preset": "bigcolor",
    "batch_size": 8,
    "precision": "bfloat16",
    "fetch_concurrency": 5,
    "host_concurrency": 2,
    "fetch_timeout": 2.5,
    "fetch_attempts": 1,
    "max_image_bytes": 1000,
    "max_image_pixels": 2000,
    "user_agent": "someone else/1.0 (me@example.com)",
    "fallback": "wayback",
    "fallback_url": "http://localhost:8080/photos/",
    "fallback_images": "train.tar",
    "original_dir": "data/original",
    "resized_dir": "data/resized",
    "exclude_sha256": "placeholders.txt",
    "retry_reasons": "timeout,dns",
    "max_failed_fraction": 0.7,
    "urls_per_commit": 100,
    "class_names": "names.pkl",
    "url_column": "URL",
    "id_column": "key",
    "class_column": "label",
    "sha256_column": "sha256",
    "md5_column": "md5",
    "image_column": "img",
    "keep_columns": "caption,license",
    "class_file": "classes.csv",
}
# What excludes an option of FULL.
OTHERS = ("images", "validation_input", "validation_images", "validation_ids")
FLAGS = (
    "obey_robots_txt",
    *("allow_private_addresses", "stratify", "statistics", "report", "overwrite", "verbose"),
    *("parts", "drop_grey", "drop_tinted", "near_duplicates", "measures"),
)
TEXTS = ("input", "output", "checkpoint", "user_agent", "original_dir", "resized_dir")
NUMBERS = (
    *(
        "skip",
        "count",
        "image_size",
        "examples_per_shard",
        "validation_fraction",
        "batch_size",
        "fetch_concurrency",
    ),
    *(
        "host_concurrency",
        "fetch_timeout",
        "fetch_attempts",
        "max_image_bytes",
        "max_image_pixels",
        "max_failed_fraction",
    ),
    *("min_side", "max_aspect_ratio", "min_colorfulness"),
    "urls_per_commit",
)
CHOICES = {
    "resize": ("pad", "crop", "stretch"),
    "encoding": ("lab_float32", "lab_uint8", "rgb_png"),
    "compression": ("none", "gzip"),
    "precision": ("float32", "bfloat16"),
    "filter_preset": ("zhang2016", "bigcolor", "unicolor"),
    "fallback": ("none", "wayback"),
}


def refusal(argv: list[str]) -> str:
    """Return the message for an invalid command line; it is always one line."""
    with pytest.raises(UsageError) as caught:
        parse(argv)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_defaults_are_the_documented_ones():
    config, _, rest = parse(REQUIRED)
    assert dataclasses.asdict(config) == DEFAULTS
    assert rest == []


def test_every_option_is_read():
    argv = [word for name, value in FULL.items() for word in (f"--{name}", str(value))] + [
        f"--{name}" for name in FLAGS
    ]
    config, _, rest = parse(argv)
    assert dataclasses.asdict(config) == {
        **FULL,
        **dict.fromkeys(FLAGS, True),
        **dict.fromkeys(OTHERS),
    }
    assert rest == []


def test_options_can_be_written_with_an_equals_sign():
    argv = [f"--{name}={value}" for name, value in FULL.items()] + [f"--{name}" for name in FLAGS]
    config, _, rest = parse(argv)
    assert dataclasses.asdict(config) == {
        **FULL,
        **dict.fromkeys(FLAGS, True),
        **dict.fromkeys(OTHERS),
    }
    assert rest == []


def test_images_replace_a_list():
    config, _, _ = parse(["--images", "photos/*.jpg", "--output", "out"])
    assert (config.images, config.input) == ("photos/*.jpg", None)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in CHOICES.items() for value in values]
)
def test_every_choice_is_accepted(name, value):
    config, _, _ = parse([*REQUIRED, f"--{name}", value])
    assert getattr(config, name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("skip", 0),
            ("count", 1),
            ("image_size", 1),
            ("image_size", 8192),
            ("validation_fraction", 0),
        ),
        *(
            ("validation_fraction", 1),
            ("examples_per_shard", 1),
            ("batch_size", 1),
            ("fetch_attempts", 1),
        ),
    ],
)
def test_the_ends_of_a_range_are_accepted(name, value):
    config, _, _ = parse([*REQUIRED, f"--{name}", str(value)])
    assert getattr(config, name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("skip", "-1"),
            ("count", "0"),
            ("count", "-5"),
            ("image_size", "0"),
            ("image_size", "8193"),
        ),
        *(
            ("examples_per_shard", "0"),
            ("validation_fraction", "-0.1"),
            ("validation_fraction", "1.5"),
        ),
        *(
            ("validation_fraction", "nan"),
            ("batch_size", "0"),
            ("fetch_concurrency", "0"),
            ("host_concurrency", "0"),
        ),
        *(
            ("fetch_timeout", "0"),
            ("fetch_timeout", "-3"),
            ("fetch_timeout", "nan"),
            ("fetch_attempts", "0"),
        ),
        *(("max_image_bytes", "0"), ("max_image_pixels", "0")),
        *(("min_side", "0"), ("max_aspect_ratio", "0.99"), ("min_colorfulness", "-1")),
    ],
)
def test_a_number_out_of_range_is_refused(name, value):
    message = refusal([*REQUIRED, f"--{name}", value])
    assert f"--{name}" in message
    assert "out of range" in message


@pytest.mark.parametrize("name", ["validation_fraction", "max_failed_fraction", "fetch_timeout"])
@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e999"])
def test_a_number_that_is_not_finite_is_refused(name, value):
    message = refusal([*REQUIRED, f"--{name}={value}"])
    assert f"--{name}" in message
    assert "Give a finite number" in message
    assert "at least" in message or "between" in message


def test_a_number_may_be_larger_than_any_float():
    assert Config(input="-", output="-", count=10**400).count == 10**400


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["many", "1,000", "", "3 4"])
def test_what_is_no_number_is_refused(name, value):
    assert f"--{name}" in refusal([*REQUIRED, f"--{name}", value])


@pytest.mark.parametrize(
    "name",
    [name for name in NUMBERS if type_of(name) is int],
)
def test_a_fraction_is_refused_where_an_integer_is_needed(name):
    assert f"--{name}" in refusal([*REQUIRED, f"--{name}", "1.5"])


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", ["other", "PAD", "", "two\nlines"])
def test_an_unknown_choice_is_refused_with_the_known_ones(name, value):
    message = refusal([*REQUIRED, f"--{name}", value])
    assert f"--{name}" in message
    assert all(choice in message for choice in CHOICES[name])


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("value", ["", "two\nlines", "tab\there", "nul\0", "\udcff"])
def test_a_text_that_cannot_be_printed_is_refused(name, value):
    assert f"--{name}" in refusal([*REQUIRED, f"--{name}", value])


@pytest.mark.parametrize("name", [*FULL, *OTHERS])
def test_a_missing_value_is_refused(name):
    assert f"--{name}" in refusal([*REQUIRED, f"--{name}"])
    assert f"--{name}" in refusal([f"--{name}", *REQUIRED])


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_takes_no_value(name):
    assert f"--{name}" in refusal([*REQUIRED, f"--{name}=yes"])


def test_output_is_required():
    assert "--output" in refusal(["--input", "urls.txt"])


@pytest.mark.parametrize("argv", [[], ["--input", "urls.txt", "--images", "*.jpg"]])
def test_just_one_of_input_and_images_is_required(argv):
    message = refusal(["--output", "out", *argv])
    assert "--input" in message
    assert "--images" in message


@pytest.mark.parametrize(
    "options", [{"resize": "other"}, {"image_size": 0}, {"output": ""}, {"images": "*.jpg"}]
)
def test_a_config_made_in_python_is_checked_as_well(options):
    with pytest.raises(UsageError, match=f"--{next(iter(options))}"):
        Config(**{"input": "urls.txt", "output": "out", **options})


def test_other_flags_are_left_for_beam_in_order():
    beam = [
        "--runner",
        "FlinkRunner",
        "--experiments=a",
        "--experiments",
        "b",
        "--streaming",
        "--no_auth",
        "--parallelism",
        "-1",
    ]
    argv = [
        *beam[:2],
        *REQUIRED[:2],
        *beam[2:5],
        "--verbose",
        "--skip",
        "3",
        *beam[5:],
        *REQUIRED[2:],
    ]
    config, _, rest = parse(argv)
    assert rest == beam
    assert (config.input, config.output, config.skip, config.verbose) == (
        "urls.txt",
        "out",
        3,
        True,
    )


@pytest.mark.parametrize(
    "argv", [["--enc", "rgb_png"], ["--image_siz=64"], ["--verb"], ["--image-size", "64"]]
)
def test_names_are_spelled_in_full(argv):
    assert f"{argv[0].partition('=')[0]} is not an option; did you mean --" in refusal(
        [*REQUIRED, *argv]
    )


def test_an_abbreviation_does_not_replace_a_required_option():
    assert "--output" in refusal(["--input", "urls.txt", "--outp", "out"])


def test_help_lists_every_option_and_its_default(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert {field.name for field in dataclasses.fields(Config)} == set(DEFAULTS)
    headings = [
        line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")
    ]
    assert headings[1:9] == [f"{group}:" for group in typing.get_args(Group)]
    for name, default in DEFAULTS.items():
        assert f"--{name}" in text
        if name not in ("input", "output") and default is not None and default is not False:
            assert f"(default: {default}" in text


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"{beam_pipeline.__version__}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": "a.tar", "fallback": "wayback"}, "--fallback is for lists of URLs"),
        ({"images": "a.tar", "fallback_images": "b.tar"}, "--fallback_images is for lists"),
        ({"input": "-", "fallback_url": "http://a.test"}, "needs --fallback wayback"),
        *(
            ({"input": "-", "fallback": "wayback", "fallback_url": url}, "the URL of a server")
            for url in ("a.test", "ftp://a.test/", "http:///web/", "http://a.test/?url=", "http://")
        ),
    ],
)
def test_a_fallback_that_makes_no_sense(options, message):
    with pytest.raises(UsageError, match=message):
        Config(output="out", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"input": "-", "fallback": "wayback", "fallback_url": "https://a.test:81/b/"},
        {"images": "a.tar", "validation_input": "-", "fallback_images": "b.tar"},
    ],
)
def test_a_fallback_of_some_images(options):
    assert Config(output="out", **options).has_fallback


@pytest.mark.parametrize("checkpoint", ["untrained", "none"])
def test_a_sha256_needs_a_checkpoint(checkpoint):
    assert "not " + checkpoint in refusal(
        [*REQUIRED, "--checkpoint", checkpoint, "--checkpoint_sha256", "0" * 64]
    )


@pytest.mark.parametrize("sha256", ["", "0" * 63, "0" * 65, "g" * 64, "sha256:" + "0" * 64])
def test_a_sha256_has_64_digits(sha256):
    assert "--checkpoint_sha256" in refusal([*REQUIRED, "--checkpoint_sha256", sha256])


def test_a_config_cannot_be_changed():
    config, _, _ = parse(REQUIRED)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.skip = 3  # type: ignore[misc]


def test_options_that_shape_the_dataset_are_distinguished():
    others = {
        *(
            "output",
            "batch_size",
            "fetch_concurrency",
            "host_concurrency",
            "fetch_timeout",
            "fetch_attempts",
            "user_agent",
        ),
        *(
            "allow_private_addresses",
            "checkpoint_sha256",
            "original_dir",
            "resized_dir",
            "max_failed_fraction",
            "class_names",
            "report",
            "urls_per_commit",
            "parts",
            "overwrite",
            "verbose",
        ),
    }
    config, _, _ = parse(REQUIRED)
    expected = {name: value for name, value in DEFAULTS.items() if name not in others}
    assert config.dataset_options() == {**expected, "statistics": True, "near_duplicates": True}


@pytest.mark.parametrize(
    ("checkpoint", "expected"), [("none", False), ("untrained", True), ("model.ckpt", True)]
)
def test_has_network(checkpoint, expected):
    config, _, _ = parse([*REQUIRED, "--checkpoint", checkpoint])
    assert config.has_network is expected


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([*DEFAULTS]), st.one_of(st.text(), st.integers().map(str), st.floats().map(str))
)
@example("input", "\x85")
@example("overwrite", "")
@example("user_agent", "%(default)s")
def test_any_value_is_taken_as_it_is_or_refused_in_one_line(name, value):
    try:
        config, _, rest = parse([*REQUIRED, f"--{name}={value}"])
    except UsageError as error:
        assert len(str(error).splitlines()) == 1
        assert f"--{name}" in str(error)
        return
    taken = getattr(config, name)
    assert taken == type(taken)(value)
    assert rest == []


def test_beams_options_add_their_flags_with_the_hook_that_beam_documents():
    class Options(PipelineOptions):
        @classmethod
        def _add_argparse_args(cls, parser):
            parser.add_argument("--of_a_subclass", "--its_alias")
            parser.add_value_provider_argument("--of_a_template")

    for flag in ("--of_a_subclass", "--its_alias", "--of_a_template"):
        check_beam_flags([flag, "x"])


def test_flags_of_beam_are_let_through():
    check_beam_flags(
        [
            "--runner",
            "FlinkRunner",
            "--flink_master=localhost:8081",
            "--parallelism",
            "-1",
            "--experiments",
            "a",
            "--job-server-timeout=60",
        ]
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--flink_mster", "x"],
        ["--abc", "x"],  # an example in Beam's documentation
        ["-x"],
        ["word"],
        ["--runner=a", "word"],
    ],
)
def test_flags_of_nobody_are_not(arguments):
    with pytest.raises(UsageError):
        check_beam_flags(arguments)
