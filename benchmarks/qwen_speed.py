"""Asking in words: what our generation costs over transformers' own, and what it costs those who click meanwhile."""

from __future__ import annotations

import itertools
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

from benchmarks.report import Figure
from benchmarks.station import FIRST_SEED, SCENES, Station, Task, quantile, say, seconds, station
from tator_ml.engine.messages import DetectAsk
from tator_ml.images.store import ImageStore
from tator_ml.vlm.loading import load_vlm
from tator_ml.vlm.model import Vlm
from tator_sdk.settings import Settings
from training.qwen.tiny import FAMILIES, Shape, save_tiny
from training.starter.scenes import draw_scene

SYSTEM = "You are a careful annotator."
USER = "Locate every instance of the following in this image: star, ring."
PAIRS, TOKENS = 12, 96
PICTURES, ROUNDS, CLICKS = 4, 4, 30
PAUSE_SECONDS = (0.2, 0.6)  # between an answer and the next click
SHAPES = {
    "generate": Shape(hidden=256, layers=6, head=32, vision_hidden=128, vision_depth=4, max_side=336, tokens=600),
    "clicks": Shape(hidden=512, layers=12, head=64, vision_hidden=256, vision_depth=8, max_side=448, tokens=600),
}
"""Tiny, but not trivial: most of a question's time is the networks'."""


def generate_cost(folder: Path) -> Iterator[Figure]:
    """The same question and tokens: processor, ``generate`` and decoding written out, and ours; by turns."""
    picture = draw_scene(FIRST_SEED, SCENES).image
    for family in FAMILIES:
        path = save_tiny(folder / family, family, SHAPES["generate"])
        vlm = load_vlm(Settings(_env_file=None, home=folder, offline=True), str(path), "cpu")
        loaded: Any = transformers.AutoModelForImageTextToText
        model = loaded.from_pretrained(path, dtype=torch.float32).eval()
        processor: Any = transformers.AutoProcessor.from_pretrained(path)  # type: ignore[no-untyped-call]
        for one in (model, vlm._model):
            one.generation_config.eos_token_id = None  # both write all tokens
        bare = partial(as_published, model, processor, picture)
        ours = partial(answer_of, vlm, picture)
        if bare() != ours():
            raise SystemExit("The two do not write the same.")
        taken: dict[Any, list[float]] = {bare: [], ours: []}
        for number in range(PAIRS):  # by turns, each first in every other pair
            for way in (bare, ours) if number % 2 else (ours, bare):
                taken[way].append(seconds(way))
        ratios = [one / other for one, other in zip(taken[ours], taken[bare], strict=True)]
        say(f"{family}: {[round(ratio, 3) for ratio in ratios]}")
        name = "qwen.generate_cost" if family == FAMILIES[0] else f"qwen.generate_cost_{family}"
        yield Figure(name, statistics.median(ratios), "of transformers' generate", "lower", 1.05)
        yield Figure(f"qwen.token_ms_{family}", 1000 * statistics.median(taken[ours]) / TOKENS, "ms", "lower")


def as_published(model: Any, processor: Any, picture: NDArray[np.uint8]) -> str:
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": USER}]},
    ]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=[Image.fromarray(picture)], return_tensors="pt")
    made = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
    written: str = processor.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return written


def answer_of(vlm: Vlm, picture: NDArray[np.uint8]) -> str:
    return vlm.generate(picture, SYSTEM, USER, TOKENS).text


class Questions:
    """Questions in words about the pictures that are clicked on, one after the other, as long as it is wanted.

    Attributes:
        tokens: of all answers.
        seconds: that they took.
        failure: why there were no more, where one was not answered: clicks would be measured beside nothing then.
    """

    def __init__(self, one: Station, tasks: list[Task]) -> None:
        store = ImageStore(one.settings.home / "images", one.settings.image_store_bytes)
        self._engine = one.engine
        self._asks = [
            DetectAsk(store.put(task.path.read_bytes()), SYSTEM, USER, max_new_tokens=TOKENS) for task in tasks
        ]
        self._ended = threading.Event()
        self.tokens = 0
        self.seconds = 0.0
        self.failure = ""

    def once(self) -> None:
        """Load the model, and see that it answers."""
        self._engine.detect(self._asks[0])

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Ask until the block ends.

        Raises:
            SystemExit: a question was not answered.
        """
        self._ended.clear()
        thread = threading.Thread(target=self._ask)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
        if self.failure:
            raise SystemExit(self.failure)

    def _ask(self) -> None:
        try:
            for ask in itertools.cycle(self._asks):
                if self._ended.is_set():
                    return
                begun = time.monotonic()
                made = self._engine.detect(ask)
                self.tokens += made.tokens
                self.seconds += time.monotonic() - begun
        except BaseException as error:  # told by the thread that measures
            self.failure = f"A question was not answered: {error or type(error).__name__}"


def click_during(folder: Path) -> Iterator[Figure]:
    """Clicks on warm pictures, idle and while questions about the same pictures are answered, by turns."""
    path = save_tiny(folder / "clicks", "qwen2_5_vl", SHAPES["clicks"])
    rng = random.Random(4)
    with station("sam2-tiny", qwen_model_name=str(path), preload=False) as one:
        tasks = [one.task() for _ in range(PICTURES)]
        for task in tasks:
            one.ask(task)
        questions = Questions(one, tasks)
        questions.once()
        idle, busy = [], []
        for number in range(ROUNDS):
            idle += clicks(one, tasks, rng)
            with questions.going_on():
                time.sleep(1.0)
                busy += clicks(one, tasks, rng)
            say(f"round {number + 1} of {ROUNDS}: idle {1000 * statistics.median(idle):.0f} ms, "
                f"while writing {1000 * statistics.median(busy):.0f} ms")  # fmt: skip
    yield Figure("qwen.click_during", statistics.median(busy) / statistics.median(idle), "of idle", "lower", 1.5)
    yield Figure("qwen.click_during_p99", quantile(busy, 0.99) / quantile(idle, 0.99), "of idle", "lower")
    yield Figure("qwen.click_idle_ms", 1000 * statistics.median(idle), "ms", "lower")
    yield Figure("qwen.click_token_ms", 1000 * questions.seconds / questions.tokens, "ms", "lower")


def clicks(one: Station, tasks: list[Task], rng: random.Random) -> list[float]:
    """Seconds from request to answer of somebody who clicks with pauses on warm pictures."""
    taken = []
    for number in range(CLICKS):
        time.sleep(rng.uniform(*PAUSE_SECONDS))
        task = tasks[number % len(tasks)]
        taken.append(one.ask(task, number // len(tasks) % len(task.scene.objects))[0])
    return taken


def measure() -> Iterator[Figure]:
    """Both parts; some minutes."""
    with tempfile.TemporaryDirectory() as folder:
        for part in (generate_cost, click_during):
            yield from part(Path(folder))
