"""A whole web application in the test's process: a segmenter of the test's own, pictures over HTTP."""

from __future__ import annotations

import functools
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flask.testing import FlaskClient
from numpy.typing import NDArray
from PIL import Image

from tator_ml.engine.engine import Engine
from tator_ml.engine.messages import Verdict
from tator_ml.engine.segmenters.base import Decoded, Embedding, Prompts
from tator_ml.images.fetch import ImageFetcher
from tator_ml.images.store import ImageStore
from tator_ml.projects import Projects
from tator_ml.services import Services
from tator_ml.suggestions import Suggestions
from tator_ml.web.app import create_app
from tator_sdk.geometry import Xyxy
from tator_sdk.settings import Settings

Body = dict[str, Any]
INSIDE = {"x": 40.0, "y": 40.0}
"""A click in the bright rectangle of the test's picture, in percent."""
TRUTH = {"x": 30.0, "y": 25.0, "width": 20.0, "height": 30.0}
"""That rectangle."""


def near(value: dict[str, Any], wanted: dict[str, float], slack: float = 0.3) -> bool:
    """Whether a region lies where it should, within so many percent of the picture."""
    return all(abs(value[key] - wanted[key]) <= slack for key in wanted)


class BrightSegmenter:
    """The caller's own segmenter: an object is whatever is bright and connected to the prompt."""

    version = "bright-1"

    def __init__(self) -> None:
        self.quality = 0.95
        self.encode_seconds = 0.0
        self.decoded: list[Prompts] = []

    def encode(self, image: NDArray[np.uint8]) -> Embedding:
        time.sleep(self.encode_seconds)
        bright = torch.from_numpy(image.mean(2) > 127).float()[None]
        return Embedding({"bright": bright}, (image.shape[1], image.shape[0]), self.version)

    def decode(self, embedding: Embedding, prompts: Prompts, multimask: bool) -> Decoded:
        import cv2

        self.decoded.append(prompts)
        bright = embedding.tensors["bright"][0].numpy().astype(np.uint8)
        _, parts = cv2.connectedComponents(bright)
        masks = []
        for row in range(len(prompts)):
            mask = np.zeros_like(bright, bool)
            if prompts.points is not None and prompts.labels is not None:
                for (x, y), label in zip(prompts.points[row], prompts.labels[row], strict=True):
                    part = parts == parts[int(y), int(x)] if parts[int(y), int(x)] else np.zeros_like(mask)
                    mask = mask | part if label == 1 else mask & ~part if label == 0 else mask
            elif prompts.boxes is not None:
                x0, y0, x1, y1 = prompts.boxes[row].astype(int)
                inside = np.zeros_like(mask)
                inside[y0:y1, x0:x1] = True
                mask = (bright > 0) & inside
            masks.append(mask)
        low = torch.from_numpy(np.stack(masks)).float()[:, None] * 20 - 10
        low = low.expand(-1, 3 if multimask else 1, -1, -1)
        return Decoded(low, torch.full(low.shape[:2], self.quality))

    def full_size(self, embedding: Embedding, low_res: torch.Tensor) -> torch.Tensor:
        return low_res


class ToyClassifier:
    """Says what it is told to say."""

    version = "toy-head-1"

    def __init__(self) -> None:
        self.verdict = Verdict(None, 0.4, (("Ball", 0.4), ("Box", 0.35)))

    def classify(self, pixels: NDArray[np.uint8], boxes: list[Xyxy]) -> list[Verdict]:
        return [self.verdict for _ in boxes]


@dataclass
class PictureServer:
    """Answers every path with the same picture, unless told otherwise."""

    url: str
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    slow: set[str] = field(default_factory=set)
    lengths: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@functools.cache
def scene_bytes(kind: str = "PNG", size_wh: tuple[int, int] = (640, 480)) -> bytes:
    """Dark, with a bright rectangle from 30 % to 50 % across and 25 % to 55 % down."""
    width, height = size_wh
    pixels = np.full((height, width, 3), 20, np.uint8)
    pixels[int(0.25 * height) : int(0.55 * height), int(0.3 * width) : int(0.5 * width)] = 230
    pixels[int(0.6 * height) : int(0.9 * height), int(0.6 * width) : int(0.9 * width)] = 200
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@contextmanager
def serving_pictures() -> Iterator[PictureServer]:
    """A server of pictures on loopback."""
    state = PictureServer("")
    ordinary = scene_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?d=")[-1] if "?d=" in self.path else self.path
            state.asked.append((self.path, self.headers.get("Authorization")))
            status, body = state.answers.get(path, (200, ordinary))
            ranged = status == 200 and self.headers.get("Range") == "bytes=0-"
            self.send_response(206 if ranged else status)
            if ranged:  # as Label Studio answers
                whole = state.lengths.get(path, len(body))
                self.send_header("Content-Range", f"bytes 0-{whole - 1}/{whole}")
            if 300 <= status < 400:
                self.send_header("Location", body.decode())
                body = b""
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                if path in state.slow:
                    for byte in body[:40]:
                        self.wfile.write(bytes([byte]))
                        self.wfile.flush()
                        time.sleep(0.1)
                self.wfile.write(body)
            except OSError:
                pass

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def pictures() -> Iterator[PictureServer]:
    """A server of pictures of the test's own."""
    with serving_pictures() as state:
        yield state


