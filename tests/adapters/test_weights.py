"""Where weights are found, and what is said when they are not or are not what they should be."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tator_ml.engine.segmenters import SEGMENTERS, UnknownSegmenter, load, weights
from tator_ml.engine.segmenters.starter_model import StarterSam
from tator_ml.engine.segmenters.weights import WeightsMissing, WeightsUnreadable

PUBLISHED_FILES = {
    "sam1-vit_b": "sam_vit_b_01ec64.pth",
    "sam1-vit_l": "sam_vit_l_0b3195.pth",
    "sam1-vit_h": "sam_vit_h_4b8939.pth",
    "sam2-tiny": "sam2.1_hiera_tiny.pt",
    "sam2-small": "sam2.1_hiera_small.pt",
    "sam2-base_plus": "sam2.1_hiera_base_plus.pt",
    "sam2-large": "sam2.1_hiera_large.pt",
    "mobile_sam": "mobile_sam.pt",
}


def assert_one_sentence(message: str, *named: str) -> None:
    assert message[0].isupper() or message[0] == "/"
    assert message.endswith(".")
    assert "\n" not in message
    assert not re.search(r"[.!?] [A-Z]", message), f"more than one sentence: {message}"
    for part in named:
        assert part in message


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A hub that has every file; what was asked of it."""
    asked: list[tuple[str, str]] = []

    def download(repository: str, file: str, local_dir: Path) -> str:
        asked.append((repository, file))
        path = local_dir / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def test_the_table_has_these_names() -> None:
    assert set(SEGMENTERS) == {"starter", "sam3", *PUBLISHED_FILES}  # sam3 is a folder: tests/sam3


@pytest.mark.parametrize(("name", "file"), PUBLISHED_FILES.items())
def test_a_published_file_put_there_by_hand(tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / file).touch()
    assert weights.resolve(name, None, tmp_path, offline=True) == tmp_path / file


@pytest.mark.parametrize(("name", "file"), PUBLISHED_FILES.items())
def test_a_download_is_done_once(tmp_path: Path, hub: list[tuple[str, str]], name: str, file: str) -> None:
    path = weights.resolve(name, None, tmp_path, offline=False)
    assert path.name == file
    assert path.is_relative_to(tmp_path)
    assert weights.resolve(name, None, tmp_path, offline=True) == path
    assert len(hub) == 1


def test_other_repositories_have_folders_of_their_own(tmp_path: Path, hub: list[tuple[str, str]]) -> None:
    paths = {
        weights.resolve("sam2-tiny", f"{who}/sam-2.1_x:best/model.safetensors", tmp_path, offline=False)
        for who in ("one", "other", "other")
    }
    assert paths == {tmp_path / who / "sam-2.1_x/best/model.safetensors" for who in ("one", "other")}
    assert hub == [(f"{who}/sam-2.1_x", "best/model.safetensors") for who in ("one", "other")]


@pytest.mark.parametrize("checkpoint", ["../../etc:passwd", "one/two:../three", "one/..:three", "one/two:a/../b"])
def test_no_part_of_a_hub_name_leaves_the_folder(tmp_path: Path, hub: list[tuple[str, str]], checkpoint: str) -> None:
    with pytest.raises(WeightsMissing):
        weights.resolve("sam2-tiny", checkpoint, tmp_path, offline=False)
    assert not hub


@pytest.mark.parametrize("checkpoint", [None, "one/two:deep/file.pt"])
def test_missing_and_offline(tmp_path: Path, checkpoint: str | None) -> None:
    with pytest.raises(WeightsMissing) as caught:
        load("mobile_sam", checkpoint, tmp_path, "cpu", offline=True)
    file, folder = ("mobile_sam.pt", tmp_path) if checkpoint is None else ("file.pt", tmp_path / "one/two")
    assert_one_sentence(str(caught.value), f" {file} ", f"{folder}:", "switched off")


def test_missing_and_no_way_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(url: str) -> None:
        raise RuntimeError("name resolution failed")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    with pytest.raises(WeightsMissing) as caught:
        load("sam1-vit_l", None, tmp_path, "cpu")
    assert_one_sentence(str(caught.value), "sam_vit_l_0b3195.pth", str(tmp_path), "ybelkada/segment-anything")


def test_a_real_client_that_is_told_to_stay_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with ``HF_HUB_OFFLINE=1`` in the environment."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsMissing) as caught:
        weights.resolve("sam2-tiny", None, tmp_path, offline=False)
    assert isinstance(caught.value.__cause__, huggingface_hub.errors.OfflineModeIsEnabled)
    assert_one_sentence(str(caught.value), "sam2.1_hiera_tiny.pt", str(tmp_path), "facebook/sam2.1-hiera-tiny")


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing) as caught:
        load("sam2-large", str(tmp_path / "my" / "finetuned.pt"), tmp_path, "cpu")
    assert_one_sentence(str(caught.value), "finetuned.pt", str(tmp_path / "my"))


