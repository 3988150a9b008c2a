"""A base's folder, read to be tuned, and written again with what was learned.

The published layout (``facebook/sam3``) holds detector and tracker in one: the keys of the tracker, which answers
clicks, are copied as they are, and of the detector those that did not learn.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, Sam3Model, Sam3Processor

from tator_ml.engine.memory import is_out_of_memory
from tator_sdk.errors import TatorError
from training.sam3.adapter import merged

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
DETECTOR = "detector_model."
KINDS = ("sam3", "sam3_video")
_SCALE = "adapter_scale"


class BaseError(TatorError):
    """A model cannot be read, tuned or written; the message says what to do."""


def read_config(base: Path, resolution: int = 0) -> Any:
    """The configuration of a folder, for pictures of another resolution where one is given.

    Raises:
        BaseError: it is none of a SAM 3, or the resolution does not fit.
    """
    try:
        config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BaseError(f"There is no model in {base}; give --base a folder with config.json and weights.") from error
    if config.model_type not in KINDS:
        raise BaseError(f"The model in {base} is a {config.model_type}, not a SAM 3; give another --base.")
    if resolution:
        tower = detector_config(config).vision_config.backbone_config
        if resolution % tower.patch_size:
            lower = max(resolution // tower.patch_size, 1) * tower.patch_size
            raise BaseError(
                f"--resolution must be a multiple of {tower.patch_size} for this model; {lower} or "
                f"{lower + tower.patch_size} would do."
            )
        config.image_size = resolution
        if hasattr(config, "low_res_mask_size"):
            config.low_res_mask_size = 4 * resolution // tower.patch_size
    return config


def detector_config(config: Any) -> Any:
    """The detector's part of a configuration."""
    return getattr(config, "detector_config", None) or config


def load(base: Path, config: Any) -> tuple[Any, Any]:
    """Model and processor of a folder, on the CPU, in single precision.

    Raises:
        BaseError: they cannot be read.
    """
    try:
        model = Sam3Model.from_pretrained(
            base, config=detector_config(config), dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
        return model, Sam3Processor.from_pretrained(base, local_files_only=True)
    except Exception as error:  # a parser, a constructor or a tensor's shape, each in its way
        if is_out_of_memory(error):
            raise BaseError(f"There is too little memory for the model in {base}; free some and try again.") from error
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseError(f"The model in {base} is damaged or of another kind: {said.rstrip('.')}.") from error


def save_learned(path: Path, learned: Mapping[str, Tensor], scale: float) -> None:
    """Write weights that were learned, an adapter's with its scale."""
    whole = {name: one.detach().cpu().contiguous() for name, one in learned.items()}
    save_file(whole, path, {_SCALE: repr(scale)})


def read_learned(path: Path) -> tuple[dict[str, Tensor], float]:
    """What :func:`save_learned` wrote.

    Raises:
        BaseError: it cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            names: Any = file.keys()  # no mapping
            return {name: file.get_tensor(name) for name in names}, float((file.metadata() or {}).get(_SCALE, "1"))
    except (OSError, SafetensorError, ValueError) as error:
        raise BaseError(f"The weights in {path} cannot be read ({error}); take another checkpoint.") from error


def assemble(base: Path, learned: Path, keep: Path, resolution: int = 0) -> Path:
    """Write a whole model in the published layout: a base with what was learned in place of its own.

    Args:
        base: folder of the model that was tuned.
        learned: file of :func:`save_learned`, of a checkpoint or of the best weights.
        keep: folder to write; one that is there is replaced once the new one is whole.
        resolution: that the model was tuned at; 0 for the base's own.

    Returns:
        ``keep``.

    Raises:
        BaseError: one of them cannot be read.
    """
    config = read_config(base, resolution)
    whole, metadata = _read_all(base)
    some, scale = read_learned(learned)
    prefix = DETECTOR if any(name.startswith(DETECTOR) for name in whole) else ""
    own = {name.removeprefix(prefix): one for name, one in whole.items() if name.startswith(prefix)}
    for name, one in merged(some, scale, own).items():
        if name not in own:
            raise BaseError(f"The weights in {learned} belong to another model than the one in {base}.")
        whole[prefix + name] = one.to(own[name].dtype)
    partial = keep.with_name(f".{keep.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for path in base.iterdir():
        if path.is_file() and path.suffix in {".json", ".txt", ".model"} and path.name != INDEX:
            shutil.copy(path, partial / path.name)
    if resolution:
        config.save_pretrained(partial)
        _resize(base, partial, resolution, config)
    save_file(whole, partial / WEIGHTS, metadata)
    shutil.rmtree(keep, ignore_errors=True)
    partial.rename(keep)
    return keep


def _resize(base: Path, folder: Path, resolution: int, config: Any) -> None:
    processor: Any = Sam3Processor.from_pretrained(base, local_files_only=True)
    low = 4 * resolution // detector_config(config).vision_config.backbone_config.patch_size
    processor.image_processor.size = {"height": resolution, "width": resolution}
    processor.image_processor.mask_size = {"height": low, "width": low}
    processor.save_pretrained(folder)


def _read_all(base: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    files = [base / WEIGHTS]
    if (base / INDEX).exists():
        files = [base / name for name in sorted(set(json.loads((base / INDEX).read_text())["weight_map"].values()))]
    found: dict[str, Tensor] = {}
    metadata: dict[str, str] = {"format": "pt"}
    try:
        for path in files:
            with safe_open(path, "pt") as file:
                metadata |= file.metadata() or {}
                names: Any = file.keys()  # no mapping
                found |= {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise BaseError(f"The weights in {base} cannot be read ({error}); fetch them again.") from error
    return found, metadata
