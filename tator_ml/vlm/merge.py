"""A run → a whole model in the published layout, which anything that reads Qwens can load."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

from tator_ml.runs import METADATA_FILE
from tator_ml.vlm.loading import find
from tator_ml.vlm.model import VlmError
from tator_ml.vlm.registry import QwenEntry
from tator_sdk.settings import Settings


def merge(entry: QwenEntry, settings: Settings, folder: Path) -> Path:
    """Write a model with its adapter merged into the base's weights, in the precision of these; on the CPU.

    Args:
        entry: of the registry.
        settings: where models lie.
        folder: a new one; the run's ``metadata.json`` is put beside the weights.

    Returns:
        ``folder``.

    Raises:
        VlmError: the folder exists, or the base cannot be found.
    """
    if folder.exists():
        raise VlmError(f"{folder} exists already; name another folder or remove it.")
    base = find(settings, entry.model_id)
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        if entry.adapter is None:
            shutil.copytree(base, partial)
        else:
            model: Any = AutoModelForImageTextToText.from_pretrained(
                base, dtype="auto", local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
            with torch.no_grad():
                model = PeftModel.from_pretrained(model, str(entry.adapter)).merge_and_unload()
            model.save_pretrained(partial, safe_serialization=True)
            processors: Any = AutoProcessor  # without types
            processors.from_pretrained(base, local_files_only=True, trust_remote_code=False).save_pretrained(partial)
        if entry.folder is not None:
            shutil.copy(entry.folder / METADATA_FILE, partial / METADATA_FILE)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
