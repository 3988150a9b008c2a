"""Segmenters by the names that settings and projects have for them."""

from __future__ import annotations

from tator_ml.engine import segmenters
from tator_ml.engine.models import Segmenters
from tator_ml.engine.segmenters.base import Segmenter
from tator_ml.engine.segmenters.half import HalfPrecision
from tator_ml.sam3.files import find_files, is_sam3
from tator_sdk.settings import Settings


def load_segmenter(settings: Settings, name: str, device: str) -> Segmenter:
    """Load a segmenter; the checkpoint of the settings belongs to the one that they name.

    Raises:
        TatorError: weights are missing or do not fit; the message says where to put which file.
    """
    segmenter = _loaded(settings, name, device)
    if settings.precision == "float32":
        return segmenter
    return HalfPrecision(segmenter, settings.precision, device)


def segmenter_device(settings: Settings, name: str, device: str) -> str:
    """Where a segmenter computes: SAM 3 where its own setting says, others where the engine does.

    Whatever device it is: embeddings from the engine's are brought to it, and its answers are taken to the CPU.
    """
    return device if settings.sam3_device == "auto" or not is_sam3(name) else settings.sam3_device


def all_segmenters(settings: Settings, device: str, given: Segmenter | None = None) -> Segmenters:
    """Those that may be asked for.

    Args:
        settings: name the engine's own, precision and places of weights.
        device: of the engine.
        given: the engine's own, made elsewhere.
    """
    return Segmenters(
        settings.segmenter,
        lambda name: load_segmenter(settings, name, segmenter_device(settings, name, device)),
        given,
        load_on_cpu=None if device == "cpu" else lambda name: load_segmenter(settings, name, "cpu"),
    )


def _loaded(settings: Settings, name: str, device: str) -> Segmenter:
    if is_sam3(name):
        from tator_ml.engine.segmenters import sam3  # transformers takes seconds: not before it is needed

        return sam3.load_files(find_files(settings, name), device, name)
    checkpoint = settings.segmenter_checkpoint if name == settings.segmenter else None
    return segmenters.load(name, checkpoint, settings.weights_dir, device, settings.offline)
