"""A hub id or folder, and perhaps an adapter → a model that can be asked."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel

from tator_ml.engine.memory import is_out_of_memory
from tator_ml.hub_folder import Shelf, weights_digest
from tator_ml.vlm.coordinates import coordinates_of
from tator_ml.vlm.model import Vlm, VlmError, bound
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings

log = logging.getLogger(__name__)

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def load_vlm(
    settings: Settings,
    model_id: str,
    device: str,
    adapter: Path | None = None,
    name: str | None = None,
    longest_side: int | None = None,
) -> Vlm:
    """Load a model. Code that lies beside its weights is not run.

    Args:
        settings: where models lie, whether the hub may be asked, and bounds of pictures.
        model_id: a folder in the published layout, or a repository on the hub.
        device: where it is to compute.
        adapter: folder of a LoRA adapter in peft's layout, which is merged into it.
        name: what the version begins with; by default the last part of ``model_id``.
        longest_side: see :class:`Vlm`.

    Raises:
        VlmError: files are missing or damaged, or cannot be fetched.
        UnknownFamily: it is none of those whose coordinates are known.
    """
    folder = find(settings, model_id)
    if adapter is not None:
        for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            if not (adapter / file).is_file():
                raise VlmError(f"Put {file} into {adapter.absolute()}, or choose another model: it is not there.")
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it would fill the log
    version = f"{name or Path(model_id).name}-{weights_digest(folder, *([adapter] if adapter else []))}"
    try:
        config: Any = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        coordinates_of(config.model_type)  # before gigabytes are read
        processor: Any = transformers.AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, local_files_only=True, trust_remote_code=False
        )
        bound(processor, settings.qwen_min_visual_tokens, settings.qwen_max_visual_tokens)
        model = _model(folder, _dtype(settings.qwen_precision, device))
        if adapter is not None:
            merged: Any = PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
            model = merged.merge_and_unload()
        return Vlm(model.to(device), processor, version, longest_side)
    except TatorError:
        raise
    except Exception as error:  # a parser, a constructor or a tensor's shape, each in its way
        if is_out_of_memory(error):
            raise
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        with_adapter = f" with the adapter in {adapter}" if adapter else ""
        raise VlmError(
            f"The model in {folder}{with_adapter} is damaged or of another kind: {said.rstrip('.')}."
        ) from error


def find(settings: Settings, model_id: str) -> Path:
    """The folder of a model: itself, its name in the models' folder, or the hub's cache, fetched if need be.

    Raises:
        VlmError: it is nowhere, or incomplete; the message says where to put it.
    """
    return Shelf(settings.weights_dir, settings.offline, "QWEN_MODEL_NAME", VlmError).find(model_id)


def _dtype(precision: str, device: str) -> torch.dtype:
    if precision == "auto":
        return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def _model(folder: Path, dtype: torch.dtype) -> Any:
    """The model with all its weights."""
    kind: Any = transformers.AutoModelForImageTextToText
    model, report = kind.from_pretrained(
        folder,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )
    missing = sorted(report["missing_keys"]) + [str(key) for key in report["mismatched_keys"]]
    if missing:
        raise VlmError(f"The weights in {folder} do not fit their config.json: {missing[0]} is not among them.")
    return model
