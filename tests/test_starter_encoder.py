"""The shipped starter encoder and head, and open_clip models by name."""

from __future__ import annotations

import json
import shutil

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

from tator_ml.engine import encoders
from tator_ml.engine.encoders import STARTER_FOLDER, EncoderError, openclip
from tator_ml.engine.head import Head
from training.clip.dataset import BACKGROUND
from training.starter.encoder import HELD_OUT_SEED, SIZE, captions, crops_of_scene
from training.starter.head import empty_crops
from training.starter.names import DISPLAY_NAMES, display_name
from training.starter.scenes import CLASSES

HEAD_FOLDER = STARTER_FOLDER.with_name("starter_head")


@pytest.fixture(scope="module")
def encoder():
    return encoders.load("starter")


@pytest.fixture(scope="module")
def rows():
    """A few dozen objects that neither encoder nor head has seen, nor the thresholds were set on."""
    return np.concatenate([crops_of_scene(HELD_OUT_SEED + 1000 + scene) for scene in range(16)])


@pytest.fixture(scope="module")
def embedded(encoder, rows):
    """Embeddings (N, D) at the true and at the jittered boxes."""
    return [encoder.embed(list(rows["pixels"][:, variant])) for variant in (0, 1)]


def test_files_are_small_enough_to_ship():
    for folder in (STARTER_FOLDER, HEAD_FOLDER):
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 10_000_000


def test_embeddings_lie_on_the_unit_sphere(encoder, embedded):
    assert embedded[0].dtype == np.float32 and embedded[0].shape[1] == encoder.dim == 128
    np.testing.assert_allclose(np.linalg.norm(embedded[0], axis=1), 1, atol=1e-5)


def test_the_same_crop_is_embedded_alike_in_any_company(encoder, rows, embedded):
    crops = list(rows["pixels"][:, 0])
    assert (encoder.embed(crops) == embedded[0]).all()
    np.testing.assert_allclose(encoder.embed(crops[3:4])[0], embedded[0][3], atol=1e-5)
    assert encoder.embed([]).shape == (0, encoder.dim)


def test_more_crops_than_a_batch_keep_their_order(encoder, rows, embedded):
    crops = (list(rows["pixels"][:, 0]) * 3)[: openclip.BATCH + 5]
    expected = np.tile(embedded[0], (3, 1))[: len(crops)]
    np.testing.assert_allclose(encoder.embed(crops), expected, atol=1e-5)


def test_preprocessing_is_that_of_open_clip(encoder, rows, embedded):
    """Against the transform and the model that open_clip itself builds from the same files."""
    description = json.loads((STARTER_FOLDER / "model.json").read_text())
    transform = image_transform_v2(PreprocessCfg(size=SIZE, **description["preprocess_cfg"]), is_train=False)
    upstream = open_clip.CLIP(**description["model_cfg"]).eval()
    upstream.load_state_dict(open_clip.factory.load_state_dict(str(STARTER_FOLDER / "model.safetensors")))
    pixels = torch.stack([transform(Image.fromarray(crop)) for crop in rows["pixels"][:8, 0]])
    with torch.no_grad():
        expected = upstream.encode_image(pixels, normalize=True).numpy()
    np.testing.assert_allclose(embedded[0][:8], expected, atol=1e-4)


@pytest.mark.parametrize(("variant", "least"), [(0, 0.9), (1, 0.9)])
def test_encoder_and_head_know_the_shapes(encoder, rows, embedded, variant, least):
    head = Head.load(HEAD_FOLDER)
    assert head.encoder == encoder.version and head.classes == (*DISPLAY_NAMES.values(), BACKGROUND)
    wanted = [display_name(CLASSES[shape]) for shape in rows["shape"]]
    assert len(wanted) >= 48
    verdicts = [head.decide(row) for row in head.probabilities(embedded[variant])]
    pairs = list(zip(verdicts, wanted, strict=True))
    assert np.mean([verdict.top[0][0] == name for verdict, name in pairs]) >= least
    answers = [(verdict.label, name) for verdict, name in pairs if verdict.label]
    assert len(answers) >= 0.8 * len(wanted)
    assert np.mean([label == name for label, name in answers]) >= 0.93


