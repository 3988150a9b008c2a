"""Settings → a loaded engine."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from tator_ml.engine import encoders, segmenters
from tator_ml.engine.classify import HeadClassifier
from tator_ml.engine.engine import Engine
from tator_ml.engine.head import Head
from tator_ml.engine.models import ClassModels, Segmenters
from tator_ml.engine.segmenters.base import Segmenter
from tator_ml.engine.segmenters.half import HalfPrecision
from tator_ml.images.store import ImageStore
from tator_sdk.settings import Settings

log = logging.getLogger(__name__)
STARTER_HEAD = Path(__file__).parents[1] / "weights" / "starter_head"


def choose_device(wanted: str) -> str:
    """``auto`` → the first of cuda, mps and cpu that this machine has; anything else as it is."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load_segmenter(settings: Settings, name: str, device: str) -> Segmenter:
    """Load a segmenter; the checkpoint of the settings belongs to the one that they name.

    Raises:
        TatorError: weights are missing or do not fit; the message says where to put which file.
    """
    checkpoint = settings.segmenter_checkpoint if name == settings.segmenter else None
    segmenter = segmenters.load(name, checkpoint, settings.weights_dir, device, settings.offline)
    if settings.precision == "float32":
        return segmenter
    return HalfPrecision(segmenter, settings.precision, device)


def load_engine(settings: Settings) -> Engine:
    """Load what the settings name.

    Raises:
        TatorError: weights are missing or do not fit; the message says where to put which file.
    """
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    device = choose_device(settings.device)
    loaded = Segmenters(
        settings.segmenter,
        lambda name: load_segmenter(settings, name, device),
        load_on_cpu=None if device == "cpu" else lambda name: load_segmenter(settings, name, "cpu"),
    )
    loaded.get()
    models = ClassModels(lambda name: encoders.load(name, device))
    encoder = models.encoder(settings.encoder)
    classifier = None
    if settings.head is not None or settings.encoder == "starter":
        classifier = HeadClassifier(encoder, Head.load(settings.head or STARTER_HEAD))
    store = ImageStore(settings.home / "images", settings.image_store_bytes)
    engine = Engine(settings, store, loaded, classifier, device, models)
    log.info("engine ready on %s: %s", device, engine.model_version)
    return engine
