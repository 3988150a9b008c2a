"""The segmenters by name: those of the table, and those of other packages (``docs/extending.md``).

An adapter is a module with ``load(path, device, name)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from tator_ml.engine import installed
from tator_sdk.errors import TatorError

if TYPE_CHECKING:  # the names are also wanted where there is no torch
    from torch import device as Device

    from tator_ml.engine.segmenters.base import Segmenter


@dataclass(frozen=True)
class Published:
    """A segmenter that can be asked for by name.

    Attributes:
        adapter: module of this package, or an installed one's whole name, whose ``load(path, device, name)`` makes it.
        weights: ``hub/repository:file``, or the name of a file in ``tator_ml/weights``; or ``hub/repository`` where
            a whole folder is needed. None where the adapter's ``WEIGHTS`` says it, if it needs any.
    """

    adapter: str
    weights: str | None


STARTER_FILE = "starter_segmenter.safetensors"
SEGMENTERS = {
    "starter": Published("starter", STARTER_FILE),
    "sam1-vit_b": Published("sam1", "ybelkada/segment-anything:checkpoints/sam_vit_b_01ec64.pth"),
    "sam1-vit_l": Published("sam1", "ybelkada/segment-anything:checkpoints/sam_vit_l_0b3195.pth"),
    "sam1-vit_h": Published("sam1", "ybelkada/segment-anything:checkpoints/sam_vit_h_4b8939.pth"),
    "sam2-tiny": Published("sam2", "facebook/sam2.1-hiera-tiny:sam2.1_hiera_tiny.pt"),
    "sam2-small": Published("sam2", "facebook/sam2.1-hiera-small:sam2.1_hiera_small.pt"),
    "sam2-base_plus": Published("sam2", "facebook/sam2.1-hiera-base-plus:sam2.1_hiera_base_plus.pt"),
    "sam2-large": Published("sam2", "facebook/sam2.1-hiera-large:sam2.1_hiera_large.pt"),
    "sam3": Published("sam3", "facebook/sam3"),
    "mobile_sam": Published("mobile_sam", "dhkim2810/MobileSAM:mobile_sam.pt"),
}


class UnknownSegmenter(TatorError):
    """A name that is not in the table; the message is one sentence for a person."""


def names() -> tuple[str, ...]:
    """Every segmenter that can be asked for; an own one goes before another package's of the same name."""
    return tuple(dict.fromkeys((*SEGMENTERS, *installed.installed(installed.SEGMENTERS))))


def published(name: str) -> Published:
    """Look a segmenter up.

    Raises:
        UnknownSegmenter: with the names there are.
    """
    if name in SEGMENTERS:
        return SEGMENTERS[name]
    found = installed.installed(installed.SEGMENTERS).get(name)
    if found is None:
        raise UnknownSegmenter(f"There is no segmenter {name!r}: choose one of {', '.join(names())}.")
    return Published(found.module, None)


def load(name: str, checkpoint: str | None, models_dir: Path, device: Device | str, offline: bool = False) -> Segmenter:
    """Make a segmenter ready for use.

    Args:
        name: one of ``names()``.
        checkpoint: a path, ``hub/repository:file``, or None for the published weights. Of ``sam3``: a folder, or
            ``hub/repository``.
        models_dir: where weights are looked for, and downloaded to.
        device: where the model is to live, e.g. ``cuda:0``.
        offline: never try the hub.

    Returns:
        The segmenter; its ``version`` is the name and eight digits of its weights.

    Raises:
        UnknownSegmenter: the name is not in the table.
        WeightsMissing: there is no file, and none could be downloaded.
        WeightsUnreadable: the file is damaged or of another architecture.
    """
    found = published(name)

    from tator_ml.engine.segmenters import weights

    adapter = import_module(f"{__name__}.{found.adapter}" if name in SEGMENTERS else found.adapter)
    own: str | None = found.weights or getattr(adapter, "WEIGHTS", None)
    path = weights.find(own, checkpoint, models_dir, offline) if own or checkpoint else None
    segmenter: Segmenter = adapter.load(path, device, name)
    return segmenter
