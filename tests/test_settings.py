"""Settings: read from the environment, under old names too, refused where they would open a door."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from tator_sdk.settings import Settings


def test_names_of_the_original_keep_working(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM_VARIANT", "sam1-vit_b")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1/3")
    settings = Settings()
    assert settings.segmenter == "sam1-vit_b" and settings.redis_url == "redis://127.0.0.1/3"
    monkeypatch.setenv("TATOR_SEGMENTER", "mobile_sam")
    assert Settings().segmenter == "mobile_sam", "our own name goes before"


def test_what_other_programs_call_their_own_is_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENCODER", "SEGMENTER", "SEGMENTER_CHECKPOINT", "SAM3_CHECKPOINT", "HOST", "PORT", "DEVICE"):
        monkeypatch.setenv(name, "theirs")
    assert (Settings().encoder, Settings().segmenter, Settings().segmenter_checkpoint) == ("starter", "starter", None)
    given = Settings(encoder="timm:x", segmenter="sam1-vit_b", redis_url="redis://127.0.0.1/1")
    assert (given.encoder, given.segmenter, given.redis_url) == ("timm:x", "sam1-vit_b", "redis://127.0.0.1/1")
    assert Settings.model_validate({**given.model_dump(), "port": 9333}).encoder == "timm:x"


@pytest.mark.parametrize("prefix", ["", "TATOR_"])
def test_qwen_settings_have_both_spellings(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    default = Settings()
    assert default.qwen_model_name == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert (default.qwen_device, default.qwen_max_new_tokens) == ("auto", 768)
    for name, value in {"MODEL_NAME": "/models/qwen", "DEVICE": "cuda:1", "MAX_NEW_TOKENS": "99"}.items():
        monkeypatch.setenv(f"{prefix}QWEN_{name}", value)
    settings = Settings()
    assert (settings.qwen_model_name, settings.qwen_device) == ("/models/qwen", "cuda:1")
    assert settings.qwen_max_new_tokens == 99


@pytest.mark.parametrize("prefix", ["", "TATOR_"])
def test_sam3_settings_have_both_spellings(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    default = Settings()
    assert (default.sam3_model_id, default.sam3_device) == ("facebook/sam3", "auto")
    assert default.sam3_processor_id is default.sam3_checkpoint is None
    names = {"MODEL_ID": "/models/sam3", "PROCESSOR_ID": "org/other", "DEVICE": "cuda:1"}
    for name, value in names.items():
        monkeypatch.setenv(f"{prefix}SAM3_{name}", value)
    monkeypatch.setenv("TATOR_SAM3_CHECKPOINT" if prefix else "SAM3_CHECKPOINT_PATH", "/models/tuned.safetensors")
    settings = Settings()
    assert (settings.sam3_model_id, settings.sam3_processor_id) == ("/models/sam3", "org/other")
    assert (settings.sam3_device, settings.sam3_checkpoint) == ("cuda:1", "/models/tuned.safetensors")


def test_settings_travel_to_the_processes_they_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent = Settings(
        home=tmp_path,
        port=9333,
        host="0.0.0.0",
        password=SecretStr("pass word"),
        image_hosts=("a.example", "b.example"),
        image_roots=(tmp_path,),
        segmenter_checkpoint="/x/y.pt",
        offline=True,
        guard_quality=0.7,
    )
    for name, value in sent.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == sent


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::"])
def test_listening_beyond_loopback_needs_a_password(host: str) -> None:
    with pytest.raises(ValidationError, match="TATOR_PASSWORD"):
        Settings(host=host)
    assert Settings(host=host, password=SecretStr("x")).host == host


@pytest.mark.parametrize("host", ["", " ", "[]"])
def test_an_empty_host_is_no_loopback(host: str) -> None:
    with pytest.raises(ValidationError, match="every interface"):
        Settings(host=host)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9090"), ("localhost", "http://localhost:9090"),
        ("0.0.0.0", "http://127.0.0.1:9090"),
        ("::1", "http://[::1]:9090"), ("[::1]", "http://[::1]:9090"), ("::", "http://[::1]:9090"),
    ],
)  # fmt: skip
def test_the_backends_own_address(host: str, url: str) -> None:
    assert Settings(host=host, password=SecretStr("x")).backend_url == url


def test_a_redis_elsewhere_needs_a_password() -> None:
    with pytest.raises(ValidationError, match="has no password"):
        Settings(redis_url="redis://cache.example/0")
    assert Settings(redis_url="redis://:secret@cache.example/0")
    assert Settings(redis_url="redis:///3"), "an address without a host is this machine's"


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://x", "http://"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ValidationError, match="not a web address"):
        Settings(label_studio_url=url)


def test_secrets_do_not_show() -> None:
    assert "hush" not in repr(Settings(password=SecretStr("hush"), label_studio_api_key=SecretStr("hush")))
