"""A whole tuning: data set, training, comparison, registry, activation; and a project as the data set."""

from __future__ import annotations

import base64
import json
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from tator_ml.vlm.loading import load_vlm
from tator_ml.vlm.merge import merge
from tator_ml.vlm.model import VlmError
from tator_ml.vlm.registry import QwenEntry, qwen_registry
from tator_sdk.datasets import DatasetRegistry
from tator_sdk.errors import TatorError
from tator_sdk.qwen_request import QwenTraining
from tator_sdk.settings import Settings
from tests.qwen.material import FAST, Watched, picture, request, settings_of, yolo
from training.gate import Decision
from training.job import JobCancelled
from training.qwen import job as job_module
from training.qwen.compare import compare
from training.qwen.job import tune
from training.samples import NothingToLearn
from training.source import KEPT, open_samples

PROJECT = 7
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="rect" toName="image">'
    '<Label value="car"/><Label value="bus"/><Label value="tram"/></RectangleLabels>'
    '<PolygonLabels name="poly" toName="image"><Label value="bus"/></PolygonLabels></View>'
)


@pytest.fixture
def settings(base: Path, tmp_path: Path) -> Settings:
    return settings_of(tmp_path / "home", base)


def of_files(folder: Path, **changes: Any) -> QwenTraining:
    return QwenTraining(dataset=str(folder), **{**FAST, "epochs": 1, "compare_pictures": 2, **changes})


