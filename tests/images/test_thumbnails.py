"""Tests of the small pictures of reports."""

import io

import numpy as np
import pytest
from PIL import Image

from beam_pipeline.images import lab_color, thumbnails


@pytest.mark.parametrize(("height", "width"), [(299, 224), (1, 299), (1200, 30), (7, 5)])
def test_a_pair_has_the_grey_image_on_the_left(height, width):
    lab = lab_color.rgb_to_lab(np.full((height, width, 3), (250, 40, 40), np.uint8))
    data, size = thumbnails.make_pair(lab)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("JPEG", size)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    if min(height, width) > 1:
        assert max(size[0] // 2, size[1]) <= 150
    # JPEG blurs the colours of narrow pictures.
    assert pixels[:, 0].std(axis=-1).mean() < pixels[:, -1].std(axis=-1).mean() / 2
