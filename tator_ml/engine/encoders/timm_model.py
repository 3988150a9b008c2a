"""Encoders from timm: its models by name, with the published weights or a file's.

Crops come in the model's own size, so timm's preprocessing leaves scaling to its mean and
standard deviation, as in ``openclip``.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from torch import Tensor

from tator_ml.engine.encoders.base import EncoderError
from tator_ml.engine.encoders.torch_encoder import Preprocess, TorchEncoder, first_line, square_side, weights_digest
from tator_ml.engine.segmenters.weights import WeightsUnreadable, fill, read

_DATA: Any = timm.data  # has no types


class TimmEncoder(TorchEncoder):
    """A timm model without its classifier, as an ``Encoder``.

    Attributes:
        model: in evaluation mode.
        version: ``timm-<architecture>-<digest of the weights, mean and deviation>``, the same for
            the same weights, whether they came from the hub or from a file.
        size: side of the crops in pixels.
        dim: length of the embeddings.
    """

    model: Any

    def __init__(self, model: Any, architecture: str, device: str = "cpu") -> None:
        chosen = _DATA.resolve_model_data_config(model)
        size = square_side(tuple(chosen["input_size"][1:]))
        preprocess = Preprocess(tuple(chosen["mean"]), tuple(chosen["std"]))
        version = f"timm-{architecture}-{weights_digest(model, f'size {size}, {preprocess}')}"
        super().__init__(model, version, size, preprocess, device)

    def features(self, pixels: Tensor) -> Tensor:
        """Prepared pixels (N, 3, size, size) → (N, dim): the pooled features before the classifier."""
        pooled: Tensor = self.model(pixels)
        return pooled


def load(name: str, weights: str | None = None, device: str = "cpu") -> TimmEncoder:
    """Load a model that timm knows by name.

    Args:
        name: an architecture and, after a full stop, a pretrained tag, e.g. ``resnet50`` or
            ``vit_small_patch14_dinov2.lvd142m``.
        weights: a file in timm's layout, ``.safetensors`` or of ``torch.save``, with or without
            the classifier; the hub's by default.
        device: where torch runs it.

    Raises:
        EncoderError: no such model, or its weights can neither be fetched nor read.
    """
    architecture = name.partition(".")[0]
    try:
        if not timm.is_model(architecture):
            raise EncoderError(f"timm has no model called '{architecture}'.")
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise EncoderError(f"timm has no weights called '{name}': {first_line(error)}") from error
    if weights is None:
        model = _published(name, config)
    else:
        model = timm.create_model(name, pretrained=False, num_classes=0)
        _fill_from(model, Path(weights).expanduser(), name)
    return TimmEncoder(model, architecture, device)


def _published(name: str, config: Any) -> Any:
    """The model with weights from timm's hub or its cache."""
    if config is None or not (config.hf_hub_id or config.url):
        raise EncoderError(f"timm has no weights for '{name}'; name a file: timm:{name}@<file>.")
    try:
        if config.hf_hub_id:
            _ask(config.hf_hub_id, config.hf_hub_filename or "model.safetensors")
        return timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # hub, network and file system each raise their own
        raise EncoderError(
            f"The weights of '{name}' could not be fetched from the hub; download them elsewhere and "
            f"name the file: timm:{name}@<file>."
        ) from error


def _ask(repository: str, file: str) -> None:
    """Raise what the hub's client raises where a file is neither cached nor to be had.

    Asks once; timm's own download tries for long before it gives up.
    """
    if not isinstance(try_to_load_from_cache(repository, file), str):
        get_hf_file_metadata(hf_hub_url(repository, "config.json"))


def _fill_from(model: Any, path: Path, name: str) -> None:
    """Give a model without classifier a file's weights: all of its own, and none beside the classifier's."""
    if not path.is_file():
        raise EncoderError(f"Put {path.name} into {path.parent.absolute()}, or name another file: it is not there.")
    heads = model.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    try:
        state = read(path)
        if _without(state, heads).keys() != model.state_dict().keys():
            # An older or the authors' own layout: timm's modules know how to translate theirs.
            translate = getattr(importlib.import_module(type(model).__module__), "checkpoint_filter_fn", None)
            state = translate(state, model) if translate else state
        fill(model, _without(state, heads), path, name)
    except WeightsUnreadable as error:
        raise EncoderError(str(error)) from error
    except Exception as error:  # a translator met keys or shapes that it does not know
        raise EncoderError(f"{path} does not hold weights of {name}: {first_line(error)}") from error


def _without(state: dict[str, Tensor], heads: tuple[str, ...]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(tuple(f"{head}." for head in heads))}
