"""Every setting of Tator, read from the environment and ``.env`` once and passed on.

``TATOR_PORT`` sets ``port``, and so on. Names of the original application (``SAM_VARIANT``,
``CLIP_MODEL_NAME``, …) keep working where they mean the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
"""Names of this machine that nobody else reaches; an empty one is none of them: servers take it for every address."""


def _named(field: str, *others: str) -> AliasChoices:
    """Accept ``TATOR_<FIELD>`` and the names other programs gave the same setting.

    Not the field's own name, which would be an environment variable too: ``ENCODER`` is some other program's.
    """
    return AliasChoices(f"TATOR_{field.upper()}", *others)


class Settings(BaseSettings):
    """Settings of one installation; immutable once read.

    Attributes:
        SECTIONS: headings of ``.env.example`` and of the settings page, each by the first field that stands below it.
    """

    SECTIONS: ClassVar[Mapping[str, str]] = {
        "home": "This installation",
        "label_studio_url": "Label Studio",
        "redis_url": "Jobs",
        "engine_address": "Engine",
        "segmenter": "Clicks",
        "qwen_model_name": "Words: Qwen",
        "sam3_model_id": "Phrases and examples: SAM 3",
        "warm_bytes": "Warm pictures",
        "yield_to_clicks": "Work in the background",
        "train_after": "Learning from annotations",
        "image_store_bytes": "Pictures",
        "guard_agreement": "When a drawn box is left as it is",
        "remove_leftover_points": "Answers",
    }

    model_config = SettingsConfigDict(
        env_prefix="TATOR_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, populate_by_name=True
    )

    home: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("tator")),
        description="Folder of everything Tator keeps: images, embeddings, models, sockets, logs. Default: tator in "
        "the user's data folder.",
    )
    host: str = Field("127.0.0.1", description="Address the backend listens on.")
    port: int = Field(9090, ge=1, le=65535, description="Port the backend listens on.")
    password: SecretStr | None = Field(
        None, description="Basic-auth password Label Studio must send; required beyond loopback."
    )
    username: str = Field("tator", description="Basic-auth user name that goes with the password.")
    behind_proxy: bool = Field(
        False,
        description="Believe one proxy's X-Forwarded-For, -Proto, -Host; only where nobody else reaches the backend.",
    )
    web_threads: int = Field(16, ge=1, le=256, description="Requests the web process answers at once.")

    dashboard_streams: int = Field(
        128, ge=1, le=2048, description="Open dashboard pages that are told what changes; more are renewed by hand."
    )

    upload_max_bytes: int = Field(
        8 * 2**30, ge=2**20, description="Largest archive of a data set that the dashboard takes; unpacked, four times."
    )

    label_studio_url: str = Field(
        "http://127.0.0.1:8080",
        validation_alias=_named("label_studio_url", "LABEL_STUDIO_URL", "LABEL_STUDIO_HOST"),
        description="Where Label Studio answers, as seen from the backend.",
    )
    label_studio_api_key: SecretStr | None = Field(
        None,
        validation_alias=_named("label_studio_api_key", "LABEL_STUDIO_API_KEY"),
        description="Label Studio token: a personal access token or a legacy one.",
    )
    redis_url: str | None = Field(
        None,
        validation_alias=_named("redis_url", "REDIS_URL"),
        description="Redis for jobs; without one Tator starts its own under its home.",
    )
    job_functions: tuple[str, ...] = Field(
        (), description="Functions besides Tator's own that workers may call, by their dotted names, as JSON list."
    )
    engine_address: str | None = Field(
        None,
        description="Where the engine listens: a socket path, or host:port; several, with commas between them, share "
        "the pictures. Default: under home.",
    )
    engine_patience_seconds: float = Field(
        60.0, ge=0, description="How long a job waits for an engine that is away; it is started again by itself."
    )
    engine_key: SecretStr | None = Field(
        None, description="Shared key of web and engine; required when the engine listens on TCP."
    )

    segmenter: str = Field(
        "starter",
        validation_alias=_named("segmenter", "SAM_VARIANT"),
        description="Segmenter that answers clicks: starter, sam1-vit_b, sam2-tiny, mobile_sam, …",
    )
    segmenter_checkpoint: str | None = Field(
        None,
        validation_alias=_named("segmenter_checkpoint", "SAM_CHECKPOINT_PATH"),
        description="Its weights: a path, or org/repo:file on the hub. Default: the published file.",
    )
    encoder: str = Field(
        "starter",
        validation_alias=_named("encoder", "CLIP_MODEL_NAME"),
        description="Image encoder of class heads: starter, open_clip:NAME, transformers:ID or a folder, timm:NAME.",
    )
    head: Path | None = Field(None, description="Folder of the class head. Default: the starter's.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps.")
    offline: bool = Field(False, description="Never ask a model hub; weights come from paths only.")
    models_dir: Path | None = Field(None, description="Folder of downloaded weights. Default: home/models.")
    # measured (docs/performance.md): on CPUs without its instructions bfloat16 is ten times slower
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="What segmenters encode in; half precision pays on accelerators."
    )
    torch_threads: int = Field(0, ge=0, le=256, description="CPU threads of the engine; 0 lets torch choose.")

    segmenter_idle_seconds: float = Field(
        600.0,
        gt=0,
        description="A model that nobody asked for during this time, segmenter or Qwen, gives its memory back.",
    )

    qwen_model_name: str = Field(
        "Qwen/Qwen2.5-VL-3B-Instruct",
        validation_alias=_named("qwen_model_name", "QWEN_MODEL_NAME"),
        description="Qwen2.5-VL or Qwen3-VL that is asked in words: a hub id, or a folder.",
    )
    qwen_device: str = Field(
        "auto",
        validation_alias=_named("qwen_device", "QWEN_DEVICE"),
        description="Its device: cpu, cuda, cuda:1 or mps; auto for the engine's own.",
    )
    qwen_max_new_tokens: int = Field(
        768,
        ge=1,
        le=16_384,
        validation_alias=_named("qwen_max_new_tokens", "QWEN_MAX_NEW_TOKENS"),
        description="Longest answer, in tokens.",
    )
    qwen_min_visual_tokens: int = Field(
        256, ge=4, le=16_384, description="What a picture is enlarged to: one for 28 by 28 pixels (Qwen3-VL: 32 by 32)."
    )
    qwen_max_visual_tokens: int = Field(1280, ge=4, le=16_384, description="… and what it is reduced to.")
    # bfloat16 is what the models are published in, but on CPUs without its instructions it is ten times slower
    qwen_precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="What it computes in; auto: bfloat16 on accelerators, float32 on CPUs."
    )

    sam3_model_id: str = Field(
        "facebook/sam3",
        validation_alias=_named("sam3_model_id", "SAM3_MODEL_ID"),
        description="SAM 3 that finds phrases and exemplars: a hub id, or a folder.",
    )
    sam3_processor_id: str | None = Field(
        None,
        validation_alias=_named("sam3_processor_id", "SAM3_PROCESSOR_ID"),
        description="Its processor and tokenizer: a hub id, or a folder. Default: the model's own.",
    )
    sam3_checkpoint: str | None = Field(
        None,
        validation_alias=_named("sam3_checkpoint", "SAM3_CHECKPOINT_PATH"),
        description="File (.safetensors, .pt, .pth) whose weights replace the model's own.",
    )
    sam3_device: str = Field(
        "auto",
        validation_alias=_named("sam3_device", "SAM3_DEVICE"),
        description="Its device: cpu, cuda, cuda:1 or mps; auto for the engine's own.",
    )

    warm_bytes: int = Field(512 * 2**20, ge=0, description="Memory for embeddings of warm images.")
    warm_pin_seconds: float = Field(
        120.0, ge=0, description="After a click an image stays warm this long, whatever else is made ready."
    )
    embedding_store_bytes: int = Field(
        10 * 2**30, ge=0, description="Disk for embeddings of images, so that none is encoded twice; 0 keeps none."
    )
    embedding_cache_bytes: int = Field(2 * 2**30, ge=0, description="Disk for embeddings of labelled boxes.")
    preload: bool = Field(
        True, description="Make pictures ready before they are opened: the task's own, then the next and the previous."
    )
    yield_to_clicks: bool = Field(
        True, description="Jobs wait at their next step while a click is answered on the same host."
    )
    job_niceness: int = Field(
        19, ge=0, le=19, description="How far jobs stand behind everything else on the same cores; 0: beside it."
    )
    enable_metrics: bool = Field(
        True,
        validation_alias=_named("enable_metrics", "ENABLE_METRICS"),
        description="Answer /metrics in the format of Prometheus.",
    )
    seg_builder_workers_per_device: int = Field(
        2,
        ge=1,
        le=64,
        validation_alias=_named("seg_builder_workers_per_device", "SEG_BUILDER_WORKERS_PER_DEVICE"),
        description="Pictures that a worker of the segmentation builder has at its engine at once.",
    )
    seg_builder_max_workers: int = Field(
        0,
        ge=0,
        le=256,
        validation_alias=_named("seg_builder_max_workers", "SEG_BUILDER_MAX_WORKERS"),
        description="Workers that share one build at most; 0: all that live.",
    )
    train_after: int = Field(
        20, ge=0, description="Annotations after which a project's head is trained by itself; 0 never."
    )
    train_quiet_seconds: float = Field(
        2.0, ge=0, description="… once no further one has come for this long, so that a burst makes one training."
    )
    check_submitted: bool = Field(
        True, description="Check the classes of submitted boxes, and offer confident disagreements as a prediction."
    )
    image_store_bytes: int = Field(4 * 2**30, ge=0, description="Disk for fetched images.")
    image_max_bytes: int = Field(64 * 2**20, ge=1, description="Largest image file that is fetched.")
    image_max_pixels: int = Field(100_000_000, ge=1, description="Largest image that is decoded.")
    image_timeout_seconds: float = Field(20.0, gt=0, description="Time an image server has to answer.")
    image_recheck_seconds: float = Field(
        300.0, ge=0, description="How long an image address is taken to mean the same picture."
    )
    image_hosts: tuple[str, ...] = Field(
        (), description="Hosts besides Label Studio that images may come from, as JSON list."
    )
    image_roots: tuple[Path, ...] = Field(
        (), description="Folders of this machine that images may be read from directly, as JSON list."
    )

    guard_agreement: float = Field(
        0.6, ge=0, le=1, description="A refined box must agree with the drawn one by this IoU."
    )
    guard_quality: float = Field(
        0.80, ge=0, le=1, description="… and the segmenter must trust its mask at least this much (IoU)."
    )
    guard_stability: float = Field(
        0.90, ge=0, le=1, description="… and the mask must be this stable under a moved threshold."
    )
    guard_consistency: float = Field(
        0.80, ge=0, le=1, description="… and boxes drawn a little differently must give this IoU."
    )
    remove_leftover_points: bool = Field(
        True,
        description="After submission, take the points that asked for a region out of its annotation, where the "
        "editor left them standing, and the boxes of an example tool around what is not meant.",
    )
    answer_timeout_seconds: float = Field(
        90.0, gt=0, lt=100, description="Longest answer to Label Studio, which gives up after 100 s."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much is logged.")

    @field_validator("host")
    @classmethod
    def _some_host(cls, value: str) -> str:
        host = value.strip().removeprefix("[").removesuffix("]")
        if not host:
            raise ValueError("an empty host would listen on every interface: give one, such as 127.0.0.1, or none")
        return host

    @field_validator("label_studio_url")
    @classmethod
    def _no_trailing_slash(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ValueError(f"{value!r} is not a web address; give one such as http://127.0.0.1:8080")
        return value.rstrip("/")

    @field_validator("password", "label_studio_api_key", "engine_key")
    @classmethod
    def _empty_is_none(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value and value.get_secret_value() else None

    @model_validator(mode="after")
    def _locked_beyond_loopback(self) -> Settings:
        if self.host not in LOOPBACK_HOSTS and self.password is None:
            raise ValueError(f"listening on {self.host} without a password would let anybody in: set TATOR_PASSWORD")
        if self.redis_url is not None:
            redis = urlsplit(self.redis_url)
            if redis.scheme != "unix" and (redis.hostname or "localhost") not in LOOPBACK_HOSTS and not redis.password:
                raise ValueError(
                    f"the Redis at {redis.hostname} has no password: use redis://:PASSWORD@{redis.hostname}/"
                )
        return self

    def environment(self) -> dict[str, str]:
        """The same settings as environment variables, for the processes that are started with them."""
        plain: dict[str, str] = {}
        for name, value in self:
            if value is None:
                continue
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            elif isinstance(value, tuple):
                value = json.dumps([str(part) for part in value])
            plain[f"TATOR_{name.upper()}"] = str(value)
        return plain

    @property
    def engine_addresses(self) -> tuple[str, ...]:
        """Where engines listen: a Unix socket under home unless set."""
        given = [one.strip() for one in (self.engine_address or "").split(",")]
        return tuple(dict.fromkeys(one for one in given if one)) or (str(self.home / "run" / "engine.sock"),)

    @property
    def weights_dir(self) -> Path:
        """Folder that published weights are looked for in and downloaded to."""
        return self.models_dir or self.home / "models"

    @property
    def backend_url(self) -> str:
        """The backend's own address, as seen from this machine."""
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
        return f"http://{bracketed(everywhere.get(self.host, self.host))}:{self.port}"


def bracketed(host: str) -> str:
    """A host as it stands before a port: IPv6 addresses have colons of their own."""
    return f"[{host}]" if ":" in host else host