@pytest.fixture(scope="module")
def tuned_once(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registry's folder with a run that has learned something, from the pictures of ``yolo``."""
    settings = settings_of(tmp_path_factory.mktemp("tuned") / "home", base)
    folder = yolo(tmp_path_factory.mktemp("data") / "set")
    tune(of_files(folder, seed=2, epochs=2, learning_rate=5e-2), settings, Watched(settings))
    return qwen_registry(settings).folder


@pytest.fixture
def tuned(settings: Settings, tuned_once: Path) -> QwenEntry:
    """The same in this test's home."""
    registry = qwen_registry(settings)
    shutil.copytree(tuned_once, registry.folder)
    return registry.entries()[-1]


def test_a_run_is_registered_with_everything_that_made_it(settings: Settings, tmp_path: Path) -> None:
    wanted = of_files(yolo(tmp_path / "set"), context="From above.", image_type="drawing", system_prompt="Look.")
    job = Watched(settings)
    result = tune(wanted, settings, job)
    assert not result["activated"] and "same for every picture" in result["reason"] and result["classes"] == 2
    entry = qwen_registry(settings).entry(result["id"])
    about = json.loads((Path(str(entry.folder)) / "metadata.json").read_text())
    assert about["classes"] == ["car", "bus"] and about["dataset_context"] == "From above."
    assert about["system_prompt"] == "Look." and about["system_prompt_noise"] == 0.05 and not about["use_qlora"]
    assert about["model_id"] == settings.qwen_model_name and about["source_dataset"] == str(tmp_path / "set")
    assert about["max_image_dim"] == 1024 and about["latest_checkpoint"] == "adapter"
    assert entry.style.image_type == "drawing" and entry.adapter is not None and entry.metrics is not None
    assert entry.metrics["pictures"]["train"] + entry.metrics["pictures"]["held_out"] == 10
    held_out = entry.metrics["pictures"]["held_out"]
    assert entry.metrics["gate"]["active_id"] == "base" and entry.metrics["gate"]["pictures"] == min(2, held_out)
    assert any("tram" in note for note in entry.metrics["notes"])
    seen = entry.examples()
    assert len(seen) == 10 and sum(one["held_out"] for one in seen) == held_out
    assert sorted(path.name for path in entry.adapter.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert not list(job.folder.glob("best-*")) and not list(job.folder.glob("checkpoint*"))
    # it answers in service
    vlm = load_vlm(settings, entry.model_id, "cpu", entry.adapter, entry.id, 1024)
    assert vlm.generate(picture((84, 84), []), "Look.", "Find cars.", 4).tokens


@pytest.mark.faults
def test_a_job_that_had_registered_its_run_before_it_died_does_not_do_so_twice(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = of_files(yolo(tmp_path / "set"))

    def dies(*_: Any) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job_module, "activate_where_good", dies)
        with pytest.raises(KeyboardInterrupt):
            tune(wanted, settings, Watched(settings))
    (run,) = qwen_registry(settings).entries()[1:]
    assert tune(wanted, settings, Watched(settings))["id"] == run.id
    assert len(qwen_registry(settings).entries()) == 2
    assert tune(wanted, settings, Watched(settings, "another"))["id"] != run.id


def test_a_cancelled_job_registers_nothing(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(JobCancelled):
        tune(of_files(yolo(tmp_path / "set")), settings, Watched(settings, stop_at=1))
    assert len(qwen_registry(settings).entries()) == 1


def test_a_project_is_learned_and_a_good_model_takes_over(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it takes over and when not, tests/sam3_training/test_job.py shows: it is one function for both."""
    studio(monkeypatch, labelled_pictures(4))
    decision = Decision(True, "it is good", None, None, None, None, 4)
    monkeypatch.setattr(job_module, "compare", lambda *_: decision)
    wanted = QwenTraining(project=PROJECT, **{**FAST, "epochs": 1})
    result = tune(wanted, settings, Watched(settings))
    registry = qwen_registry(settings)
    assert result["activated"] and registry.active(PROJECT).id == result["id"] and registry.active(8).id == "base"
    assert registry.entry(result["id"]).project == PROJECT and result["id"].startswith("qwen-p7-1-")


def test_what_the_active_model_has_learned_from_is_not_compared_on(
    settings: Settings, tuned: QwenEntry, tmp_path: Path
) -> None:
    job = Watched(settings)
    wanted = of_files(yolo(tmp_path / "set"), seed=1)
    learned = {one["image"] for one in tuned.examples() if not one["held_out"]}
    with open_samples(wanted, settings, job) as found:
        held_out = {one.image for one in found.held_out}
        assert held_out & learned  # another seed holds out others
        decision = compare(qwen_registry(settings).base(), tuned, found, wanted, settings, job)
    assert decision.pictures == len(held_out - learned)


def test_a_model_that_cannot_be_compared_with_costs_no_training(
    settings: Settings, tuned: QwenEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio(monkeypatch, labelled_pictures(4))
    wanted = QwenTraining(project=PROJECT, **{**FAST, "epochs": 1})
    registry = qwen_registry(settings)
    registry.activate(PROJECT, tuned.id, "person")
    assert tuned.adapter is not None
    (tuned.adapter / "adapter_config.json").unlink()
    second = tune(wanted, settings, Watched(settings, "second"))
    assert "could not be compared: Put adapter_config.json into" in second["reason"] and not second["activated"]
    shutil.rmtree(str(tuned.folder))
    job = Watched(settings, "third")
    third = registry.entry(tune(wanted, settings, job)["id"])
    assert third.metrics is not None and third.metrics["gate"]["active_id"] == "base"
    assert any("compared with the base" in line for line in job.lines)


def test_a_picture_that_no_processor_takes_is_left_out(settings: Settings, tmp_path: Path) -> None:
    folder = yolo(tmp_path / "set")
    cv2.imwrite(str(folder / "images" / "0.png"), np.zeros((2, 500, 3), np.uint8))
    with open_samples(of_files(folder), settings, Watched(settings), most_aspect=199) as found:
        assert len(found.train) + len(found.held_out) == 9 and any("too narrow" in note for note in found.notes)


# Data sets


def test_a_zip_and_a_registered_name_are_the_same_data_set(settings: Settings, tmp_path: Path) -> None:
    folder = yolo(tmp_path / "set")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder))
    name = DatasetRegistry(settings.home).register(folder).id
    found = []
    for given in (str(folder), str(tmp_path / "set.zip"), name):
        with open_samples(
            of_files(Path(given)).model_copy(update={"dataset": given}), settings, Watched(settings)
        ) as one:
            found.append({(it.image, it.objects) for it in (*one.train, *one.held_out)})
            assert one.train[0].read().shape == (84, 84, 3) and one.classes == ("car", "bus")
    assert found[0] == found[1] == found[2] and len(found[0]) == 10
    with (
        pytest.raises(TatorError, match="no data set 'nowhere'"),
        open_samples(of_files(Path("nowhere")), settings, Watched(settings)),
    ):
        pass


def test_bad_files_are_noted_and_stop_nothing(settings: Settings, tmp_path: Path) -> None:
    folder = yolo(tmp_path / "set")
    (folder / "images" / "0.png").write_bytes(b"no picture")
    (folder / "labels" / "1.txt").write_text("0 0.5 0.5 nan 0.2\n1 0.5 0.5 0.2 0.2\n")
    with open_samples(of_files(folder), settings, Watched(settings)) as found:
        assert len(found.train) + len(found.held_out) == 9
        assert any("0.png" in note for note in found.notes) and any("1.txt:1" in note for note in found.notes)


def labelled_pictures(count: int, size_wh: tuple[int, int] = (84, 84)) -> list[Any]:
    """Tasks of a project, each with a box, the last without any."""
    tasks = []
    for number in range(count):
        pixels = picture(size_wh, [("car", (10.0, 20.0, 50.0, 60.0))], seed=number)
        data = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
        region = {
            "id": f"r{number}", "from_name": "rect", "to_name": "image", "type": "rectanglelabels",
            "original_width": size_wh[0], "original_height": size_wh[1],
            "value": {"x": 1000 / 84, "y": 2000 / 84, "width": 4000 / 84, "height": 4000 / 84, "rotation": 0,
                      "rectanglelabels": ["car"]},
        }  # fmt: skip
        result = [region] if number < count - 1 else []
        old = {"id": 2 * number + 1, "result": [], "updated_at": "2026-01-01T00:00:00Z", "was_cancelled": False}
        new = {"id": 2 * number + 2, "result": result, "updated_at": "2026-01-02T00:00:00Z", "was_cancelled": False}
        address = "data:image/png;base64," + base64.b64encode(data).decode()
        tasks.append(SimpleNamespace(id=number + 1, data={"image": address}, annotations=[new, old]))
    return tasks


def studio(monkeypatch: pytest.MonkeyPatch, tasks: list[Any]) -> None:
    about = SimpleNamespace(label_config=CONFIG, num_tasks_with_annotations=len(tasks))
    client = SimpleNamespace(
        projects=SimpleNamespace(get=lambda number: about), tasks=SimpleNamespace(list=lambda **_: list(tasks))
    )
    monkeypatch.setattr("training.source.open_studio", lambda settings: client)


def test_a_project_gives_the_newest_annotations_and_empty_pictures_too(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = labelled_pictures(5)
    tasks[0].annotations[0]["result"][0]["original_width"] = 300  # drawn on another picture
    outline = {"points": [[0, 0], [100, 0], [100, 10], [10, 10], [10, 100], [0, 100]], "polygonlabels": ["bus"]}
    tasks[1].annotations[0]["result"].append(
        {"id": "p", "from_name": "poly", "to_name": "image", "type": "polygonlabels", "original_width": 84,
         "original_height": 84, "value": outline}
    )  # fmt: skip
    studio(monkeypatch, tasks)
    wanted = QwenTraining(project=PROJECT, **FAST)
    job = Watched(settings)
    with open_samples(wanted, settings, job) as found:
        everything = [*found.train, *found.held_out]
        assert sorted(len(one.objects) for one in everything) == [0, 0, 1, 1, 2]
        assert found.classes == ("car", "bus") and found.source == "project 7"
        cars = [it for one in everything for it in one.objects if it.label == "car"]
        assert all(np.allclose(it.box, (10, 20, 50, 60)) and np.allclose(it.point, (30, 40)) for it in cars)
        (bent,) = [it for one in everything for it in one.objects if it.label == "bus"]
        x, y = bent.point
        assert bent.box == (0, 0, 84, 84) and min(x, y) < 9, "the middle of an L lies beside it"
        assert everything[0].read().shape == (84, 84, 3)
        assert any("another picture's size" in line for line in job.lines)

    # what is annotated meanwhile does not change what a killed training goes on with
    studio(monkeypatch, labelled_pictures(9))
    with open_samples(wanted, settings, Watched(settings)) as again:
        assert [one.image for one in again.train] == [one.image for one in found.train] and again.train == found.train
        assert (again.train[0].read() == found.train[0].read()).all()
    assert (job.folder / KEPT).exists()
    with open_samples(wanted, settings, Watched(settings, "a later job")) as fresh:
        assert len(fresh.train) + len(fresh.held_out) == 9


def test_a_project_without_labels_is_said(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    studio(monkeypatch, labelled_pictures(1))
    with (
        pytest.raises(NothingToLearn),
        open_samples(QwenTraining(project=PROJECT, **FAST), settings, Watched(settings)),
    ):
        pass


# Out again


def test_a_merged_model_answers_as_base_and_adapter_do(settings: Settings, tuned: QwenEntry, tmp_path: Path) -> None:
    folder = merge(tuned, settings, tmp_path / "merged")
    assert (folder / "metadata.json").exists() and not list(folder.glob("*.bin"))
    one, other = (load_vlm(settings, *what) for what in ((str(folder), "cpu"), (tuned.model_id, "cpu", tuned.adapter)))
    question = one.prepare(picture((84, 84), []), "s", "u")
    with torch.inference_mode():
        logits = [vlm._model(**question.inputs).logits for vlm in (one, other)]
        base: Any = AutoModelForImageTextToText.from_pretrained(tuned.model_id)
        untuned = base.eval()(**question.inputs).logits
    assert torch.allclose(logits[0], logits[1], atol=1e-5) and not torch.allclose(logits[0], untuned, atol=1e-3)
    with pytest.raises(VlmError, match="exists already"):
        merge(tuned, settings, folder)
    assert request(base=str(folder)).base == str(folder)
