"""What a model wrote, brought to the picture."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tator_ml.engine.detecting import placed
from tator_ml.engine.messages import Detection
from tator_ml.vlm.coordinates import coordinates_of
from tator_ml.vlm.parsing import Detected as Written
from tator_ml.vlm.parsing import Parsed


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_places_are_clamped_and_each_stands_once(family: str) -> None:
    vlm: Any = SimpleNamespace(coordinates=coordinates_of(family))
    full = vlm.coordinates.full_scale or 280
    parsed = Parsed(
        (
            Written("a", (-9.0, 0.0, full / 2, full * 7)),
            Written("a", (full / 2, full * 7, -9.0, 0.0)),
            Written("b", (full, 0.0, full + 5, full)),
            Written("c", None, (full, full / 2)),
            Written("d", None, (-1.0, 2.0)),
            Written("e", (1e300, 1e300, -1e300, -1e300), (0.0, 0.0)),
        ),
        True,
        ("before",),
    )
    found, problems = placed(parsed, vlm, (280, 280), (1000, 501))
    assert found == (
        Detection("a", (0, 0, 500, 501)),
        Detection("c", None, (1000, 250.5)),
        Detection("e", (0, 0, 1000, 501), (0, 0)),
    )
    assert problems == ("before", "2 objects lie outside of the picture or without area.")
