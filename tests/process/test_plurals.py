"""Tests of numbers with their nouns."""

import doctest

from beam_pipeline.process import plurals


def test_the_examples_of_the_docstrings():
    assert doctest.testmod(plurals).failed == 0


def test_a_noun_with_a_plural_of_its_own():
    assert plurals.count(1, "class", "classes") == "1 class"
    assert plurals.count(0, "class", "classes") == "0 classes"
    assert plurals.inflect(2, "class", "classes") == "classes"
