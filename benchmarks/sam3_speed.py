"""Asking for concepts: what the engine's answer to twenty phrases costs over SAM 3's own passes, and what it keeps."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import torch

from benchmarks.report import Figure
from tator_ml.engine.concepts import Concept, ConceptAsk
from tator_ml.engine.engine import Engine
from tator_ml.engine.messages import Ask, Prompt
from tator_ml.engine.segmenters.sam3 import Sam3Segmenter, load
from tator_ml.images.store import ImageStore
from tator_sdk.settings import Settings
from training.sam3.tiny import Shape, save_tiny
from training.starter.scenes import Scene, SceneSettings, draw_scene

PHRASES, ROUNDS = 20, 7
SHAPE = Shape(
    side=336, vision_hidden=192, vision_layers=6, window=8, hidden=64, layers=3, queries=50, text_hidden=64,
    text_layers=2,
)  # fmt: skip
"""Tiny, but not trivial: most of an answer's time is the networks'."""
SCENES = SceneSettings(size_wh=(768, 576), min_side=80, max_side=260, objects=(4, 7))
FIRST_SEED = 9_910_000
EVERYTHING = 0.0
"""Threshold: a model that has learned nothing is sure of nothing, and masks are to be made as in service."""
LIMIT_RATIO = 1.3


def measure() -> Iterator[Figure]:
    """Ratios are of medians within one run; the two ways take turns, so that a noisy moment meets both."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        segmenter = load(
            save_tiny(home / "tiny", SHAPE, [_phrase(0, index) for index in range(PHRASES)]), "cpu", "sam3"
        )
        settings = Settings(_env_file=None, home=home, segmenter="sam3", offline=True)
        store = ImageStore(home / "images", settings.image_store_bytes)
        engine = Engine(settings, store, segmenter, None)
        try:
            yield from _phrases(engine, store, segmenter)
        finally:
            engine.close()


def _phrases(engine: Engine, store: ImageStore, segmenter: Sam3Segmenter) -> Iterator[Figure]:
    cold, bare, encoding, warm, known = (list[float]() for _ in range(5))
    clicks = 0
    for number in range(ROUNDS + 1):
        scene = draw_scene(FIRST_SEED + number, SCENES)
        image = _stored(store, scene)
        new, other = (_concepts(2 * number + which) for which in range(2))
        took = [_asked(engine, image, concepts) for concepts in (new, other, new)]
        alone, encoded = _bare(segmenter, scene)
        clicks += _click_encodes(engine, image)
        if not number:
            continue  # the first warms up
        for times, one in zip((cold, warm, known, bare, encoding), (*took, alone, encoded), strict=True):
            times.append(one)
    middle = statistics.median
    yield Figure("sam3.twenty_phrases", middle(cold) / middle(bare), "of bare", "lower", LIMIT_RATIO)
    yield Figure("sam3.click_after_phrases", clicks, "encodings", "lower", 0)
    yield Figure("sam3.twenty_phrases_seconds", middle(cold), "s", "lower")
    yield Figure("sam3.twenty_phrases_warm_seconds", middle(warm), "s", "lower")
    yield Figure("sam3.twenty_known_phrases_warm_seconds", middle(known), "s", "lower")
    yield Figure("sam3.bare_encoding_seconds", middle(encoding), "s", "lower")
    yield Figure("sam3.bare_seconds", middle(bare), "s", "lower")


def _asked(engine: Engine, image: str, concepts: tuple[Concept, ...]) -> float:
    begun = time.perf_counter()
    engine.find_concepts(ConceptAsk(image, concepts, threshold=EVERYTHING))
    return time.perf_counter() - begun


def _bare(segmenter: Sam3Segmenter, scene: Scene) -> tuple[float, float]:
    """One ``vision_encoder`` and a pass for each phrase, written out; seconds of all, and of the encoding."""
    model: Any = segmenter.sam.detector
    processor: Any = segmenter.sam.processor
    pixels = processor(images=scene.image, return_tensors="pt").pixel_values
    texts = []
    with torch.no_grad():
        for index in range(PHRASES):
            tokens = processor(text=_phrase(0, index), return_tensors="pt")
            texts.append((model.get_text_features(**tokens, return_dict=True), tokens.attention_mask))
        begun = time.perf_counter()
        vision = model.vision_encoder(pixels)
        encoded = time.perf_counter() - begun
        for text, mask in texts:
            model(vision_embeds=vision, text_embeds=text, attention_mask=mask)
    return time.perf_counter() - begun, encoded


def _click_encodes(engine: Engine, image: str) -> int:
    """How often a picture is encoded for a click on one that a phrase made warm."""
    before = engine.status().encodings
    engine.answer(Ask(image, (Prompt(((300.0, 200.0),), (True,)),)))
    return engine.status().encodings - before


def _concepts(number: int) -> tuple[Concept, ...]:
    return tuple(Concept(_phrase(number, index)) for index in range(PHRASES))


def _phrase(number: int, index: int) -> str:
    """A phrase of a few words that no other round has."""
    sizes, colours = ("small", "large", "old", "new"), ("red", "green", "blue", "white", "black")
    return f"{sizes[index % 4]} {colours[index % 5]} thing {number}"


def _stored(store: ImageStore, scene: Scene) -> str:
    return store.put(cv2.imencode(".jpg", scene.image[..., ::-1])[1].tobytes())