def test_the_head_keeps_silent_where_nothing_is(encoder):
    places = empty_crops(range(HELD_OUT_SEED + 1000, HELD_OUT_SEED + 1032)).pixels
    verdicts = Head.load(HEAD_FOLDER).verdicts(encoder.embed(list(places)))
    assert len(verdicts) >= 100
    assert np.mean([verdict.label is not None for verdict in verdicts]) <= 0.06, "4 % on a thousand places"


def test_it_knows_shapes_by_their_names(encoder, rows, embedded):
    """Zero-shot: the text tower was trained too."""
    tokenizer = open_clip.SimpleTokenizer(context_length=encoder.model.context_length)
    tokens = tokenizer([text for name in CLASSES for text in captions(name, None)])
    texts = encoder.model.encode_text(tokens, normalize=True).reshape(len(CLASSES), -1, encoder.dim).mean(1)
    nearest = (embedded[0] @ texts.numpy().T).argmax(1)
    assert (nearest == rows["shape"]).mean() >= 0.9


@pytest.mark.parametrize("crop", [np.zeros((32, 32, 3), np.uint8), np.zeros((SIZE, SIZE, 3), np.float32)])
def test_crops_of_another_kind_are_refused(encoder, crop):
    with pytest.raises(EncoderError, match="takes crops of"):
        encoder.embed([crop])


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_damaged_and_missing_files_are_refused(tmp_path, name):
    shutil.copytree(STARTER_FOLDER, tmp_path, dirs_exist_ok=True)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EncoderError, match="damaged"):
        encoders.load(f"starter:{tmp_path}")
    (tmp_path / name).unlink()
    with pytest.raises(EncoderError, match="missing"):
        encoders.load(f"starter:{tmp_path}")


@pytest.mark.parametrize(
    "name",
    [
        "clip",
        "open_clip:ViT-Z-99",
        "open_clip:ViT-B-32@no_such_tag",
        "open_clip:ViT-B-32@/no/file",
        "open_clip:ViT-S-32-alt",
    ],
)
def test_names_that_lead_nowhere_are_refused_in_a_sentence(name):
    with pytest.raises(EncoderError) as caught:
        encoders.load(name)
    assert "\n" not in str(caught.value)


def test_an_unreachable_hub_is_told_with_what_to_do(monkeypatch):
    def unreachable(*_: object, **__: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", unreachable)
    with pytest.raises(EncoderError, match="name the file: open_clip:ViT-B-32-quickgelu@<file>"):
        encoders.load("open_clip:ViT-B/32")


def test_a_model_by_name_gives_what_open_clip_gives(tmp_path):
    torch.manual_seed(3)
    upstream = open_clip.create_model("ViT-S-32-alt").eval()
    path = tmp_path / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in upstream.state_dict().items()}, path)
    encoder = encoders.load(f"open_clip:ViT-S-32-alt@{path}")
    assert (encoder.size, encoder.dim) == (224, 256)
    assert encoder.version.startswith("open_clip-ViT-S-32-alt-") and str(tmp_path) not in encoder.version
    crop = np.random.default_rng(1).integers(0, 256, (224, 224, 3), np.uint8)
    transform = image_transform_v2(PreprocessCfg(**upstream.visual.preprocess_cfg), is_train=False)
    with torch.no_grad():
        expected = upstream.encode_image(transform(Image.fromarray(crop))[None], normalize=True).numpy()
    np.testing.assert_allclose(encoder.embed([crop]), expected, atol=1e-4)
    with pytest.raises(EncoderError, match="does not fit"):
        encoders.load(f"open_clip:ViT-B-32@{path}")


def test_versions_tell_weights_apart(encoder):
    twin = encoders.load("starter")
    assert twin.version == encoder.version
    with torch.no_grad():
        next(twin.model.visual.parameters()).add_(1e-3)
    assert openclip.weights_digest(twin.model.visual) not in encoder.version
