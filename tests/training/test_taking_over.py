"""Which trained head takes over: whole trainings of a project whose labels, encoders and active heads are known."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from label_config.build import build
from label_config.reader import read_cached
from tator_ml.engine.client import EngineAway
from tator_ml.engine.messages import Busy, EmbedAsk, Embedded, EngineError
from tator_ml.images.decode import ImageError
from tator_ml.learning.registry import HeadEntry
from tator_ml.learning.stores import example_store, head_registry, project_choices
from tator_ml.projects import Activation
from tator_sdk.annotations import LabelledBox
from tator_sdk.requests import HeadTraining
from tator_sdk.settings import Settings
from training.clip.metrics import macro_f1
from training.clip.train import train
from training.job import JobCancelled, LocalJob

PROJECT = 7
CLASSES = ("Star", "Heart", "Moon", "Drop")
SIZE_WH, SIDE = (100, 100), 20
EACH = 5  # boxes on a picture
DIM = {"sharp": 16, "blurred": 12, "blind": 8}
NOISE = {"sharp": 0.1, "blurred": 0.45, "blind": 1.0}
EVEN = (0.25, 0.25, 0.25, 0.25)


class Sees:
    """Encoders that see in which column a box lies, more or less: what a box shows is its column.

    Attributes:
        asks: of all that was asked.
        away: error that it fails with, by encoder.
        weights: of all encoders, as versions tell them apart.
    """

    def __init__(self) -> None:
        self.asks: list[EmbedAsk] = []
        self.away: dict[str, Exception] = {}
        self.weights = 1

    def embed(self, ask: EmbedAsk) -> Embedded:
        self.asks.append(ask)
        if ask.encoder in self.away:
            raise self.away[ask.encoder]
        rows = [self.seen(ask.encoder, item.image, xyxy) for item in ask.items for xyxy in item.xyxy]
        return Embedded(self.encoder_version(ask.encoder), np.array(rows, np.float16))

    def seen(self, encoder: str, image: str, xyxy: Sequence[float]) -> NDArray[np.float32]:
        """Embedding of a box."""
        dim = DIM[encoder]
        rng = np.random.default_rng([dim, int(image[:12], 16), round(xyxy[0]), round(xyxy[1])])
        row = NOISE[encoder] * rng.normal(size=dim)
        if encoder != "blind":
            row[round(xyxy[0]) // SIDE] += 1
        return np.asarray(row / np.linalg.norm(row), np.float16).astype(np.float32)

    def encoder_version(self, name: str) -> str:
        return f"{name}-{self.weights}"


class Project:
    """A project's annotations, and trainings on them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.sees = Sees()

    def label(self, pictures: int, shuffled: int | None = None, shares: Sequence[float] = EVEN) -> None:
        """Label so many pictures, in place of what was; with a seed, all labels change places among the boxes."""
        columns = np.array([np.random.default_rng([3, n]).choice(4, EACH, p=shares) for n in range(pictures)])
        labels = columns.ravel()
        if shuffled is not None:
            labels = np.random.default_rng(shuffled).permutation(labels)
        examples = example_store(self.settings)
        for number in range(pictures):
            boxes = []
            for row in range(EACH):
                x, y = float(SIDE * columns[number, row]), float(SIDE * row)
                name = CLASSES[labels[EACH * number + row]]
                boxes.append(LabelledBox(f"r{row}", "image", name, (x, y, x + SIDE, y + SIDE), SIZE_WH))
            examples.put(PROJECT, number + 1, number + 1, "once", boxes, {("image", 0): picture(number)})
        examples.keep_only(PROJECT, range(1, pictures + 1))
        examples.close()

    def train(self, encoder: str = "sharp", **more: Any) -> HeadEntry:
        """Train as the button does; returns the head with its report."""
        request = HeadTraining(project=PROJECT, sync=False, encoder=encoder, **more)
        result = train(request, self.settings, LocalJob(self.settings, "training"), self.sees)
        entry = head_registry(self.settings).get(result["version"])
        assert result["activated"] == (self.active() == entry.version)
        assert result["activated"] == entry.report["gate"]["activate"]
        assert result["reason"] == entry.report["gate"]["reason"]
        return entry

    def active(self) -> str | None:
        return project_choices(self.settings).get(PROJECT).head

    def history(self) -> list[Activation]:
        return project_choices(self.settings).activations(PROJECT)

    def score(self, entry: HeadEntry, held_out_of: HeadEntry) -> float:
        """Macro-F1 of a head on what another training held out, with the head's own encoder; by hand."""
        head = entry.head()
        out = [one for one in held_out_of.examples() if one["held_out"]]
        rows = [self.sees.seen(head.encoder_name, one["image"], one["xyxy"]) for one in out]
        said = head.probabilities(np.array(rows)).argmax(1)
        truth = np.array([head.classes.index(one["label"]) for one in out])
        return round(macro_f1(truth, said, len(head.classes)), 4)


