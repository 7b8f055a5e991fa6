"""Gives each page the path of its file in the repository, so that links work in both."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# Pages, and what pages link to, outside of docs/.
OTHERS = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md"),
    *("benchmarks/FETCHING.md", "benchmarks/RESULTS.md", "benchmarks/SOAK.md"),
    *("Dockerfile", "LICENSE", "examples/flink.sh", "examples/train_colorizer.py"),
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    root = Path(config.config_file_path).parent
    paths = [root / name for name in OTHERS]
    for file in list(files):
        if file.src_dir == config.docs_dir:  # not the theme's
            files.remove(file)
            paths.append(Path(config.docs_dir, file.src_uri))
    for path in paths:
        name = path.relative_to(root).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files
