"""Small pictures of single test images, for those who look at results."""

from __future__ import annotations

from collections.abc import Mapping

from resnet_variants.data.dataset import split_hash, split_indices
from resnet_variants.data.images import middle
from resnet_variants.data.sources import MemorySource, open_source
from resnet_variants.records.pictures import SIDE, Thumbnail, picture_text
from resnet_variants.registry import UserError
from resnet_variants.settings import Loading


def thumbnails(
    spec: str, split: str, images: Mapping[int, str], loading: Loading
) -> dict[int, Thumbnail]:
    """The middle squares of test images; only these are decoded.

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
    found: dict[int, Thumbnail] = {}
    for image, title in images.items():
        at = int(indices["test"][image])
        if source.classes[source.labels[at]] != title:
            raise UserError(f"{spec} has other images than the runs were tested on", field="data")
        picture = source.picture(at)
        side = min(SIDE, *picture.size)
        text = picture_text(middle(picture, side, side).transpose(1, 2, 0))
        name = "" if isinstance(source, MemorySource) else source.name(at)
        found[image] = Thumbnail(name, text)
    return found
