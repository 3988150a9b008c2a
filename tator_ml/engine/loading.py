"""Settings → a loaded engine."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from tator_ml.engine import encoders
from tator_ml.engine.classify import HeadClassifier
from tator_ml.engine.engine import Engine
from tator_ml.engine.head import Head
from tator_ml.engine.models import ClassModels
from tator_ml.engine.named import all_segmenters
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


def load_engine(settings: Settings) -> Engine:
    """Load what the settings name.

    Raises:
        TatorError: weights are missing or do not fit; the message says where to put which file.
    """
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    device = choose_device(settings.device)
    loaded = all_segmenters(settings, device)
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
