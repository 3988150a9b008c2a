"""Verbs about models that are asked in words: ``models qwen list``, ``show``, ``activate`` and others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tator_ml.cli.runs import Id, Kind, add_run_verbs
from tator_ml.cli.serving import Home, read_settings
from tator_sdk.settings import Settings

if TYPE_CHECKING:
    from tator_ml.vlm.registry import QwenEntry, QwenRegistry

qwen = typer.Typer(name="qwen", no_args_is_help=True)


@qwen.callback()
def _about() -> None:
    """Models that are asked in words: the base, and what was tuned from it.

    The active one of a project answers its prompts, with the system prompt and the context it was trained with.

    Example: tator models qwen list

    Example: tator models qwen activate qwen-p3-2 --project 3

    Example: tator models qwen rollback --project 3
    """


def _open(settings: Settings) -> QwenRegistry:
    from tator_ml.vlm.registry import qwen_registry

    return qwen_registry(settings)


def _rows(entry: QwenEntry) -> Mapping[str, Any]:
    style = entry.style
    rows: dict[str, Any] = {"system prompt": style.system_prompt, "template": style.template}
    rows |= {"image type": style.image_type, "context": style.extra_context}
    if entry.metadata is not None:
        about = asdict(entry.metadata)
        kept = ("method", "source_dataset", "created_at", "max_image_dim", "max_detections_per_sample")
        rows |= {name.replace("_", " "): about[name] for name in (*kept, "system_prompt_noise")}
    return rows


QWEN = Kind(
    open=_open,
    details=lambda entry: {"style": asdict(entry.style)},
    rows=_rows,
)
add_run_verbs(qwen, QWEN)


@qwen.command()
def export(
    name: Id,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    home: Home = None,
) -> None:
    """Write a run as a whole model in the published layout (safetensors), its adapter merged into the base.

    Example: tator models qwen export qwen-p3-2 cars-merged
    """
    from tator_ml.vlm.merge import merge

    settings = read_settings(home=home)
    entry = _open(settings).entry(name)
    written = merge(entry, settings, folder)
    Console(highlight=False, soft_wrap=True).print(
        f"{entry.id} is in {written}; QWEN_MODEL_NAME={written} makes it an installation's base."
    )
