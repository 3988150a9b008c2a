"""Label Studio's editor, driven as a hand would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.pictures import SETTINGS
from demo.stack import DemoStack
from tator_sdk.geometry import Xyxy

POINT, BOX = "key-point-tool", "rectangle-tool"
GROUPS = {POINT: 0, BOX: 1}  # of labels, in the order of the configuration


class Editor:
    """One task in the editor.

    Attributes:
        page: the browser's page.
        asked: what the editor sent to the backend as ``context.result`` since the task was opened.
    """

    def __init__(self, page: Any, stack: DemoStack) -> None:
        self.page = page
        self.asked: list[list[dict[str, Any]]] = []
        self._stack = stack
        self._origin, self._scale = (0.0, 0.0), 1.0
        page.on("request", self._note)
