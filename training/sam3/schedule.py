"""How the rates rise and fall: inverse square root, as the published recipe, cosine, or constant."""

from __future__ import annotations

import math

from tator_sdk.sam3_request import Sam3Training


def factor(step: int, steps: int, request: Sam3Training) -> float:
    """Of every rate at a step.

    The inverse square root stays at 1 for ``warm_up`` steps and then falls as
    ``1 / sqrt((step - warm_up + time_scale) / time_scale)``; all schedules rise from nothing in ``warm_up`` steps and
    come to nothing in the last ``cool_down``.

    Args:
        step: from 1.
        steps: in all.
        request: names schedule and steps.
    """
    rate = 1.0
    after = step - request.warm_up
    if request.schedule == "inverse_sqrt" and after > 0:
        rate = 1 / math.sqrt((after + request.time_scale) / request.time_scale)
    elif request.schedule == "cosine" and after > 0:
        rate = 0.5 * (1 + math.cos(math.pi * min(after / max(steps - request.warm_up, 1), 1)))
    if request.warm_up:
        rate *= min(1.0, step / request.warm_up)
    if request.cool_down:
        rate *= min(1.0, (steps - step + 1) / request.cool_down)
    return rate
