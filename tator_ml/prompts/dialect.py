"""The newer dialect of interactive requests, behind a flag in recent releases of Label Studio.

``context.event`` asks for capabilities, or says that an image will be or is no longer needed; its
prompts carry ``value.positive`` and neither label nor size, and masks go back as greyscale PNGs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from label_config.reader import Control, Interface
from tator_sdk.errors import TatorError
from tator_sdk.regions import Region, mask_data_url, read_stroke

Json = Mapping[str, Any]
EVENTS = frozenset({"capabilities", "prewarm", "release"})


def event_of(context: Json) -> str | None:
    """The context's event, None for a plain prompt."""
    event = context.get("event")
    return str(event) if event else None


def is_event(context: Json) -> bool:
    """Whether the context announces something rather than prompts."""
    return event_of(context) in EVENTS


def is_new(items: Sequence[Json]) -> bool:
    """Whether prompts are written in the newer dialect."""
    return any("positive" in (item.get("value") or {}) for item in items)


def capabilities(interface: Interface, model_version: str) -> Region:
    """What this backend takes and gives for a configuration."""
    kinds = {"box": "bbox", "polygon": "polygon", "mask": "mask"}
    targets = []
    for image in interface.images:
        for control in interface.outputs_for(image.name):
            output = kinds.get(control.gives or "")
            if output:
                targets.append({"tag": control.name, "output": output})
    return {
        "value": {
            "prompts": ["point", "box"],
            "targets": targets,
            "model_info": {"name": "Tator", "version": model_version},
        }
    }


def control_for(interface: Interface, item: Json) -> Control:
    """The tag that a prompt without ``from_name`` belongs to: the first that takes its kind."""
    wanted = "boxes" if "height" in (item.get("value") or {}) else "points"
    for control in interface.controls:
        if control.takes == wanted:
            return control
    raise TatorError("The labelling configuration has no tag for this prompt; add <KeyPointLabels>.")


def region(written: Region) -> Region:
    """A region of ours as the newer dialect takes it: masks as ``imageDataURL``."""
    value = written["value"]
    if "rle" not in value:
        return written
    size_wh = (int(written["original_width"]), int(written["original_height"]))
    rest = {key: part for key, part in value.items() if key not in {"rle", "format"}}
    return {**written, "value": {**rest, "imageDataURL": mask_data_url(read_stroke(value, size_wh, size_wh))}}
