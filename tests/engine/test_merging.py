"""What several engines say, as one."""

from __future__ import annotations

from tator_ml.engine.merging import merge
from tator_ml.engine.messages import EngineStatus, Status
from tator_ml.last_hour import Latency


def saying(**latencies: Latency) -> tuple[EngineStatus, Status]:
    return EngineStatus("one", True), Status(True, "cpu", "v", {"click": 1}, (), 0, 0, latencies=latencies)


def test_latencies_are_the_slowest_engines_and_counts_add_up() -> None:
    fast, slow = Latency(10, 0.01, 0.02, 0.03), Latency(2, 0.05, 0.5, 0.9)
    merged = merge([saying(click=slow, batch=fast), saying(click=fast), (EngineStatus("gone", False), None)])
    assert merged.latencies == {"click": Latency(12, 0.05, 0.5, 0.9), "batch": fast}
    assert merged.waiting == {"click": 2}