@dataclass
class Running:
    """The application and what a test turns."""

    client: FlaskClient
    services: Services
    engine: Engine
    segmenter: BrightSegmenter
    classifier: ToyClassifier

    def predict(self, body: dict[str, Any]) -> Any:
        answer = self.client.post("/predict", json=body)
        assert answer.status_code == 200, answer.text
        results = answer.json["results"]
        assert len(results) == len(body["tasks"])
        return results

    def error(self, project: int = 1) -> str | None:
        return self.services.notices.get(project).error


def settings_at(home: Path, pictures: PictureServer) -> Settings:
    """Settings of an application whose Label Studio is a server of pictures."""
    return Settings(
        home=home,
        label_studio_url=pictures.url,
        label_studio_api_key="legacy",
        image_timeout_seconds=1.0,
        qwen_model_name=str(home / "nowhere" / "Qwen2.5-VL-3B-Instruct"),
    )


@pytest.fixture
def settings(tmp_path: Path, pictures: PictureServer) -> Settings:
    return settings_at(tmp_path, pictures)


@contextmanager
def serving(settings: Settings) -> Iterator[Running]:
    """The application over an engine in this process."""
    store = ImageStore(settings.home / "images", settings.image_store_bytes)
    segmenter, classifier = BrightSegmenter(), ToyClassifier()
    engine = Engine(settings, store, segmenter, classifier)
    services = Services(
        settings=settings,
        engine=engine,
        images=ImageFetcher(settings, store),
        projects=Projects(settings.home / "projects"),
        suggestions=Suggestions(settings.home / "suggestions.sqlite"),
    )
    app = create_app(settings, services)
    try:
        yield Running(app.test_client(), services, engine, segmenter, classifier)
    finally:
        app.extensions["tator_watch"].stop()
        services.close()


@pytest.fixture
def running(settings: Settings) -> Iterator[Running]:
    """The application of a test's own."""
    with serving(settings) as made:
        yield made


@pytest.fixture
def click(payload: Any) -> Body:
    """A request with one point inside the bright rectangle, answered with a box."""
    body: Body = payload("predict_interactive_keypoint_ui")["body"]
    body["label_config"] = body["label_config"].replace('name="kp"', 'name="kp" model_output="box"')
    body["params"]["context"]["result"][0]["value"].update(INSIDE)
    body["tasks"][0]["data"]["image"] = "/picture"
    return body


@pytest.fixture
def box(payload: Any) -> Body:
    """A request with one loose box around the bright rectangle."""
    body: Body = payload("predict_interactive_rectangle_ui")["body"]
    body["params"]["context"]["result"][0]["value"].update(x=28.0, y=23.0, width=24.0, height=34.0)
    body["tasks"][0]["data"]["image"] = "/picture"
    return body


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for all tests that turn nothing of it, with the ordinary picture, and that no box of another disturbs."""
    with serving_pictures() as pictures, serving(settings_at(tmp_path_factory.mktemp("wire"), pictures)) as made:
        yield made


@pytest.fixture
def standing(application: Running) -> Running:
    """The same, with nothing that went wrong before."""
    application.services.notices.answered(1, "", None)
    assert application.error() is None
    return application


def prompt(body: Body) -> Body:
    item: Body = body["params"]["context"]["result"][-1]
    return item


def fails(running: Running, body: Body, words: str) -> list[Body]:
    """The request is answered, the strip says the sentence, and the next click works again."""
    (result,) = running.predict(body)
    said = running.error()
    assert said is not None and words in said, said
    assert "\n" not in said and "Traceback" not in said
    assert running.client.get("/health").status_code == 200
    regions: list[Body] = result["result"]
    return regions


def answers(running: Running, body: Body) -> Body:
    (result,) = running.predict(body)
    assert running.error() is None, running.error()
    (region,) = result["result"]
    return region  # type: ignore[no-any-return]
