"""The engine embeds and classifies over its real socket, and a click waits for one step of a batch at most."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tator_ml.engine.client import EngineClient
from tator_ml.engine.crops import CropRecipe
from tator_ml.engine.encoders import EncoderError
from tator_ml.engine.engine import Engine
from tator_ml.engine.head import Head, HeadError
from tator_ml.engine.messages import Ask, EmbedAsk, EngineError, ImageBoxes, OutOfMemory, Prompt, UnknownHead
from tator_ml.engine.models import ENCODERS_KEPT, HEADS_KEPT, ClassModels
from tator_ml.engine.pace import STEP_SECONDS
from tator_ml.engine.server import EngineServer
from tator_ml.images.decode import ImageError
from tator_ml.images.store import ImageStore
from tator_ml.prompts.asking import answer_or_without_class
from tator_sdk.settings import Settings
from tests.learning.material import DIM, head_of
from tests.wire.conftest import BrightSegmenter, ToyClassifier, scene_bytes

POINT = Prompt(((256.0, 192.0),), (True,))
BRIGHT, DARK = (192.0, 120.0, 320.0, 264.0), (10.0, 10.0, 60.0, 60.0)


@dataclass
class AxisEncoder:
    """Bright crops on axis 0, dark ones on axis 1; as slow as told."""

    version: str = "axis-1"
    size: int = 32
    dim: int = DIM
    seconds_per_crop: float = 0.0
    batches: list[int] = field(default_factory=list)

    def embed(self, crops: Sequence[Any]) -> Any:
        self.batches.append(len(crops))
        time.sleep(self.seconds_per_crop * len(crops))
        center = [crop[self.size // 2, self.size // 2].mean() for crop in crops]
        return np.eye(self.dim, dtype=np.float32)[[0 if value > 127 else 1 for value in center]]


@dataclass
class Far:
    """An engine over its socket, with a store of its own, and a client whose pictures and heads it lacks."""

    client: EngineClient
    engine: Engine
    encoder: AxisEncoder
    store: ImageStore
    heads: dict[str, Head]
    asked: list[str]
    loaded: list[str]
    troubles: dict[str, Exception]


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    settings = Settings(home=tmp_path)
    encoder, heads, asked, loaded = AxisEncoder(), dict[str, Head](), list[str](), list[str]()
    troubles: dict[str, Exception] = {}

    def load(name: str) -> Any:
        loaded.append(name)
        if name in troubles:
            raise troubles[name]
        return encoder if name == "axis" else AxisEncoder(f"{name}-1")

    def read_head(version: str) -> Any:
        asked.append(version)
        return heads[version].files()

    mine, theirs = ImageStore(tmp_path / "mine", 10**9), ImageStore(tmp_path / "theirs", 10**9)
    engine = Engine(settings, theirs, BrightSegmenter(), ToyClassifier(), models=ClassModels(load))
    server = EngineServer(settings, lambda: engine)
    threading.Thread(target=server.serve, daemon=True).start()
    client = EngineClient(settings, mine, read_head)
    yield Far(client, engine, encoder, mine, heads, asked, loaded, troubles)
    client.close()
    server.close()


def ask(*items: ImageBoxes, name: str = "axis") -> EmbedAsk:
    return EmbedAsk(name, items)


def test_pictures_that_the_engine_lacks_are_sent(far: Far) -> None:
    one, two = far.store.put(scene_bytes()), far.store.put(scene_bytes("JPEG"))
    found = far.client.embed(ask(ImageBoxes(one, (BRIGHT, DARK)), ImageBoxes(two, (DARK, BRIGHT, BRIGHT))))
    assert found.encoder == "axis-1" and found.embeddings.dtype == np.float16
    assert found.embeddings.argmax(1).tolist() == [0, 1, 1, 0, 0], "in the order of the boxes"
    assert far.client.encoder_version("axis") == "axis-1" and far.loaded == ["axis"]


@pytest.mark.parametrize("items", [(), ("x",)])
def test_nothing_to_embed(far: Far, items: tuple[str, ...]) -> None:
    image = far.store.put(scene_bytes())
    found = far.client.embed(ask(*(ImageBoxes(image, ()) for _ in items)))
    assert found.embeddings.shape == (0, DIM)


def test_a_damaged_picture_is_said_and_harms_nothing(far: Far) -> None:
    good, bad = far.store.put(scene_bytes()), far.store.put(scene_bytes()[:400])
    with pytest.raises(ImageError, match="damaged"):
        far.client.embed(ask(ImageBoxes(good, (BRIGHT,)), ImageBoxes(bad, (BRIGHT,))))
    assert len(far.client.embed(ask(ImageBoxes(good, (BRIGHT,)))).embeddings) == 1


def test_a_picture_that_nobody_has(far: Far) -> None:
    with pytest.raises(EngineError, match="dropped from the store"):
        far.client.embed(ask(ImageBoxes("0" * 64, (BRIGHT,))))


def test_a_click_waits_for_one_step_at_most(far: Far) -> None:
    far.encoder.seconds_per_crop = 0.02
    image = far.store.put(scene_bytes())
    far.client.answer(Ask(image, (POINT,)))  # warm
    batch = threading.Thread(target=far.client.embed, args=(ask(ImageBoxes(image, (BRIGHT,) * 120)),))
    batch.start()
    time.sleep(0.3)
    clicks = []
    while batch.is_alive() and len(clicks) < 6:
        begun = time.monotonic()
        far.client.answer(Ask(image, (POINT,)))
        clicks.append(time.monotonic() - begun)
        time.sleep(0.1)
    assert len(clicks) >= 4, "the batch was to take long"
    assert sorted(clicks)[len(clicks) // 2] < STEP_SECONDS + 0.15 and max(clicks) < 1.2
    batch.join()
    longest = far.encoder.batches[1:]
    assert sum(far.encoder.batches) == 120 and max(longest) * 0.02 <= STEP_SECONDS + 0.01


def test_a_quick_encoder_is_given_large_steps(far: Far) -> None:
    image = far.store.put(scene_bytes())
    far.client.embed(ask(ImageBoxes(image, (BRIGHT,) * 200)))
    assert far.encoder.batches[:3] == [8, 64, 64]


def verdict(far: Far, head: str | None) -> tuple[str | None, str]:
    answer = far.client.answer(Ask(far.store.put(scene_bytes()), (POINT,), head=head))
    assert answer.found[0] is not None and answer.found[0].verdict is not None
    return answer.found[0].verdict.label, answer.model_version


def test_a_head_that_the_engine_lacks_is_sent_once_and_named(far: Far) -> None:
    far.heads["head-p1-1"] = head_of(("Car", "Van"), version="head-p1-1")
    far.heads["head-p2-1"] = head_of(("Ant", "Bee"), version="head-p2-1")
    for _ in range(2):
        assert verdict(far, "head-p1-1") == ("Car", "bright-1+head-p1-1")
        assert verdict(far, "head-p2-1") == ("Ant", "bright-1+head-p2-1")
    assert far.asked == ["head-p1-1", "head-p2-1"]
    assert verdict(far, None) == (None, "bright-1+toy-head-1"), "the engine's own"


def test_a_head_of_other_weights_or_with_damage_is_refused(far: Far) -> None:
    far.heads["other"] = head_of(version="other", encoder="axis-0")
    with pytest.raises(HeadError, match="fitted on axis-0"):
        verdict(far, "other")
    with pytest.raises(HeadError):
        far.engine.put_head({"head.json": b"{}"})
    assert verdict(far, None)[1] == "bright-1+toy-head-1"


@pytest.mark.parametrize(
    ("trouble", "why"),
    [(EncoderError("Put x.pt into models."), r"Put x\.pt"), (torch.OutOfMemoryError("20 GiB"), "smaller encoder")],
)
def test_a_click_is_answered_without_the_class_of_a_head_that_cannot_be_used(
    far: Far, trouble: Exception, why: str
) -> None:
    far.troubles["gone"] = trouble
    far.heads["head-1"] = replace(head_of(version="head-1"), encoder_name="gone")
    image = far.store.put(scene_bytes())
    answer, said = answer_or_without_class(far.client, Ask(image, (POINT,), head="head-1"))
    assert answer.found[0] is not None and answer.found[0].verdict is None
    assert said is not None and re.search(why, said)


def test_a_head_whose_encoder_went_meanwhile_costs_the_class_alone(far: Far) -> None:
    far.heads["head-1"] = replace(head_of(version="head-1"), encoder="a-1", encoder_name="a")
    assert verdict(far, "head-1")[1] == "bright-1+head-1"
    for name in ("b", "c"):
        far.client.encoder_version(name)  # that of the head made room
    far.troubles["a"] = EncoderError("Put a.pt into models.")
    answer, said = answer_or_without_class(far.client, Ask(far.store.put(scene_bytes()), (POINT,), head="head-1"))
    assert answer.found[0] is not None and said is not None and "a.pt" in said


def test_embedding_goes_on_where_memory_is_short(far: Far) -> None:
    embed, sizes = far.encoder.embed, list[int]()

    def narrow(crops: Sequence[Any]) -> Any:
        sizes.append(len(crops))
        if len(crops) > 2:
            raise torch.OutOfMemoryError(f"{len(crops)} crops do not fit")
        return embed(crops)

    far.encoder.embed = narrow  # type: ignore[method-assign]
    image = far.store.put(scene_bytes())
    found = far.client.embed(ask(ImageBoxes(image, (BRIGHT, DARK) * 4)))
    assert found.embeddings.argmax(1).tolist() == [0, 1] * 4 and sizes == [8, 8, 2, 2, 2, 2]
    assert far.engine.status().memory_steps["smaller batch"] == 1


def test_an_encoder_is_loaded_once_others_gave_way(far: Far) -> None:
    far.troubles["axis"] = torch.OutOfMemoryError("20 GiB")
    with pytest.raises(OutOfMemory, match="smaller encoder"):
        far.client.encoder_version("axis")
    assert far.loaded == ["axis", "axis"], "tried again when others had given up theirs"
    del far.troubles["axis"]
    assert far.client.encoder_version("axis") == "axis-1"


def test_a_client_without_heads_says_so(far: Far, tmp_path: Path) -> None:
    client = EngineClient(Settings(home=tmp_path), far.store)
    with pytest.raises(EngineError, match="head-9"):
        client.answer(Ask(far.store.put(scene_bytes()), (POINT,), head="head-9"))
    client.close()


def test_serving_and_embedding_see_the_same_box_alike(far: Far) -> None:
    """The verdict on a clicked box is the head's verdict on that box's embedding in half precision."""
    rng = np.random.default_rng(0)
    far.encoder.embed = lambda crops: unit_rows(rng_of(crops))  # type: ignore[method-assign]
    weight = rng.normal(size=(2, DIM)).astype(np.float32)
    head = replace(head_of(("Car", "Van"), version="head-1", threshold=0.0), weight=weight)
    far.heads["head-1"] = head
    image = far.store.put(scene_bytes())
    answer = far.client.answer(Ask(image, (POINT,), head="head-1"))
    assert answer.found[0] is not None and answer.found[0].verdict is not None
    embedded = far.client.embed(ask(ImageBoxes(image, (answer.found[0].xyxy,)))).embeddings
    (again,) = head.verdicts(embedded.astype(np.float32))
    assert answer.found[0].verdict == again


def rng_of(crops: Sequence[Any]) -> Any:
    return np.stack([np.random.default_rng(int(crop.sum())).normal(size=DIM) for crop in crops])


def unit_rows(rows: Any) -> Any:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# Models


def test_encoders_used_longest_ago_make_room() -> None:
    loaded: list[str] = []

    def load(name: str) -> Any:
        loaded.append(name)
        return AxisEncoder(f"{name}-1")

    models = ClassModels(load)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert models.encoder(name).version == f"{name}-1"
    assert ENCODERS_KEPT == 2 and loaded == ["a", "b", "c", "b"]


def test_heads_used_longest_ago_make_room_and_encoders_come_back() -> None:
    models = ClassModels(lambda name: AxisEncoder(f"{name}-1"))
    for number in range(HEADS_KEPT):
        models.put_head(head_of(version=f"head-{number}").files())
    models.classifier("head-0")
    models.put_head(head_of(version="one more").files())
    assert models.classifier("head-0").version == "head-0"
    with pytest.raises(UnknownHead):
        models.classifier("head-1")
    for name in ("b", "c"):
        models.encoder(name)  # the heads' encoder made room
    assert models.classifier("head-0").version == "head-0"


def test_an_encoder_is_loaded_once_whoever_asks_and_a_failure_is_not_kept() -> None:
    loaded: list[str] = []

    def load(name: str) -> Any:
        loaded.append(name)
        time.sleep(0.05)
        if len(loaded) == 1:
            raise EngineError("no weights yet")
        return AxisEncoder()

    models = ClassModels(load)
    with pytest.raises(HeadError, match="no weights yet"):
        models.put_head(head_of().files())
    threads = [threading.Thread(target=models.encoder, args=("axis",)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 2


def test_recipes_travel_with_the_question(far: Far) -> None:
    seen: list[Any] = []
    embed = far.encoder.embed
    far.encoder.embed = lambda crops: seen.append(crops) or embed(crops)  # type: ignore[method-assign,func-returns-value]
    image = far.store.put(scene_bytes())
    for recipe in (CropRecipe(0.5), CropRecipe(0, False)):
        far.client.embed(EmbedAsk("axis", (ImageBoxes(image, (BRIGHT,)),), recipe.margin, recipe.square))
    assert seen[0][0][0, 0].mean() < 60 and seen[1][0][16, 16].mean() == 230
