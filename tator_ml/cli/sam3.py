"""Verbs about tuned SAM 3s: ``models sam3 list``, ``show``, ``activate`` and others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from tator_ml.cli.runs import Kind, add_run_verbs
from tator_sdk.settings import Settings

if TYPE_CHECKING:
    from tator_ml.sam3.registry import Sam3Entry, Sam3Registry

sam3 = typer.Typer(name="sam3", no_args_is_help=True)


@sam3.callback()
def _about() -> None:
    """Models that find what a phrase names: the base, and what was tuned from it.

    The active one of a project answers its phrases and exemplars, and its clicks where the project's segmenter is sam3.

    Example: tator models sam3 list

    Example: tator models sam3 activate sam3-p3-2 --project 3

    Example: tator models sam3 promote sam3-3-7f2a --step 400
    """


def _open(settings: Settings) -> Sam3Registry:
    from tator_ml.sam3.registry import sam3_registry

    return sam3_registry(settings)


def _rows(entry: Sam3Entry) -> Mapping[str, Any]:
    about = entry.metadata
    if about is None:
        return {}
    said = [f"{name}: {' | '.join(phrases)}" for name, phrases in about.phrases.items() if phrases != (name,)]
    return {
        "phrases": "; ".join(said) or "the classes' names",
        "learned": "boxes and masks" if about.masks else "boxes",
        "base": about.model_id,
        "method": about.method,
        "resolution": about.resolution,
        "source dataset": about.source_dataset,
        "created at": about.created_at,
    }


SAM3_KIND = Kind(
    open=_open,
    details=lambda entry: {},
    rows=_rows,
)
add_run_verbs(sam3, SAM3_KIND)
