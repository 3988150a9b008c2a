"""``/health`` and ``/setup`` stay quick while a picture is being encoded, over real processes."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from tator_ml.running.processes import Supervisor
from tator_ml.up import start_back, start_front
from tator_sdk.settings import Settings
from tests.wire.conftest import scene_bytes

pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]


def random_sam2(path: Path) -> Path:
    """SAM 2.1 tiny with random weights, saved as published: what takes long to encode with."""
    from sam2.build_sam import build_sam2

    torch.manual_seed(0)
    model = build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", None, device="cpu")
    torch.save({"model": model.state_dict()}, path)
    return path


def test_health_and_setup_while_an_image_is_encoded(tmp_path: Path, payload: Any) -> None:
    import base64

    checkpoint = random_sam2(tmp_path / "sam2.1_hiera_tiny.pt")
    settings = Settings(home=tmp_path, port=19290, segmenter="sam2-tiny", segmenter_checkpoint=str(checkpoint))
    body = payload("predict_interactive_keypoint_ui")["body"]
    picture = base64.b64encode(scene_bytes(size_wh=(900, 700))).decode()
    body["tasks"][0]["data"]["image"] = f"data:image/png;base64,{picture}"
    with Supervisor(tmp_path, print) as parts:
        start_back(settings, parts)
        settings = start_front(settings, parts)
        with httpx.Client(base_url=settings.backend_url, timeout=90, trust_env=False) as client:
            client.get("/health")
            answered: list[float] = []
            begun = time.perf_counter()

            def click() -> None:
                httpx.post(f"{settings.backend_url}/predict", json=body, timeout=90, trust_env=False)
                answered.append(time.perf_counter() - begun)

            encoding = threading.Thread(target=click)
            encoding.start()
            times = []
            while encoding.is_alive():
                for method, path, content in (("GET", "/health", None), ("POST", "/setup", payload("setup")["body"])):
                    sent = time.perf_counter()
                    assert client.request(method, path, json=content).is_success
                    times.append(time.perf_counter() - sent)
                time.sleep(0.02)
            encoding.join()
    assert answered[0] > 0.5, "the encoding was to take long"
    assert len(times) >= 10
    times.sort()
    assert times[int(0.95 * len(times))] < 0.1, f"slowest: {times[-3:]}"
