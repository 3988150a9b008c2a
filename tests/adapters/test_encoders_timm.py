"""Encoders of timm against its own transform and model, and names that need no kind."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from tator_ml.engine import encoders
from tator_ml.engine.encoders import EncoderError
from tests.adapters.material import TOLERANCE, picture, random_state

# One of convolutions with ImageNet's mean, one transformer with a mean of 0.5 and another size.
NAMES = {"resnet18.a1_in1k": (224, 512), "vit_tiny_patch16_384.augreg_in21k_ft_in1k": (384, 192)}


def published(folder: Path, name: str, seed: int = 0) -> tuple[nn.Module, Path]:
    """The whole model, classifier included, and its file."""
    model = timm.create_model(name, pretrained=False)
    model.load_state_dict(random_state(model, seed))
    path = folder / "model.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return model.eval(), path


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_are_those_of_transform_and_model(tmp_path: Path, name: str) -> None:
    model, path = published(tmp_path, name)
    encoder = encoders.load(f"timm:{name}@{path}")
    assert (encoder.size, encoder.dim) == NAMES[name]
    assert encoder.version.startswith(f"timm-{name.partition('.')[0]}-") and str(tmp_path) not in encoder.version
    images = [picture((encoder.size, encoder.size), seed) for seed in range(3)]
    # All of the picture: what the published transform would cut off is the head's business.
    config = timm.data.resolve_model_data_config(model) | {"crop_pct": 1.0}
    transform: Any = timm.data.create_transform(**config)
    pixels = torch.stack([transform(Image.fromarray(image)) for image in images])
    with torch.no_grad():
        features = model.forward_head(model.forward_features(pixels), pre_logits=True)
    expected = nn.functional.normalize(features, dim=-1).numpy()
    np.testing.assert_allclose(encoder.embed(images), expected, atol=TOLERANCE)
    assert np.abs(expected[0] - expected[1]).max() > 10 * TOLERANCE


def test_files_of_torch_and_without_a_classifier_are_read_too(tmp_path: Path) -> None:
    model, path = published(tmp_path, "resnet18")
    torch.save(model.state_dict(), tmp_path / "whole.pth")
    bare = {key: value for key, value in model.state_dict().items() if not key.startswith("fc.")}
    torch.save(bare, tmp_path / "bare.pth")
    files = [path, tmp_path / "whole.pth", tmp_path / "bare.pth"]
    assert len({encoders.load(f"timm:resnet18@{file}").version for file in files}) == 1


def test_the_authors_layout_is_translated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DINOv2 as Meta publishes it has a mask token and no name for timm's scales."""
    # every weight is replaced: what a new model holds need not be drawn, three times over
    monkeypatch.setattr("timm.layers.weight_init._trunc_normal_", lambda weight, *_, **__: weight)
    name = "vit_small_patch14_dinov2"
    small = partial(timm.models.vision_transformer.vit_small_patch14_dinov2, depth=2)  # of twelve blocks that are alike
    monkeypatch.setitem(timm.models._registry._model_entrypoints, name, small)
    model = timm.create_model(name, pretrained=False, num_classes=0)
    state = random_state(model, 0)
    assert len(model.blocks) == 2
    torch.save({**state, "mask_token": torch.zeros(1, 384)}, tmp_path / "dinov2_vits14_pretrain.pth")
    encoder = encoders.load(f"timm:{name}@{tmp_path / 'dinov2_vits14_pretrain.pth'}")
    save_file(state, tmp_path / "model.safetensors")
    assert encoder.version == encoders.load(f"timm:{name}@{tmp_path / 'model.safetensors'}").version


def test_weights_that_do_not_fit_are_refused_in_a_sentence(tmp_path: Path) -> None:
    _, path = published(tmp_path, "resnet18")
    (tmp_path / "noise.safetensors").write_bytes(path.read_bytes()[:500])
    lacking = dict(list(timm.create_model("resnet18").state_dict().items())[4:])
    save_file(lacking, tmp_path / "lacking.safetensors")
    for name, file, told in (
        ("resnet34", path, "does not hold weights of resnet34"),
        ("vit_tiny_patch16_224", path, "does not hold weights of"),
        ("resnet18", tmp_path / "lacking.safetensors", "it lacks conv1.weight"),
        ("resnet18", tmp_path / "noise.safetensors", "cannot be read as weights"),
        ("resnet18", tmp_path / "absent.safetensors", "Put absent.safetensors into"),
    ):
        with pytest.raises(EncoderError, match=told) as caught:
            encoders.load(f"timm:{name}@{file}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnet18000", "no model called 'resnet18000'"),
        ("resnet18.no_such_tag", "no weights called 'resnet18.no_such_tag'"),
        ("coatnet_0_224", "name a file: timm:coatnet_0_224@<file>"),
        ("resnet18", "name the file: timm:resnet18@<file>"),
    ],
)
def test_names_that_lead_nowhere_and_an_unreachable_hub(monkeypatch: pytest.MonkeyPatch, name: str, told: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("tator_ml.engine.encoders.timm_model.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(EncoderError, match=told) as caught:
        encoders.load(f"timm:{name}")
    assert "\n" not in str(caught.value)


def test_weights_from_the_hub_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that timm's client would bring, in its cache; the version is that of the file by name."""
    _, path = published(tmp_path, "resnet18.a1_in1k")
    monkeypatch.setattr("tator_ml.engine.encoders.timm_model.try_to_load_from_cache", lambda *_: str(path))
    monkeypatch.setattr("timm.models._hub.hf_hub_download", lambda *_, **__: str(path))
    encoder = encoders.load("timm:resnet18.a1_in1k")
    assert encoder.version == encoders.load(f"timm:resnet18@{path}").version


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B/32", "ViT-L/14@336px"])
def test_a_clip_name_needs_no_kind(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """``CLIP_MODEL_NAME=ViT-B/32`` of the first Tator keeps its meaning."""

    def unreachable(*_: object, **__: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", unreachable)
    known = name.replace("/", "-").replace("@336px", "-336")
    with pytest.raises(EncoderError, match=f"'openai' could not be fetched .*open_clip:{known}-quickgelu@<file>"):
        encoders.load(name)


def test_a_clip_name_with_a_file_needs_no_kind(tmp_path: Path) -> None:
    model = open_clip.create_model("ViT-S-32-alt")
    path = tmp_path / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    assert encoders.load(f"ViT-S-32-alt@{path}").version == encoders.load(f"open_clip:ViT-S-32-alt@{path}").version


def test_asking_for_names_loads_no_model_library() -> None:
    heavy = {"torch", "transformers", "timm", "open_clip"}
    code = f"import sys; from tator_ml.engine import encoders; encoders.names(); print({heavy!r} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
