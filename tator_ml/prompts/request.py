"""What a request of Label Studio holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from label_config.interface import Interface
from tator_ml.projects import OUTPUTS
from tator_sdk.regions import Region

Json = Mapping[str, Any]


def project_number(project: object) -> int | None:
    """Label Studio's ``"id.epoch"`` → id; None for anything that is not one."""
    match = re.fullmatch(r"(\d{1,12})(\.\d+)?", str(project or ""))
    return int(match.group(1)) if match else None


def kept_prompts(context: Json | None) -> list[Region]:
    """Boxes and strokes of a request that failed, so that with auto-accept no drawing is lost."""
    items = (context or {}).get("result")
    if not isinstance(items, list):
        return []
    kept = ("rectangle", "brush", "bitmask")
    drawn = [item for item in items if isinstance(item, Mapping) and str(item.get("type", "")).startswith(kept)]
    return [dict(item) for item in drawn[-1:] if isinstance(item.get("value"), Mapping)]


def output_kinds(interface: Interface) -> tuple[str, ...]:
    """What points can be answered with in a configuration: of ``box``, ``polygon`` and ``mask``, in its order."""
    taking = [control for control in interface.controls if control.takes == "points"]
    given = [
        output.gives
        for control in taking
        for name in control.to_name
        for output in interface.outputs_for(name, control)
    ]
    return tuple(kind for kind in dict.fromkeys(given) if kind in OUTPUTS)


def first_addresses(interface: Interface, data: object) -> list[str]:
    """Addresses of a task's pictures, one for each image tag that it has one for."""
    fields = data if isinstance(data, Mapping) else {}
    return [urls[0] for image in interface.images if (urls := image.urls(fields))]


def task_number(task: Json) -> int | None:
    """The task's number; None where it has none."""
    number = task.get("id")
    return number if isinstance(number, int) else None
