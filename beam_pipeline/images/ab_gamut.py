"""The 313 bins of a*, b* of Zhang et al. 2016, and their smoothed frequencies. Pure.

Source: Zhang, Isola and Efros, "Colorful Image Colorization", 2016, https://arxiv.org/abs/1603.08511,
section 2.2, and `resources/pts_in_hull.npy` in https://github.com/richzhang/colorization, which
OpenCV's samples/dnn/colorization.cpp repeats as text.
"""

from __future__ import annotations

import numpy as np

from beam_pipeline.images.lab_color import AB_BIN, AB_BINS, rgb_to_lab

# The standard deviation of the smoothing, and the share of uniform frequencies in the weights.
SIGMA, UNIFORM = 5.0, 0.5

_AXIS = AB_BIN * (np.arange(AB_BINS) - AB_BINS // 2)
_GRID = np.stack(np.meshgrid(_AXIS, _AXIS, indexing="ij"), axis=-1).reshape(-1, 2)


def _find_points() -> np.ndarray:
    """Return the points of the grid that are corners of squares which the gamut's hull reaches.

    That is, those less than one step from the convex hull of the sRGB gamut in both a* and b*. The
    paper states no rule; this one gives exactly the published points.
    """
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    colors = rgb_to_lab(cube)[0, :, 1:].astype(np.float64)
    # A point outside of a convex set is farther out than the set in some direction.
    angles = np.radians(np.arange(360))
    directions = np.stack([np.cos(angles), np.sin(angles)])
    reach = (colors @ directions).max(axis=0) + AB_BIN * np.abs(directions).sum(axis=0)
    return _GRID[(_GRID @ directions < reach).all(axis=1)]


# int64 (313, 2): the centres of the bins, by a*, then b*.
POINTS = _find_points()


def _square_distances(points: np.ndarray) -> np.ndarray:
    """Return the square distances from all points to `POINTS`, float64 (N, 313)."""
    return np.square(points[:, None].astype(np.float64) - POINTS).sum(axis=2)


# int64 (529,): the index in `POINTS` that is nearest to each bin of `Statistics.ab_frequency`. Bins
# beyond the 313 are empty but for the rounding of 8-bit encodings.
NEAREST = _square_distances(_GRID).argmin(axis=1)

_kernel = np.exp(-_square_distances(POINTS) / (2 * SIGMA**2))
# float64 (313, 313): column j has the shares of bin j that each bin receives.
SMOOTHING = _kernel / _kernel.sum(axis=0)


def smooth_prior(frequency: np.ndarray) -> np.ndarray:
    """Return the frequencies of the 313 bins, smoothed by a Gaussian of standard deviation 5.

    This is `prior_probs.npy` of Zhang et al.: the weights of their loss are the inverse of its mix
    with uniform frequencies.

    Args:
      frequency: The share of pixels in each bin of the grid, (23, 23), as in
        `Statistics.ab_frequency`.

    Returns:
      float64 (313,), sum 1, or 0 if all shares are 0.
    """
    shares = np.asarray(frequency, np.float64).ravel()
    smoothed = SMOOTHING @ np.bincount(NEAREST, shares, len(POINTS))
    return smoothed / (smoothed.sum() or 1)
