"""Encoders of transformers against its own processor and model on the same folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel

from tator_ml.engine import encoders
from tator_ml.engine.encoders import EncoderError, transformers_model
from tests.adapters.material import TOLERANCE, picture, random_state

SIDE = 32
TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": SIDE,
    "patch_size": 8,
}
TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 50,
    "max_position_embeddings": 8,
}
SQUARE = {"height": SIDE, "width": SIDE}
CUT: dict[str, Any] = {"size": {"shortest_edge": SIDE}, "crop_size": SQUARE}


def vit() -> tuple[nn.Module, Any]:
    return transformers.ViTModel(transformers.ViTConfig(**TOWER)), transformers.ViTImageProcessor(size=SQUARE)


def dinov2() -> tuple[nn.Module, Any]:
    """As published: positions for larger pictures than those of the processor."""
    config = transformers.Dinov2Config(**{**TOWER, "image_size": 48, "mlp_ratio": 2})
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    return transformers.Dinov2Model(config), transformers.BitImageProcessor(**CUT, image_mean=mean, image_std=std)


def clip() -> tuple[nn.Module, Any]:
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=TOWER, projection_dim=24)
    return transformers.CLIPModel(config), transformers.CLIPImageProcessor(**CUT)


def clip_tower() -> tuple[nn.Module, Any]:
    config = transformers.CLIPVisionConfig(**TOWER, projection_dim=24)
    return transformers.CLIPVisionModelWithProjection(config), transformers.CLIPImageProcessor(**CUT)


def siglip() -> tuple[nn.Module, Any]:
    config = transformers.SiglipConfig(text_config=TEXT, vision_config=TOWER)
    return transformers.SiglipModel(config), transformers.SiglipImageProcessor(size=SQUARE)


def siglip_tower() -> tuple[nn.Module, Any]:
    config = transformers.SiglipVisionConfig(**TOWER)
    return transformers.SiglipVisionModel(config), transformers.SiglipImageProcessor(size=SQUARE)


def mobilevit() -> tuple[nn.Module, Any]:
    """Its processor turns RGB into BGR and normalises nothing."""
    config = transformers.MobileViTConfig(
        image_size=SIDE, hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 40], num_attention_heads=2
    )
    return transformers.MobileViTModel(config), transformers.MobileViTImageProcessor(**CUT)


def resnet() -> tuple[nn.Module, Any]:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return transformers.ResNetModel(config), transformers.ConvNextImageProcessor(size={"shortest_edge": SIDE})


def poolformer() -> tuple[nn.Module, Any]:
    config = transformers.PoolFormerConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], patch_sizes=[3, 3, 3, 3], strides=[2, 2, 2, 2]
    )
    return transformers.PoolFormerModel(config), transformers.ViTImageProcessor(size=SQUARE, rescale_factor=1 / 127.5)


def ijepa() -> tuple[nn.Module, Any]:
    return transformers.IJepaModel(transformers.IJepaConfig(**TOWER)), transformers.ViTImageProcessor(size=SQUARE)


def saved(folder: Path, build: Callable[[], tuple[nn.Module, Any]], seed: int = 0) -> Path:
    model, processor = build()
    # CLIP's scale of logits is a single number, which decides nothing here.
    shaped = {key: value for key, value in model.state_dict().items() if value.ndim}
    model.load_state_dict(random_state(SimpleNamespace(state_dict=lambda: shaped), seed), strict=False)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def crops(count: int = 3, side: int = SIDE) -> list[NDArray[np.uint8]]:
    return [picture((side, side), seed) for seed in range(count)]


def assert_points_along(ours: NDArray[np.float32], theirs: Tensor) -> None:
    """Equal to upstream's vectors at length one, and about something: pictures differ."""
    expected = nn.functional.normalize(theirs, dim=-1).numpy()
    assert ours.dtype == np.float32 and ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE)
    assert np.abs(expected[0] - expected[1]).max() > 100 * TOLERANCE, "one answer to all would hide a difference"