def test_the_starter_weights_are_looked_for_in_the_package(tmp_path: Path) -> None:
    expected = resources.files("tator_ml") / "weights" / "starter_segmenter.safetensors"
    if expected.is_file():
        assert str(weights.resolve("starter", None, tmp_path, offline=True)) == str(expected)
    else:
        with pytest.raises(WeightsMissing) as caught:
            load("starter", None, tmp_path, "cpu")
        assert_one_sentence(str(caught.value), expected.name, "tator_ml/weights")


def test_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownSegmenter) as caught:
        load("sam9", str(tmp_path / "file"), tmp_path, "cpu")
    assert_one_sentence(str(caught.value), "'sam9'", *SEGMENTERS)


@pytest.mark.parametrize("name", ["starter", "sam1-vit_b", "sam2-tiny", "mobile_sam"])
def test_a_file_of_another_architecture(tmp_path: Path, name: str) -> None:
    path = tmp_path / "other.pth"
    torch.save({f"layer{index}.weight": torch.ones(2) for index in range(5)}, path)
    with pytest.raises(WeightsUnreadable) as caught:
        load(name, str(path), tmp_path, "cpu")
    assert_one_sentence(str(caught.value), str(path), name, "layer0.weight", "layer2.weight and 2 more")


def test_a_tensor_of_another_shape(tmp_path: Path) -> None:
    state = StarterSam().state_dict()
    state["mask_decoder.iou_token.weight"] = torch.ones(1, 7)
    path = tmp_path / "starter.safetensors"
    save_file(state, path)
    with pytest.raises(WeightsUnreadable) as caught:
        load("starter", str(path), tmp_path, "cpu")
    assert_one_sentence(str(caught.value), "shape", "mask_decoder.iou_token.weight")


@pytest.mark.parametrize("content", [[1, 2], {"model": {"a": 1}}, {"step": 3}, torch.ones(2)])
def test_torch_files_that_hold_something_else(tmp_path: Path, content: object) -> None:
    path = tmp_path / "else.pt"
    torch.save(content, path)
    with pytest.raises(WeightsUnreadable) as caught:
        weights.read(path)
    assert_one_sentence(str(caught.value), str(path))


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.folder,)

    def __init__(self, folder: str) -> None:
        self.folder = folder


@pytest.mark.parametrize("by_torch", [True, False])
def test_nothing_in_a_file_is_executed(tmp_path: Path, by_torch: bool) -> None:
    path, sprung = tmp_path / "trap.pth", tmp_path / "sprung"
    if by_torch:
        torch.save({"model": Trap(str(sprung))}, path)
    else:
        path.write_bytes(pickle.dumps({"model": Trap(str(sprung))}, protocol=2))
    with pytest.raises(WeightsUnreadable) as caught:
        weights.read(path)
    assert_one_sentence(str(caught.value), str(path))
    assert not sprung.exists()


def test_a_truncated_file_and_a_folder(tmp_path: Path) -> None:
    whole = {"a": torch.arange(1000.0)}
    torch.save(whole, tmp_path / "a.pth")
    save_file(whole, tmp_path / "a.safetensors")
    for path in list(tmp_path.iterdir()):
        assert torch.equal(weights.read(path)["a"], whole["a"])
        path.write_bytes(path.read_bytes()[:-500])
        with pytest.raises(WeightsUnreadable):
            weights.read(path)
    with pytest.raises(WeightsUnreadable):
        weights.read(tmp_path)


@given(
    st.binary(max_size=300),
    st.sampled_from([".pth", ".safetensors"]),
    st.sampled_from([b"", b"PK\3\4", b"\x80\2"]),
)
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_the_same_sentence(content: bytes, suffix: str, start: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(start + content)
        file.flush()
        with pytest.raises(WeightsUnreadable) as caught:
            weights.read(Path(file.name))
    assert_one_sentence(str(caught.value))


def test_sam2_files_are_unwrapped(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(1)}}, tmp_path / "a.pt")
    assert weights.read(tmp_path / "a.pt").keys() == {"a"}


def test_a_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    for name, content in (("one", b"abc"), ("same", b"abc"), ("other", b"abd")):
        (tmp_path / name).write_bytes(content)
    # echo -n abc | sha256sum
    assert weights.fingerprint(tmp_path / "one") == weights.fingerprint(tmp_path / "same") == "ba7816bf"
    assert weights.fingerprint(tmp_path / "other") != "ba7816bf"


def test_names_can_be_listed_without_torch() -> None:
    """The web process offers them; it must not import torch."""
    script = (
        "import sys; from tator_ml.engine.segmenters import SEGMENTERS\n"
        "assert 'starter' in SEGMENTERS; assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
