"""Checks of the whole chain, one line each, with the mend."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from tator_sdk.connect import basic_auth, check_backend, configuration_steps, webhook_headers
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from tator_sdk.studio import open_studio, sentences, token_kind

Level = Literal["ok", "hint", "bad"]


@dataclass(frozen=True)
class Check:
    """One link of the chain.

    Attributes:
        name: e.g. ``Redis``.
        level: ``ok``, ``hint`` for what could be better, ``bad`` for what does not work.
        said: what was found.
        mend: what to do about it; empty where nothing is to be done.
    """

    name: str
    level: Level
    said: str
    mend: str = ""


def examine(settings: Settings, backend_url: str, project: int | None) -> Iterator[Check]:
    """Examine server, token, backend, engine, weights, Redis, worker and one project, in this order."""
    reachable = True
    try:
        answer = httpx.get(f"{settings.label_studio_url}/api/version", timeout=10)
        version = answer.json().get("release") if answer.is_success else None
        yield Check("Label Studio", "ok", f"{settings.label_studio_url} answers, version {version or 'unknown'}")
    except (httpx.HTTPError, ValueError):
        reachable = False
        yield Check(
            "Label Studio", "bad", f"{settings.label_studio_url} does not answer", "start it, or set LABEL_STUDIO_URL"
        )
    studio = None
    if reachable:
        try:
            studio = open_studio(settings)
            with sentences(settings.label_studio_url):
                user = studio.users.whoami()
            yield Check("token", "ok", f"{token_kind(settings)} of {user.email}")
        except TatorError as error:
            studio = None
            yield Check("token", "bad", "no access", str(error))
    yield from _backend(settings, backend_url)
    if project is not None and studio is not None:
        try:
            with sentences(settings.label_studio_url):
                yield from _project(settings, backend_url, project, studio)
        except TatorError as error:
            yield Check(f"project {project}", "bad", "cannot be examined", str(error))
    elif project is None:
        yield Check("project", "hint", "none was named", "tator doctor --project N checks a project's connection too")


def _backend(settings: Settings, backend_url: str) -> Iterator[Check]:
    try:
        check_backend(settings, backend_url)
    except TatorError as error:
        yield Check("backend", "bad", f"nothing usable at {backend_url}", str(error))
        return
    yield Check("backend", "ok", f"{backend_url} answers")
    if settings.password is None:
        yield Check("password", "hint", "none: fine on loopback", "set TATOR_PASSWORD before listening beyond it")
    try:
        answer = httpx.get(f"{backend_url}/tator/api/check", timeout=60, auth=basic_auth(settings))
        answer.raise_for_status()
        for found in answer.json()["checks"]:
            yield Check(**found)
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        yield Check("engine", "bad", f"the backend cannot be asked about it ({error})", "update Tator on its host")


def _project(settings: Settings, backend_url: str, project: int, studio: Any) -> Iterator[Check]:
    again = f"run `tator connect --project {project}`"
    row = studio.projects.get(project)
    yield Check(f"project {project}", "ok", f"'{row.title}'")
    mine = [one for one in studio.ml.list(project=project) if (one.url or "").rstrip("/") == backend_url]
    if not mine:
        yield Check("connection", "bad", f"the project has no ML backend at {backend_url}", again)
    else:
        one = mine[0]
        if str(one.state) == "CO":
            yield Check("connection", "ok", "Label Studio reaches the backend")
        else:
            said = (one.error_message or "no reason given").strip().splitlines()[-1][:200]
            yield Check(
                "connection",
                "bad",
                f"Label Studio does not reach the backend: {said}",
                "if it names a blocked address, start Label Studio with ML_BLOCK_LOCAL_IP=false and "
                f"SSRF_PROTECTION_ENABLED=false; then {again}",
            )
        if not one.is_interactive:
            yield Check("interactive", "bad", "interactive pre-annotations are off, so clicks do not arrive", again)
    url, headers = f"{backend_url}/webhook", webhook_headers(settings)
    hooks = [hook for hook in studio.webhooks.list(project=str(project)) if hook.url == url]
    if not hooks:
        yield Check("webhook", "bad", "there is none, so submitted annotations do not arrive", again)
    elif any((hook.headers or {}) != headers for hook in hooks):
        yield Check("webhook", "bad", "its header is not the backend's password, so it is refused", again)
    else:
        yield Check("webhook", "ok", "in order")
    if row.model_version:
        yield Check("live model", "ok", f"opening a task asks '{row.model_version}'")
    else:
        yield Check("live model", "hint", "opening a task does not warm its picture", again)
    levels: dict[str, Level] = {"kept": "ok", "done": "ok", "advice": "hint", "failed": "bad"}
    for step in configuration_steps(row.label_config or ""):
        mend = f"add {step.snippet}" if step.snippet else ""
        yield Check(step.name, levels[step.outcome], step.said, mend)
