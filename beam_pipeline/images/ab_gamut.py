"""The 313 bins of a*, b* of Zhang et al. 2016, and their smoothed frequencies. Pure.

Source: Zhang, Isola and Efros, "Colorful Image Colorization", 2016, https://arxiv.org/abs/1603.08511,
section 2.2, and `resources/pts_in_hull.npy` in https://github.com/richzhang/colorization, which
OpenCV's samples/dnn/colorization.cpp repeats as text.
"""

from __future__ import annotations

import numpy as np

from beam_pipeline.images.lab_color import AB_BIN, AB_BINS

# The standard deviation of the smoothing, and the share of uniform frequencies in the weights.
SIGMA, UNIFORM = 5.0, 0.5

# The first and the last b* of the bins of each a*, from -90 to 100 in steps of 10. They are the
# corners of all squares of the grid that hold an sRGB colour, and four more: (40, 90), (100, -90),
# (100, -10) and (100, 0).
_B_RANGES = (
    *((50, 90), (20, 90), (0, 90), (-20, 90), (-30, 100), (-40, 100), (-50, 100), (-50, 100)),
    *((-60, 100), (-70, 100), (-80, 90), (-80, 90), (-90, 90), (-100, 90), (-100, 80)),
    *((-110, 80), (-110, 80), (-110, 70), (-110, 70), (-90, 0)),
)

# int64 (313, 2): the centres of the bins, by a*, then b*.
POINTS = np.array(
    [
        (a, b)
        for a, (first, last) in zip(range(-90, 110, AB_BIN), _B_RANGES, strict=True)
        for b in range(first, last + 1, AB_BIN)
    ],
    np.int64,
)


def _square_distances(points: np.ndarray) -> np.ndarray:
    """Return the square distances from all points to `POINTS`, float64 (N, 313)."""
    return np.square(points[:, None].astype(np.float64) - POINTS).sum(axis=2)


_AXIS = AB_BIN * (np.arange(AB_BINS) - AB_BINS // 2)
_GRID = np.stack(np.meshgrid(_AXIS, _AXIS, indexing="ij"), axis=-1).reshape(-1, 2)
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
