"""Tests of the 313 bins of a*, b* and their prior."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull, Delaunay
from scipy.stats import norm
from skimage import color

from beam_pipeline.images import ab_gamut
from beam_pipeline.images.ab_gamut import NEAREST, POINTS, smooth_prior


def surface_of_srgb() -> np.ndarray:
    """Return a*, b* of the colours on the surface of the sRGB cube, where its extremes are."""
    levels = np.linspace(0, 1, 256)
    faces = []
    for channel in range(3):
        for value in (0, 1):
            face = np.stack(np.meshgrid(levels, levels, [value], indexing="ij"), -1)
            faces.append(np.roll(face.reshape(-1, 3), channel, axis=1))
    return color.rgb2lab(np.concatenate(faces)[None])[0, :, 1:]


def test_the_points_are_the_corners_of_squares_that_the_hull_of_srgb_reaches():
    surface = surface_of_srgb()
    hull = Delaunay(surface[ConvexHull(surface).vertices])
    # Points 0.05 apart; no square is reached by less.
    axis = np.arange(-120, 120, 0.05)
    corners = set()
    for a in axis:
        line = np.stack([np.full(len(axis), a), axis], axis=-1)
        inside = line[hull.find_simplex(line) >= 0]
        for b in np.unique(np.floor(inside[:, 1] / 10).astype(int) * 10).tolist():
            left = int(np.floor(a / 10)) * 10
            corners |= {(left + x, b + y) for x in (0, 10) for y in (0, 10)}
    assert list(map(tuple, POINTS.tolist())) == sorted(corners)
    assert (POINTS.shape, POINTS.dtype) == ((313, 2), np.int64)


def test_the_points_have_the_published_order():
    # The first, the last and some other rows of pts_in_hull.npy.
    assert POINTS[:7].tolist() == [[-90, b] for b in (50, 60, 70, 80, 90)] + [[-80, 20], [-80, 30]]
    assert POINTS[-10:].tolist() == [[100, b] for b in range(-90, 10, 10)]
    counts = np.unique(POINTS[:, 0], return_counts=True)[1]
    assert counts.tolist() == [
        *(5, 8, 10, 12, 14, 15, 16, 16, 17, 18),
        *(18, 18, 19, 20, 19, 20, 20, 19, 19, 10),
    ]


def test_each_colour_of_srgb_is_in_one_of_the_bins():
    bins = np.unique(np.floor(surface_of_srgb() / 10 + 0.5).astype(int) * 10, axis=0)
    assert {tuple(bin) for bin in bins.tolist()} <= {tuple(point) for point in POINTS.tolist()}


def test_a_bin_of_the_grid_goes_to_the_nearest_point():
    for a, b in POINTS.tolist():
        assert POINTS[NEAREST[(a // 10 + 11) * 23 + b // 10 + 11]].tolist() == [a, b]
    assert POINTS[NEAREST[0]].tolist() in ([-50, -30], [-40, -40], [-60, -20])


@pytest.mark.parametrize("point", [(0, 0), (-90, 50), (100, -40)])
def test_the_smoothing_is_a_gaussian(point):
    frequency = np.zeros((23, 23))
    frequency[point[0] // 10 + 11, point[1] // 10 + 11] = 1
    prior = smooth_prior(frequency)
    density = norm.pdf(POINTS - point, scale=5).prod(axis=1)
    np.testing.assert_allclose(prior, density / density.sum(), atol=1e-12)
    assert (prior.shape, prior.dtype) == ((313,), np.float64)


def test_the_prior_is_a_distribution():
    frequency = np.random.default_rng(0).random((23, 23))
    prior = smooth_prior(frequency / frequency.sum())
    assert prior.sum() == pytest.approx(1) and (prior > 0).all()
    assert not smooth_prior(np.zeros((23, 23))).any()
    assert ab_gamut.SMOOTHING.sum(axis=0) == pytest.approx(1)
