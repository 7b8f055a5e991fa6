"""Filters by size and colour, and the presets of published projects. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from beam_pipeline.images.measures import Measures

# Zhang, Isola and Efros 2016: an image is grey unless |a*| or |b*| of a pixel exceeds 5.
GREY_CHROMA = 5.0
# A widely used test for images of one hue.
TINTED = 22.0


class Filters(NamedTuple):
    """The filters of a run; the defaults let every image pass.

    Attributes:
      min_side: Minimum length of the shorter side of the original, pixels.
      max_aspect_ratio: Maximum ratio of the longer to the shorter side of the original.
      drop_grey: Whether to drop images with `max_chroma_ab` of at most `GREY_CHROMA`.
      drop_tinted: Whether to drop images with `tint` of at most `TINTED` that are not grey.
      min_colorfulness: Minimum of `colorfulness_abs`.
    """

    min_side: int | None = None
    max_aspect_ratio: float | None = None
    drop_grey: bool = False
    drop_tinted: bool = False
    min_colorfulness: float | None = None


# What is published of the projects: richzhang/colorization masks grey images; BigColor and UniColor
# drop images below a colorfulness.
PRESETS: Mapping[str, Filters] = MappingProxyType(
    {
        "zhang2016": Filters(drop_grey=True),
        "bigcolor": Filters(min_colorfulness=15.0),
        "unicolor": Filters(min_colorfulness=10.0),
    }
)


def find_reason(
    filters: Filters, size: tuple[int, int], measures: Measures
) -> tuple[str, str] | None:
    """Return why an image is dropped: the reason, and a sentence with the measured value.

    Args:
      filters: The filters, of which the first that drops the image counts.
      size: Width and height of the original, pixels.
      measures: The measures of the resized image.

    Returns:
      None if the image passes.
    """
    short, long = sorted(size)
    ratio = long / short
    is_grey = measures.max_chroma_ab <= GREY_CHROMA
    if filters.min_side is not None and short < filters.min_side:
        return "too_small", f"its shorter side has {short} pixels, fewer than {filters.min_side}"
    if filters.max_aspect_ratio is not None and ratio > filters.max_aspect_ratio:
        return (
            "too_elongated",
            f"its aspect ratio is {ratio:.4g}, more than {filters.max_aspect_ratio:g}",
        )
    if filters.drop_grey and is_grey:
        return "grey", f"max_chroma_ab is {measures.max_chroma_ab:.4g}, at most {GREY_CHROMA:g}"
    if filters.drop_tinted and not is_grey and measures.tint <= TINTED:
        return "tinted", f"tint is {round(measures.tint, 3):g}, at most {TINTED:g}"
    lowest = filters.min_colorfulness
    if lowest is not None and measures.colorfulness_abs < lowest:
        return (
            "low_colorfulness",
            f"colorfulness_abs is {measures.colorfulness_abs:.4g}, less than {lowest:g}",
        )
    return None
