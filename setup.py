"""Script for Beam's --setup_file; the metadata is in pyproject.toml."""

import setuptools

setuptools.setup()
