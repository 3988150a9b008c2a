"""``.env.example``, made from the settings: `make env-example` writes it, and a test compares."""

from __future__ import annotations

import textwrap
from itertools import groupby

from tator_sdk.settings_list import Setting, settings_list

WIDTH = 118
FIRST = """\
Settings of Tator. Copy this file to .env beside where `tator` is started, or beside docker-compose.yml; what stands in
the environment goes before it. Lines without a value leave the default. Made from tator_sdk/settings.py by
`make env-example`.
"""

COMPOSE: tuple[tuple[str, str, str], ...] = (
    ("TATOR_PASSWORD", "", "What Label Studio sends to Tator, and what lets administrators into the dashboard."),
    ("REDIS_PASSWORD", "", "Between Tator's parts and Redis; letters and digits, since it stands in an address."),
    ("POSTGRES_PASSWORD", "", "Between Label Studio and its database."),
    ("TATOR_ENGINE_KEY", "", "Between web, workers and engine; any long random text."),
    ("LABEL_STUDIO_PASSWORD", "", "Of the first account, which Label Studio makes at its first start."),
    ("LABEL_STUDIO_API_KEY", "", "Once Label Studio runs: Account & Settings → Personal Access Token."),
)
"""What docker-compose.yml cannot start or work without."""

COMPOSE_CHOICES: tuple[tuple[str, str, str], ...] = (
    ("LABEL_STUDIO_USERNAME", "admin@example.com", "E-mail address of that first account."),
    ("LABEL_STUDIO_PORT", "8080", "Port of this machine on which Label Studio answers; on loopback only."),
    ("LABEL_STUDIO_PUBLIC_URL", "http://127.0.0.1:8080", "Where people's browsers reach Label Studio."),
    ("TATOR_WEB_PORT", "9090", "Port of this machine on which Tator answers; on loopback only."),
    ("TATOR_TARGET", "cpu", "Target of the Dockerfile: cpu, or cuda with docker-compose.gpu.yml."),
    ("TATOR_TORCH_INDEX", "", "A package index with smaller wheels of torch and torchvision for CPUs alone."),
    ("HF_TOKEN", "", "For gated models of the hub, such as facebook/sam3."),
)
"""What docker-compose.yml takes besides Tator's settings."""


def env_example() -> str:
    """The whole file."""
    parts = [_comment(FIRST)]
    parts.append(_heading("docker-compose.yml needs these"))
    parts += [f"{_comment(said)}{name}={value}\n" for name, value, said in COMPOSE]
    parts.append(_heading("docker-compose.yml takes these too"))
    parts += [f"{_comment(said)}# {name}={value}\n" for name, value, said in COMPOSE_CHOICES]
    said = {name for name, _, _ in COMPOSE}
    for section, settings in groupby(settings_list(), key=lambda one: one.section):
        parts.append(_heading(section))
        parts += [_lines(one) for one in settings if not said & set(one.names)]
    return "\n".join(parts)


def _lines(setting: Setting) -> str:
    said = setting.help + (f" ({setting.allowed})" if setting.allowed else "")
    if setting.names[1:]:
        said += f" Also: {', '.join(setting.names[1:])}."
    return f"{_comment(said)}# {setting.names[0]}={setting.default}\n"


def _heading(title: str) -> str:
    return f"# ---- {title} {'-' * (WIDTH - 8 - len(title))}\n"


def _comment(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="# ", subsequent_indent="# ") + "\n"
