"""Encoders from open_clip: its models by name, or a folder with a model's JSON and safetensors.

Crops come in the model's own size, so open_clip's preprocessing leaves scaling to its mean and
standard deviation; that is all that happens here before the image tower.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tator_ml.engine.encoders.base import EncoderError
from tator_ml.engine.encoders.torch_encoder import (
    BATCH,
    Preprocess,
    TorchEncoder,
    first_line,
    square_side,
    weights_digest,
)

__all__ = [
    "BATCH",
    "MODEL_JSON",
    "WEIGHTS_FILE",
    "OpenClipEncoder",
    "knows",
    "load_folder",
    "load_named",
    "weights_digest",
]

MODEL_JSON, WEIGHTS_FILE = "model.json", "model.safetensors"


class OpenClipEncoder(TorchEncoder):
    """The image tower of an open_clip model, as an ``Encoder``.

    Attributes:
        model: the whole open_clip model in evaluation mode, text tower included.
        version: ``<name>-<digest of the image tower's weights>``.
        size: side of the crops in pixels.
        dim: length of the embeddings.
    """

    model: Any

    def __init__(self, model: Any, name: str, preprocess: Preprocess, device: str = "cpu") -> None:
        version = f"{name}-{weights_digest(model.visual)}"
        super().__init__(model, version, square_side(model.visual.image_size), preprocess, device)

    def features(self, pixels: Tensor) -> Tensor:
        """What ``encode_image`` says to prepared pixels (N, 3, size, size): (N, dim)."""
        embeddings: Tensor = self.model.encode_image(pixels)
        return embeddings


def load_folder(folder: Path, device: str = "cpu") -> OpenClipEncoder:
    """Build a model from ``model.json`` and ``model.safetensors`` of a folder.

    The JSON has the layout of open_clip's ``open_clip_config.json`` (``model_cfg``,
    ``preprocess_cfg``), and the model's ``name``.

    Raises:
        EncoderError: a file is missing or damaged, or they do not fit each other.
    """
    for file in (MODEL_JSON, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise EncoderError(f"The encoder's file {folder / file} is missing.")
    try:
        description = json.loads((folder / MODEL_JSON).read_text("utf-8"))
        model = open_clip.CLIP(**description["model_cfg"])
        chosen = description["preprocess_cfg"]
        preprocess = Preprocess(tuple(chosen["mean"]), tuple(chosen["std"]))
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
        name = str(description["name"])
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise EncoderError(f"The encoder in {folder} is damaged: {first_line(error)}") from error
    return OpenClipEncoder(model, name, preprocess, device)


def knows(model: str) -> bool:
    """Whether open_clip has a model of this name, e.g. ``ViT-B-32`` or ``ViT-B/32``."""
    return model.replace("/", "-") in open_clip.list_models()


def load_named(model: str, weights: str | None = None, device: str = "cpu") -> OpenClipEncoder:
    """Load a model that open_clip knows by name.

    Args:
        model: e.g. ``ViT-B-32``, ``ViT-B/32`` or ``hf-hub:<repository>``.
        weights: a pretrained tag, or a published weights file; the first tag by default, which
            is OpenAI's for the models of the CLIP paper (https://arxiv.org/abs/2103.00020).
        device: where torch runs it.

    Raises:
        EncoderError: no such model, or its weights can neither be fetched nor read.
    """
    from_hub = model.startswith("hf-hub:")
    name = model if from_hub else model.replace("/", "-")
    if not from_hub and not knows(name):
        raise EncoderError(f"open_clip has no model called '{name}'.")
    tags = [] if from_hub else list_pretrained_tags_by_model(name)
    if weights is None and not from_hub:
        if not tags:
            raise EncoderError(f"open_clip has no weights for '{name}'; name a file: {name}@<file>.")
        weights = tags[0]
    is_tag = weights in tags
    if weights is not None and not is_tag and not Path(weights).is_file():
        raise EncoderError(f"'{weights}' is neither a file nor a pretrained tag of {name}.")
    # A tag's weights were trained with one of two activations; the plain names mean the newer.
    quick_gelu = is_tag and bool(get_pretrained_cfg(name, weights).get("quick_gelu", False))
    try:
        built: Any = open_clip.create_model(
            name, weights, force_quick_gelu=quick_gelu, require_pretrained=True, weights_only=True
        )
    except Exception as error:  # hub, network, file system and unpickling each raise their own
        if weights is not None and not is_tag:
            raise EncoderError(f"The weights file {weights} does not fit {name}.") from error
        suffix = "-quickgelu" if quick_gelu and "quickgelu" not in name else ""
        raise EncoderError(
            f"The weights '{weights or name}' could not be fetched from the hub; download them elsewhere and "
            f"name the file: open_clip:{name}{suffix}@<file>."
        ) from error
    chosen = built.visual.preprocess_cfg
    preprocess = Preprocess(tuple(chosen["mean"]), tuple(chosen["std"]))
    label = f"open_clip-{name}" + (f"-{weights}" if is_tag else "")
    return OpenClipEncoder(built, label.replace("/", "-").replace(":", "-"), preprocess, device)
