"""Class encoders by name: ``starter``, ``open_clip:ViT-B-32``, ``open_clip:ViT-B-32@<tag or file>``.

An encoder is one file with a loader and a line in ``_LOADERS``. torch is imported when one is
loaded, not before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tator_ml.engine.encoders.base import Encoder, EncoderError

__all__ = ["STARTER_FOLDER", "Encoder", "EncoderError", "load", "names"]

STARTER_FOLDER = Path(__file__).parents[2] / "weights" / "starter_encoder"


def _starter(rest: str, device: str) -> Encoder:
    from tator_ml.engine.encoders import openclip

    return openclip.load_folder(Path(rest) if rest else STARTER_FOLDER, device)


def _open_clip(rest: str, device: str) -> Encoder:
    from tator_ml.engine.encoders import openclip

    model, _, weights = rest.partition("@")
    return openclip.load_named(model, weights or None, device)


_LOADERS: dict[str, Callable[[str, str], Encoder]] = {"starter": _starter, "open_clip": _open_clip}


def names() -> tuple[str, ...]:
    """The kinds of encoder that ``load`` knows."""
    return tuple(_LOADERS)


def load(name: str, device: str = "cpu") -> Encoder:
    """Load the encoder of a name.

    Args:
        name: a kind and what follows its first colon. ``starter`` takes a folder (the shipped
            one by default); ``open_clip`` a model's name (``hf-hub:...`` too) and, after an
            ``@``, a pretrained tag or a weights file (by default the model's first tag).
        device: where torch runs it, e.g. ``cpu`` or ``cuda:1``.

    Raises:
        EncoderError: no such kind or model, or its weights cannot be had.
    """
    kind, _, rest = name.partition(":")
    if kind not in _LOADERS:
        raise EncoderError(f"There is no encoder called '{kind}'; there are {', '.join(_LOADERS)}.")
    return _LOADERS[kind](rest, device)
