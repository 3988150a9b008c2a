"""Where a SAM 3 comes from: folder, hub or checkpoint; and what is said where it cannot be had."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import Sam3Config, Sam3Model

from tator_ml.engine.named import load_segmenter, segmenter_device
from tator_ml.engine.segmenters import UnknownSegmenter, load, published, weights
from tator_ml.engine.segmenters.base import Prompts
from tator_ml.engine.segmenters.half import HalfPrecision
from tator_ml.sam3.files import Sam3Error, find_files, is_sam3
from tator_ml.sam3.loading import load_sam3
from tator_ml.vlm.loading import find
from tator_ml.vlm.model import VlmError
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from tests.sam3.engine_material import drawn_folder, picture

POINT = Prompts(np.array([[[40.0, 30.0]]], np.float32), np.array([[1]]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_folder(tmp_path_factory.mktemp("loading"))


def settings_of(home: Path, **changes: Any) -> Settings:
    return Settings(_env_file=None, home=home, **{"offline": True, **changes})


def copied(folder: Path, to: Path, change: Any = None) -> Path:
    shutil.copytree(folder, to)
    if change:
        state = change(load_file(to / "model.safetensors"))
        save_file({key: value.contiguous() for key, value in state.items()}, to / "model.safetensors", {"format": "pt"})
    return to


def said(settings: Settings, name: str = "sam3", kind: type[TatorError] = Sam3Error) -> str:
    with pytest.raises(kind) as caught:
        load_segmenter(settings, name, "cpu")
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and text.count(". ") == 0, text
    return text


def test_names_and_settings(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings(_env_file=None).sam3_model_id == "facebook/sam3"
    for name, value in {"MODEL_ID": str(folder), "PROCESSOR_ID": "", "CHECKPOINT_PATH": "", "DEVICE": "cuda:1"}.items():
        monkeypatch.setenv(f"SAM3_{name}", value)
    settings = Settings(_env_file=None, home=tmp_path)
    assert (settings.sam3_device, find_files(settings).folder) == ("cuda:1", folder)
    assert find_files(settings).checkpoint is None and find_files(settings).processor == folder
    assert segmenter_device(settings, "sam3", "cpu") == segmenter_device(settings, "sam3-run", "cpu") == "cuda:1"
    assert segmenter_device(settings, "starter", "cpu") == "cpu"
    assert segmenter_device(settings_of(tmp_path, sam3_device="auto"), "sam3", "cuda") == "cuda"
    assert is_sam3("sam3") and is_sam3("sam3-2026.11_a") and not is_sam3("sam3-../x") and not is_sam3("sam31")
    assert published("sam3").weights == "facebook/sam3"
    with pytest.raises(UnknownSegmenter):  # tuned ones are chosen among SAM 3's own, not among segmenters
        published("sam3-run")


def test_by_path_by_name_and_from_the_cache(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_path = load_segmenter(settings_of(tmp_path, sam3_model_id=str(folder)), "sam3", "cpu")
    by_hand = tmp_path / "models" / "facebook" / "sam3"
    copied(folder, by_hand)
    assert load_segmenter(settings_of(tmp_path), "sam3", "cpu").version == by_path.version
    assert load("sam3", None, tmp_path / "models", "cpu", offline=True).version == by_path.version
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(folder))
    assert find_files(settings_of(tmp_path / "other")).folder == folder
    half = load_segmenter(settings_of(tmp_path, precision="bfloat16"), "sam3", "cpu")
    assert isinstance(half, HalfPrecision) and half.version == f"{by_path.version}-bfloat16"


def refusal(kind: type[Any], status: int) -> Any:
    request = httpx.Request("GET", "https://hub.example/facebook/sam3")
    return kind("no access", response=httpx.Response(status, request=request))


@pytest.mark.parametrize("kind", [GatedRepoError, RepositoryNotFoundError])
@pytest.mark.parametrize("status", [401, 403])
def test_the_gated_models_refusal_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Any], status: int
) -> None:
    def refused(*_: Any, local_files_only: bool = False, **__: Any) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not in the cache")
        try:
            raise refusal(kind, status)
        except kind as error:
            raise OSError("some file could not be had") from error

    monkeypatch.setattr("huggingface_hub.snapshot_download", refused)
    what = "gated" if kind is GatedRepoError else "gated, private or misspelt"
    assert said(settings_of(tmp_path, offline=False)) == (
        f"facebook/sam3 is {what}: accept its licence on its page on the Hugging Face hub, then run `hf auth login` or "
        f"set HF_TOKEN; or put its files into {tmp_path / 'models' / 'facebook' / 'sam3'}."
    )


def test_a_hub_that_is_away_or_not_to_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def away(*_: Any, local_files_only: bool = False, **__: Any) -> str:
        asked.append(local_files_only)
        raise LocalEntryNotFoundError("nothing") if local_files_only else httpx.ConnectError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", away)
    assert "downloads are switched off" in said(settings_of(tmp_path)) and asked == [True]
    text = said(settings_of(tmp_path, offline=False))
    assert "could not be fetched" in text and "SAM3_MODEL_ID" in text and str(tmp_path / "models") in text
    processor = said(settings_of(tmp_path, offline=False, sam3_processor_id="org/other"))
    assert "SAM3_PROCESSOR_ID" in processor
    with pytest.raises(VlmError, match="QWEN_MODEL_NAME"):  # found by the same code, under its own setting
        find(settings_of(tmp_path, offline=False), "Qwen/Qwen2.5-VL-3B-Instruct")
    assert "no folder" in said(settings_of(tmp_path, sam3_model_id="nowhere"))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "processor_config.json", "tokenizer.json"])
def test_missing_and_damaged_files(tmp_path: Path, folder: Path, file: str) -> None:
    broken = copied(folder, tmp_path / "broken")
    settings = settings_of(tmp_path, sam3_model_id=str(broken))
    (broken / file).write_bytes((folder / file).read_bytes()[:200])
    assert str(broken) in said(settings)
    (broken / file).unlink()
    assert said(settings) == f"Put {file} into {broken}: the model there is not whole without."


def test_a_model_of_another_kind(tmp_path: Path, folder: Path) -> None:
    other = copied(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({"model_type": "clip"}))
    assert "is a clip, not a SAM 3" in said(settings_of(tmp_path, sam3_model_id=str(other)))
    (other / "config.json").write_text(json.dumps(config))
    processor = json.loads((other / "processor_config.json").read_text())
    (other / "processor_config.json").write_text(json.dumps({**processor, "target_size": 224}))
    assert "pictures of 224 px" in said(settings_of(tmp_path, sam3_model_id=str(other)))


@pytest.mark.parametrize("key", ["detector_model.detr_decoder", "tracker_neck.fpn_layers.0", "mask_decoder.conv_s0"])
def test_weights_that_are_not_all_there(tmp_path: Path, folder: Path, key: str) -> None:
    short = copied(folder, tmp_path / "short", lambda state: {one: state[one] for one in state if key not in one})
    assert str(short) in said(settings_of(tmp_path, sam3_model_id=str(short)), kind=TatorError)


def test_one_prefix_before_the_trackers_keys_as_published(tmp_path: Path, folder: Path) -> None:
    once = copied(
        folder,
        tmp_path / "once",
        lambda state: {
            name.replace("tracker_model.tracker_model.", "tracker_model."): one for name, one in state.items()
        },
    )
    names = load_file(once / "model.safetensors").keys()
    assert any(name.startswith("tracker_model.mask_decoder") for name in names)
    twice, published = (load("sam3", str(one), tmp_path, "cpu", True) for one in (folder, once))
    answers = [one.decode(one.encode(picture()), POINT, True).low_res for one in (twice, published)]
    assert torch.equal(*answers)


def test_a_bare_detector_finds_phrases_and_refuses_clicks(tmp_path: Path, folder: Path) -> None:
    bare = tmp_path / "bare"
    model: Any = Sam3Model.from_pretrained(folder)
    model.save_pretrained(bare)
    for file in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / file, bare / file)
    assert json.loads((bare / "config.json").read_text())["model_type"] == Sam3Config.model_type
    segmenter, whole = (
        load_segmenter(settings_of(tmp_path, sam3_model_id=str(one)), "sam3", "cpu") for one in (bare, folder)
    )
    embedding = segmenter.encode(picture())
    assert set(embedding.tensors) == {"hidden"}
    assert torch.equal(embedding.tensors["hidden"], whole.encode(picture()).tensors["hidden"])
    with pytest.raises(Sam3Error, match="no tracker that answers clicks: name"):
        segmenter.decode(embedding, POINT, False)


def changed(state: dict[str, Any], part: str) -> dict[str, Any]:
    return {name: one + 0.5 if part in name and one.is_floating_point() else one for name, one in state.items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("prefix", ["detector_model.", ""])
def test_a_checkpoints_weights_take_the_place_of_the_folders(
    tmp_path: Path, folder: Path, suffix: str, prefix: str
) -> None:
    detector, tracker = "text_projection.bias", "tracker_model.no_memory_embedding"
    state = changed(load_file(folder / "model.safetensors"), detector)
    only = {f"{prefix}{key[15:]}": one for key, one in state.items() if key.startswith("detector_model.")}
    path = tmp_path / f"tuned{suffix}"
    save_file(only, path) if suffix == ".safetensors" else torch.save({"model": only}, path)
    settings = settings_of(tmp_path, sam3_model_id=str(folder), sam3_checkpoint=str(path))
    files = find_files(settings)
    before, after = (
        load_sam3(find_files(settings_of(tmp_path, sam3_model_id=str(folder))), "cpu"),
        load_sam3(files, "cpu"),
    )
    assert torch.equal(after.detector.text_projection.bias, before.detector.text_projection.bias + 0.5)
    assert after.tracker is not None and before.tracker is not None
    assert torch.equal(after.tracker.no_memory_embedding, before.tracker.no_memory_embedding), tracker
    assert files.digest() != find_files(settings_of(tmp_path, sam3_model_id=str(folder))).digest()


def test_a_checkpoint_may_hold_the_tracker_too(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "whole.safetensors"
    save_file(changed(load_file(folder / "model.safetensors"), "no_memory_embedding"), path)
    settings = settings_of(tmp_path, sam3_model_id=str(folder))
    before = load_sam3(find_files(settings), "cpu")
    after = load_sam3(find_files(settings.model_copy(update={"sam3_checkpoint": str(path)})), "cpu")
    assert after.tracker is not None and before.tracker is not None
    assert torch.equal(after.tracker.no_memory_embedding, before.tracker.no_memory_embedding + 0.5)
    assert after.tracker.vision_encoder.backbone is after.detector.vision_encoder.backbone


def test_checkpoints_that_are_none(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "x.pt"
    settings = settings_of(tmp_path, sam3_model_id=str(folder), sam3_checkpoint=str(path))
    assert f"Put x.pt into {tmp_path}" in said(settings)
    path.write_bytes(b"no weights")
    unreadable = weights.WeightsUnreadable
    assert "cannot be read as weights" in said(settings, kind=unreadable)
    torch.save({"detector.backbone.vision_backbone.trunk.pos_embed": torch.zeros(1)}, path)
    assert "in the layout of SAM 3's own code" in said(settings, kind=unreadable)
    torch.save({"text_projection.bias": torch.zeros(32)}, path)
    assert "it lacks" in said(settings, kind=unreadable)


def test_tuned_ones_by_their_id(tmp_path: Path, folder: Path) -> None:
    settings = settings_of(tmp_path)
    assert "There is no SAM 3 'sam3-cars'" in said(settings, "sam3-cars")
    copied(folder, tmp_path / "sam3" / "sam3-cars" / "model")
    assert load_segmenter(settings, "sam3-cars", "cpu").version.startswith("sam3-cars-")
