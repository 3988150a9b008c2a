"""On real photographs the weak starter segmenter must know that it is weak."""

from __future__ import annotations

from pathlib import Path

from benchmarks.starter import photo_figures
from tator_ml.engine.refine import Guard
from tator_ml.engine.segmenters.starter import STARTER_WEIGHTS, load
from tator_sdk.settings import Settings


def test_the_guard_keeps_drawn_boxes_on_photographs(shared_fixtures: Path) -> None:
    figures = {one.name: one for one in photo_figures(load(STARTER_WEIGHTS, "cpu"), Guard.of(Settings()))}
    assert figures["photos.instances"].value > 100
    assert figures["photos.loose_after"].value >= figures["photos.loose_before"].value - 0.005
    assert figures["photos.loose_raw"].value < figures["photos.loose_before"].value, "unguarded it would do harm"
