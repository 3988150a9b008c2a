"""What several engines say, as one."""

from __future__ import annotations

from tator_ml.engine.merging import merge
from tator_ml.engine.messages import EngineStatus, Status, VlmStatus
from tator_ml.last_hour import Latency


def saying(**latencies: Latency) -> tuple[EngineStatus, Status]:
    return EngineStatus("one", True), Status(True, "cpu", "v", {"click": 1}, (), 0, 0, latencies=latencies)


def test_latencies_are_the_slowest_engines_and_counts_add_up() -> None:
    fast, slow = Latency(10, 0.01, 0.02, 0.03), Latency(2, 0.05, 0.5, 0.9)
    merged = merge([saying(click=slow, batch=fast), saying(click=fast), (EngineStatus("gone", False), None)])
    assert merged.latencies == {"click": Latency(12, 0.05, 0.5, 0.9), "batch": fast}
    assert merged.waiting == {"click": 2}


def test_machines_count_once_and_models_by_name() -> None:
    def engine(address: str, free: int, *vlms: VlmStatus) -> tuple[EngineStatus, Status]:
        said = Status(True, "cpu", "v", {}, (), 0, 0, system_free_bytes=free, system_total_bytes=10 * free, vlms=vlms)
        return EngineStatus(address, True), said

    idle, writing = VlmStatus("qwen", "q-1", True, 9, 1.0), VlmStatus("qwen", "q-1", True, 9, 0.0, writing=12)
    gone = VlmStatus("qwen", "q-1", False, 9, 5.0)
    merged = merge([
        engine("a.sock", 1, writing), engine("127.0.0.1:9100", 1, idle), engine("10.0.0.2:9100", 4, gone),
        engine("10.0.0.2:9101", 4),
    ])  # fmt: skip
    assert (merged.system_free_bytes, merged.system_total_bytes) == (5, 50)
    assert merged.vlms == (writing,)
    assert merge([saying()]).system_total_bytes is None