def picture(number: int) -> str:
    """Address of a picture unlike all others."""
    pixels = np.full((*SIZE_WH, 3), (number % 256, number // 256, 90), np.uint8)
    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode()


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Project:
    interface = read_cached(build("boxes", list(CLASSES), None))
    monkeypatch.setattr("training.clip.dataset._interface", lambda project, settings: interface)
    return Project(Settings(engine_patience_seconds=0))


def test_a_good_first_head_is_taken(project: Project) -> None:
    project.label(30)
    entry = project.train()
    gate = entry.report["gate"]
    assert project.active() == entry.version and gate["active"] is None and gate["active_version"] is None
    assert gate["candidate"] == project.score(entry, entry) > max(gate["luck"], gate["majority"])
    (change,) = project.history()
    assert (change.version, change.before, change.why) == (entry.version, None, "gate")
    assert change.figures["candidate"] == gate["candidate"]


def test_shuffled_labels_do_not_replace_a_good_head(project: Project) -> None:
    project.label(60)
    good = project.train()
    before = project.history()
    project.label(60, shuffled=1)
    bad = project.train()
    assert project.active() == good.version and project.history() == before and len(before) == 1
    gate = bad.report["gate"]
    assert not gate["activate"] and gate["active_version"] == good.version and gate["active"] is not None
    assert "luck" in gate["reason"] or "commonest" in gate["reason"] or "lower" in gate["reason"]
    assert head_registry(project.settings).get(bad.version).report["metrics"], "it stays for whoever wants to look"


@pytest.mark.parametrize("seed", range(10))
def test_shuffled_labels_are_no_first_head(project: Project, seed: int) -> None:
    project.label(40, shuffled=seed)
    entry = project.train(unknown_share=0)
    assert project.active() is None and project.history() == []
    assert "luck" in entry.report["gate"]["reason"] or "commonest" in entry.report["gate"]["reason"]


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_what_cannot_beat_the_commonest_class_is_no_first_head(project: Project, class_weight: str) -> None:
    project.label(80, shares=(0.95, 0.05, 0, 0))
    entry = project.train("blind", class_weight=class_weight)
    gate = entry.report["gate"]
    assert project.active() is None and project.history() == [] and not gate["activate"]
    assert gate["candidate"] <= max(gate["majority"], gate["luck"])


def test_a_better_head_of_more_data_takes_over_with_both_figures(project: Project) -> None:
    project.label(25)
    first = project.train("blurred")
    project.label(150)
    second = project.train("blurred")
    assert [one.version for one in project.history()] == [first.version, second.version] and project.active()
    gate, figures = second.report["gate"], project.history()[-1].figures
    assert gate["active_version"] == first.version
    assert gate["candidate"] > gate["active"] > gate["luck"]
    assert (figures["candidate"], figures["active"]) == (gate["candidate"], gate["active"])
    # what is held out now was held out or unknown then
    learned = {one["image"] for one in first.examples() if not one["held_out"]}
    assert not learned & {one["image"] for one in second.examples() if one["held_out"]}
    assert (gate["candidate"], gate["active"]) == (project.score(second, second), project.score(first, second))


@pytest.mark.parametrize("cached", [True, False], ids=["known", "made anew"])
@pytest.mark.parametrize(("before", "after", "taken"), [("blurred", "sharp", True), ("sharp", "blurred", False)])
def test_another_encoder_each_sees_the_same_boxes_its_own_way(
    project: Project, before: str, after: str, taken: bool, cached: bool
) -> None:
    project.label(60)
    first = project.train(before)
    if not cached:
        shutil.rmtree(project.settings.home / "embeddings")
    project.sees.asks.clear()
    second = project.train(after)
    gate = second.report["gate"]
    assert (project.active() == second.version) == taken
    assert (gate["candidate"], gate["active"]) == (project.score(second, second), project.score(first, second))
    assert gate["boxes"] == sum(one["held_out"] for one in second.examples())
    asked = {item.image for ask in project.sees.asks if ask.encoder == before for item in ask.items}
    assert asked == (set() if cached else {one["image"] for one in second.examples() if one["held_out"]})


def test_after_a_rollback_the_next_head_is_compared_with_the_one_before(project: Project) -> None:
    project.label(25)
    first = project.train("blurred")
    project.label(150)
    second = project.train("blurred")
    assert project.active() == second.version
    back = head_registry(project.settings).rollback(PROJECT)
    assert back is not None and back.version == first.version == project.active()
    project.label(160)
    third = project.train("blurred")
    gate = third.report["gate"]
    assert gate["active_version"] == first.version and gate["active"] == project.score(first, third)
    assert project.active() == third.version
    assert [one.why for one in project.history()] == ["gate", "gate", "rollback", "gate"]
    again = head_registry(project.settings).rollback(PROJECT)
    assert again is not None and again.version == first.version, "the rejected one is skipped"


@pytest.fixture
def unseen(project: Project) -> HeadEntry:
    """An active head of a sharp encoder, of whose embeddings none is kept."""
    project.label(60)
    entry = project.train("sharp")
    shutil.rmtree(project.settings.home / "embeddings")
    return entry


@pytest.mark.parametrize("error", [EngineAway("run `tator up`"), Busy("Tator is busy")], ids=["away", "busy"])
def test_an_engine_that_fails_during_the_comparison_lets_nobody_take_over(
    project: Project, unseen: HeadEntry, error: EngineError
) -> None:
    project.sees.away["sharp"] = error
    with pytest.raises(type(error), match=str(error)):
        project.train("blurred")
    assert project.active() == unseen.version and len(head_registry(project.settings).list()) == 1


def test_who_cancels_during_the_comparison_gets_no_head(project: Project, unseen: HeadEntry) -> None:
    def stop(done: int, total: int, what: str) -> None:
        if what.startswith("comparing") and total > 1:
            raise JobCancelled

    request = HeadTraining(project=PROJECT, sync=False, encoder="blurred")
    with pytest.raises(JobCancelled):
        train(request, project.settings, LocalJob(project.settings, "training", stop), project.sees)
    assert project.active() == unseen.version and len(head_registry(project.settings).list()) == 1


def test_an_active_head_whose_encoder_is_gone_makes_room(project: Project, unseen: HeadEntry) -> None:
    project.sees.away["sharp"] = EngineError("There is no encoder sharp.")
    second = project.train("blurred")
    assert project.active() == second.version and second.report["gate"]["active"] is None


def test_an_active_head_whose_encoder_has_other_weights_now_is_not_asked(project: Project, unseen: HeadEntry) -> None:
    project.sees.weights = 2
    second = project.train("blurred")
    assert project.active() == second.version and second.report["gate"]["active"] is None


def test_boxes_that_the_active_head_cannot_see_are_not_counted_against_it(
    project: Project, unseen: HeadEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = sorted({one["image"] for one in unseen.examples() if one["held_out"]})
    real, gone = project.sees.embed, set(out[::2])

    def embed(ask: EmbedAsk) -> Embedded:
        if ask.encoder == "sharp" and gone & {item.image for item in ask.items}:
            raise ImageError("The picture is gone.")
        return real(ask)

    monkeypatch.setattr(project.sees, "embed", embed)
    second = project.train("blurred")
    gate = second.report["gate"]
    assert project.active() == unseen.version and gate["active"] > gate["candidate"]
    assert gate["images"] == len(out) - len(gone)
    gone |= set(out)
    shutil.rmtree(project.settings.home / "embeddings")
    assert not project.train("blurred").report["gate"]["activate"]
    assert project.active() == unseen.version