KINDS: dict[str, tuple[Callable[[], tuple[nn.Module, Any]], int, Callable[[Any, Tensor], Tensor]]] = {
    "vit": (vit, 32, lambda model, pixels: model(pixels).pooler_output),
    "dinov2": (dinov2, 32, lambda model, pixels: model(pixels).pooler_output),
    "clip": (clip, 24, lambda model, pixels: model.get_image_features(pixel_values=pixels).pooler_output),
    "clip_vision_model": (clip_tower, 24, lambda model, pixels: model(pixels).image_embeds),
    "siglip": (siglip, 32, lambda model, pixels: model.get_image_features(pixel_values=pixels).pooler_output),
    "siglip_vision_model": (siglip_tower, 32, lambda model, pixels: model(pixels).pooler_output),
    "mobilevit": (mobilevit, 40, lambda model, pixels: model(pixels).pooler_output),
    "resnet": (resnet, 16, lambda model, pixels: model(pixels).pooler_output[:, :, 0, 0]),
    "poolformer": (poolformer, 32, lambda model, pixels: model(pixels).last_hidden_state.mean((2, 3))),
    "ijepa": (ijepa, 32, lambda model, pixels: model(pixels).last_hidden_state.mean(1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_are_those_of_processor_and_model(tmp_path: Path, kind: str) -> None:
    build, dim, answer = KINDS[kind]
    encoder = encoders.load(f"transformers:{saved(tmp_path, build)}")
    assert (encoder.size, encoder.dim) == (SIDE, dim)
    assert encoder.version.startswith(f"transformers-{kind}-")
    upstream = type(build()[0]).from_pretrained(tmp_path).eval()
    # ConvNext's processor would enlarge what has the model's size already; the others leave it alone.
    asis = {"do_resize": False} if kind == "resnet" else {}
    pixels = AutoImageProcessor.from_pretrained(tmp_path)(crops(), return_tensors="pt", **asis)["pixel_values"]
    assert pixels.shape == (3, 3, SIDE, SIDE)
    with torch.no_grad():
        assert_points_along(encoder.embed(crops()), answer(upstream, pixels))


def test_the_real_encoder(shared_fixtures: Path) -> None:
    """A published network; its folder has no processor's configuration, so its type's is taken."""
    folder = shared_fixtures / "encoders" / "mobilenet_v2_hf"
    encoder = encoders.load(f"transformers:{folder}")
    assert (encoder.size, encoder.dim) == (224, 1280)
    images = crops(3, 224)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        assert_points_along(encoder.embed(images), AutoModel.from_pretrained(folder).eval()(pixels).pooler_output)


def test_batches_keep_their_order_and_none_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoders.load(f"transformers:{saved(tmp_path, clip)}")
    together = encoder.embed(crops(7))
    monkeypatch.setattr("tator_ml.engine.encoders.torch_encoder.BATCH", 3)
    np.testing.assert_allclose(encoder.embed(crops(7)), together, atol=1e-5)
    assert encoder.embed([]).shape == (0, 24)


def test_a_classifier_without_pooler_answers_alike_each_time(tmp_path: Path) -> None:
    """``AutoModel`` would add a pooler with random weights, others at every start."""
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**TOWER, num_labels=4))
    model.load_state_dict(random_state(model, 1))
    model.eval().save_pretrained(tmp_path)
    vit()[1].save_pretrained(tmp_path)
    first, second = (encoders.load(f"transformers:{tmp_path}") for _ in range(2))
    assert first.version == second.version
    pixels = AutoImageProcessor.from_pretrained(tmp_path)(crops(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        assert_points_along(first.embed(crops()), model.vit(pixels).last_hidden_state[:, 0])
    assert (first.embed(crops()) == second.embed(crops())).all()


def test_half_precision_files_are_computed_in_single(tmp_path: Path) -> None:
    model, processor = vit()
    model.load_state_dict(random_state(model, 2))
    model.half().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    embeddings = encoders.load(f"transformers:{tmp_path}").embed(crops())
    pixels = processor(crops(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        assert_points_along(embeddings, model.float().eval()(pixels).pooler_output)


def test_a_folder_needs_no_kind(tmp_path: Path) -> None:
    saved(tmp_path, vit)
    assert encoders.load(str(tmp_path)).version == encoders.load(f"transformers:{tmp_path}").version


def test_versions_tell_weights_and_normalisation_apart(tmp_path: Path) -> None:
    versions = [encoders.load(f"transformers:{saved(tmp_path / str(seed), vit, seed)}").version for seed in (0, 1)]
    described = tmp_path / "1" / "preprocessor_config.json"
    described.write_text(json.dumps({**json.loads(described.read_text()), "image_mean": [0.4, 0.5, 0.5]}))
    versions.append(encoders.load(f"transformers:{tmp_path / '1'}").version)
    assert len(set(versions)) == 3 and str(tmp_path) not in "".join(versions)


def damaged(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def of_another_model(folder: Path) -> None:
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, "num_hidden_layers": 3}))


def of_another_size(folder: Path) -> None:
    vit()[1].__class__(size={"height": 40, "width": 40}).save_pretrained(folder)


def not_square(folder: Path) -> None:
    vit()[1].__class__(size={"height": 32, "width": 40}).save_pretrained(folder)


def of_texts(folder: Path) -> None:
    config = transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    transformers.BertModel(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda folder: (folder / "config.json").unlink(), "Put config.json into"),
        (lambda folder: (folder / "model.safetensors").unlink(), "Put model.safetensors into"),
        (lambda folder: (folder / "config.json").write_text("{"), "damaged"),
        (damaged, "damaged"),
        (of_another_model, "do not fit"),
        (of_another_size, "damaged or no image model"),
        (not_square, "Crops are square"),
        (of_texts, "damaged or no image model"),
    ],
)
def test_folders_that_cannot_serve_are_refused_in_a_sentence(
    tmp_path: Path, harm: Callable[[Path], Any], told: str
) -> None:
    harm(saved(tmp_path, vit))
    with pytest.raises(EncoderError, match=told) as caught:
        encoders.load(f"transformers:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_code_in_a_folder_is_not_run(tmp_path: Path) -> None:
    saved(tmp_path, vit)
    described = json.loads((tmp_path / "config.json").read_text())
    described |= {"model_type": "of_mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(described))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(EncoderError):
        encoders.load(f"transformers:{tmp_path}")
    assert not (tmp_path / "ran").exists()


def test_an_unreachable_hub_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match="name the folder: transformers:<folder>"):
        encoders.load("transformers:facebook/no-such-encoder")


def test_what_was_fetched_once_is_not_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First descriptions, then weights of one commit; from then on the cache alone."""
    source, cache, asked = saved(tmp_path / "source", vit), tmp_path / ("c" * 40), []

    def fetch(repository: str, *, local_files_only: bool = False, **options: Any) -> str:
        if local_files_only and not cache.exists():
            raise FileNotFoundError(repository)
        if not local_files_only:
            asked.append((options.get("revision"), options["allow_patterns"]))
            cache.mkdir(exist_ok=True)
            for pattern in options["allow_patterns"]:
                for path in source.glob(pattern):
                    shutil.copy(path, cache)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    encoder = encoders.load("transformers:someone/vit")
    assert [revision for revision, _ in asked] == [None, cache.name]
    assert "model.safetensors" in asked[1][1] and not any("bin" in pattern for pattern in asked[1][1])
    asked.clear()
    assert encoders.load("transformers:someone/vit").version == encoder.version and not asked
    assert transformers_model.load(str(source)).version == encoder.version
