"""Encoders from open_clip: its models by name, or a folder with a model's JSON and safetensors.

Crops come in the model's own size, so open_clip's preprocessing leaves scaling to its mean and
standard deviation; that is all that happens here before the image tower.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tator_ml.engine.encoders.base import EncoderError

MODEL_JSON, WEIGHTS_FILE = "model.json", "model.safetensors"
BATCH = 64  # crops that go through the image tower together, so that memory stays bounded


@dataclass(frozen=True)
class Preprocess:
    """What the model subtracts from and divides channels (0..1, RGB) by."""

    mean: tuple[float, float, float] = open_clip.OPENAI_DATASET_MEAN
    std: tuple[float, float, float] = open_clip.OPENAI_DATASET_STD


class OpenClipEncoder:
    """The image tower of an open_clip model, as an ``Encoder``.

    Attributes:
        model: the whole open_clip model in evaluation mode, text tower included.
        version: ``<name>-<digest of the image tower's weights>``.
        size: side of the crops in pixels.
        dim: length of the embeddings.
    """

    def __init__(self, model: Any, name: str, preprocess: Preprocess, device: str = "cpu") -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        self.device = torch.device(device)
        self.version = f"{name}-{weights_digest(self.model.visual)}"
        self.size = _side(self.model.visual.image_size)
        self.mean = torch.tensor(preprocess.mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(preprocess.std, device=device).view(1, 3, 1, 1)
        self.dim = self.embed_pixels(torch.zeros(1, 3, self.size, self.size)).shape[1]

    def embed(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """N crops, each (size, size, 3) uint8 RGB → (N, dim) float32 of L2 norm 1.

        Raises:
            EncoderError: a crop has another shape or dtype.
        """
        wanted = (self.size, self.size, 3)
        for crop in crops:
            if crop.shape != wanted or crop.dtype != np.uint8:
                raise EncoderError(f"{self.version} takes crops of {wanted} uint8, not {crop.shape} {crop.dtype}.")
        if not len(crops):
            return np.zeros((0, self.dim), np.float32)
        parts = []
        for first in range(0, len(crops), BATCH):
            pixels = torch.from_numpy(np.stack(crops[first : first + BATCH])).permute(0, 3, 1, 2)
            parts.append(self.embed_pixels(pixels).cpu().numpy())
        return np.concatenate(parts)

    @torch.inference_mode()
    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """Crops (N, 3, size, size), values 0..255 of any dtype → (N, dim) float32 of L2 norm 1."""
        scaled = pixels.to(self.device, torch.float32) / 255
        embeddings: Tensor = self.model.encode_image((scaled - self.mean) / self.std, normalize=True)
        return embeddings.float()


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
        raise EncoderError(f"The encoder in {folder} is damaged: {_first_line(error)}") from error
    return OpenClipEncoder(model, name, preprocess, device)


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
    if not from_hub and name not in open_clip.list_models():
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


def weights_digest(module: nn.Module) -> str:
    """Eight hexadecimal digits that stand for a module's weights: names, values, dtypes."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:8]


def _side(image_size: int | tuple[int, int]) -> int:
    sides = {image_size} if isinstance(image_size, int) else set(image_size)
    if len(sides) != 1:
        raise EncoderError(f"Crops are square, but this model takes pictures of {image_size} pixels.")
    return int(sides.pop())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
