"""The options of a run into a folder, and what the folder contains."""

from beam_pipeline.config import Config


def make_config(folder, **options) -> Config:
    return Config(
        **{
            "input": "http://127.0.0.1/urls.txt",
            "output": str(folder),
            "checkpoint": "none",
            **options,
        }
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())
