"""Small pictures of single test images, for those who look at results."""

from __future__ import annotations

from collections.abc import Sequence

from resnet_variants.data.dataset import split_hash, split_indices
from resnet_variants.data.images import middle
from resnet_variants.data.sources import open_source
from resnet_variants.records.pictures import SIDE, picture_text
from resnet_variants.registry import UserError
from resnet_variants.settings import Loading


def thumbnails(spec: str, split: str, images: Sequence[int], loading: Loading) -> dict[int, str]:
    """The middle squares of test images, as text; only these are decoded.

    Args:
        spec: names the data set.
        split: the digest of its splits.
        images: places in the test split.
        loading: where downloaded data is.

    Raises:
        ValueError: no such data, other splits, or a broken image.
    """
    source = open_source(spec, loading.data_dir)
    indices = split_indices(source)
    if split_hash(indices) != split:
        raise UserError(f"{spec} has other splits now than when the runs were trained")
    found: dict[int, str] = {}
    for image in images:
        picture = source.picture(int(indices["test"][image]))
        side = min(SIDE, *picture.size)
        found[image] = picture_text(middle(picture, side, side).transpose(1, 2, 0))
    return found
