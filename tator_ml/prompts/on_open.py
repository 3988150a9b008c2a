"""What is worked on when a task is opened: predictions of a tag with ``model_on_open``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from label_config.interface import split_words
from label_config.reader import Interface
from tator_ml.prompts.assists import BOX_TYPES, Drawing

UNKNOWN_WH = (0, 0)


def drawings_on_open(interface: Interface, task: Mapping[str, Any], image_name: str) -> list[Drawing]:
    """The newest prediction's boxes whose tag has ``model_on_open``; their picture's size is not known yet."""
    predictions = task.get("predictions") or []
    newest = predictions[-1] if predictions and isinstance(predictions[-1], Mapping) else {}
    asked = {
        control.name: (control, frozenset(split_words(control.options["on_open"])))
        for control in interface.controls
        if "on_open" in control.options
    }
    work = []
    for item in newest.get("result") or []:
        if item.get("from_name") in asked and item.get("to_name") == image_name and item.get("type") in BOX_TYPES:
            control, wanted = asked[item["from_name"]]
            pending = frozenset({str(item.get("id"))})
            work.append(Drawing(interface, control, image_name, [item], task, UNKNOWN_WH, pending, wanted))
    return work
