"""Tests of the choice of the split."""

import numpy as np
import pytest

from beam_pipeline.elements import EmbeddedImage, ImageRef, RgbImage
from beam_pipeline.transforms import encode_examples


@pytest.mark.parametrize(("fraction", "share"), [(0, 0), (0.25, 0.25), (1, 1)])
def test_validation_share(fraction, share):
    chosen = [
        encode_examples.validation_index(
            EmbeddedImage(RgbImage(ImageRef("", str(number)), np.empty(0), (1, 1)), None),
            2,
            fraction,
        )
        for number in range(4000)
    ]
    assert abs(np.mean(chosen) - share) < 0.03
