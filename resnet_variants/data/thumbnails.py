"""Small pictures of single test images, for those who look at results."""

from __future__ import annotations

from collections.abc import Mapping

from resnet_variants.data.dataset import split_hash, split_indices
from resnet_variants.data.images import middle
from resnet_variants.data.sources import open_source
from resnet_variants.records.pictures import SIDE, picture_text
from resnet_variants.registry import UserError
from resnet_variants.settings import Loading


def thumbnails(
    spec: str, split: str, images: Mapping[int, str], loading: Loading
) -> dict[int, str]:
    """The middle squares of test images, as text; only these are decoded.

    Args:
        spec: names the data set.
        split: the digest of its splits.
        images: the class of each by its place in the test split.
        loading: where downloaded data is.

    Raises:
        ValueError: no such data, other splits or classes, or a broken image.
    """
    source = open_source(spec, loading.data_dir)
    indices = split_indices(source)
    if split_hash(indices) != split:
        raise UserError(f"{spec} has other splits than the runs were trained with", field="data")
    found: dict[int, str] = {}
    for image, title in images.items():
        at = int(indices["test"][image])
        if source.classes[source.labels[at]] != title:
            raise UserError(f"{spec} has other images than the runs were tested on", field="data")
        picture = source.picture(at)
        side = min(SIDE, *picture.size)
        found[image] = picture_text(middle(picture, side, side).transpose(1, 2, 0))
    return found
