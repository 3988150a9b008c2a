"""Class encoders by name.

``starter``, ``open_clip:ViT-B-32@<tag or file>``, ``transformers:<folder or repository>``,
``timm:resnet50@<file>``; a model of open_clip and a folder of transformers need no kind.

An encoder is one file with a loader and a line in ``_LOADERS``, or a module of another package with
``load(rest, device)`` (``docs/extending.md``). torch is imported when one is loaded, not before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from tator_ml.engine import installed
from tator_ml.engine.encoders.base import Encoder, EncoderError

__all__ = ["STARTER_FOLDER", "Encoder", "EncoderError", "load", "names"]

log = logging.getLogger(__name__)
STARTER_FOLDER = Path(__file__).parents[2] / "weights" / "starter_encoder"


def _starter(rest: str, device: str) -> Encoder:
    from tator_ml.engine.encoders import openclip

    return openclip.load_folder(Path(rest) if rest else STARTER_FOLDER, device)


def _open_clip(rest: str, device: str) -> Encoder:
    from tator_ml.engine.encoders import openclip

    # OpenAI calls its model for pictures of 336 pixels ViT-L/14@336px, open_clip ViT-L-14-336.
    model, _, weights = rest.replace("@336px", "-336").partition("@")
    return openclip.load_named(model, weights or None, device)


def _transformers(rest: str, device: str) -> Encoder:
    from tator_ml.engine.encoders import transformers_model

    return transformers_model.load(rest, device)


def _timm(rest: str, device: str) -> Encoder:
    from tator_ml.engine.encoders import timm_model

    model, _, weights = rest.partition("@")
    return timm_model.load(model, weights or None, device)


_LOADERS: dict[str, Callable[[str, str], Encoder]] = {
    "starter": _starter,
    "open_clip": _open_clip,
    "transformers": _transformers,
    "timm": _timm,
}


def names() -> tuple[str, ...]:
    """The kinds of encoder that ``load`` knows."""
    return tuple(dict.fromkeys((*_LOADERS, *installed.installed(installed.ENCODERS))))


def load(name: str, device: str = "cpu") -> Encoder:
    """Load the encoder of a name.

    Args:
        name: a kind and what follows its first colon. ``starter`` takes a folder (the shipped
            one by default); ``open_clip`` a model's name (``hf-hub:...`` too) and, after an
            ``@``, a pretrained tag or a weights file (by default the model's first tag);
            ``transformers`` a folder or a repository on the hub; ``timm`` a model's name and,
            after an ``@``, a weights file (by default the hub's). Without a kind, a folder with
            ``config.json`` is one of transformers, and a name that open_clip knows is its model,
            as in ``ViT-B/32``.
        device: where torch runs it, e.g. ``cpu`` or ``cuda:1``.

    Raises:
        EncoderError: no such kind or model, or its weights cannot be had.
    """
    kind, _, rest = name.partition(":")
    if kind in _LOADERS:
        return _LOADERS[kind](rest, device)
    if kind in names():
        return _of_another_package(kind, rest, device)
    if (Path(name).expanduser() / "config.json").is_file():
        return _transformers(name, device)
    if _open_clip_knows(name):
        return _open_clip(name, device)
    raise EncoderError(f"There is no encoder called '{kind}'; there are {', '.join(names())}.")


def _of_another_package(kind: str, rest: str, device: str) -> Encoder:
    try:
        encoder: Encoder = installed.installed(installed.ENCODERS)[kind].load().load(rest, device)
    except EncoderError:
        raise
    except Exception as error:  # whatever its code raises
        from tator_ml.engine.memory import is_out_of_memory

        if is_out_of_memory(error):  # there may be room once others give up theirs
            raise
        log.exception("the encoder %s could not be loaded", kind)
        raise EncoderError(f"The encoder {kind} cannot be loaded: {error}") from error
    return encoder


def _open_clip_knows(name: str) -> bool:
    from tator_ml.engine.encoders import openclip

    return openclip.knows(name.replace("@336px", "-336").partition("@")[0])
