"""Connecting a project to Tator: its ML backend, the webhook's header, the configuration. Safe to repeat."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from label_config.advice import problems
from label_config.errors import LabelConfigError
from label_config.reader import read
from tator_sdk.errors import TatorError
from tator_sdk.settings import Settings
from tator_sdk.studio import StudioError, open_studio, sentences

TITLE = "Tator"
Outcome = Literal["done", "kept", "advice", "failed"]


@dataclass(frozen=True)
class Step:
    """What was done about one thing, or what a person should do.

    Attributes:
        name: the thing, e.g. ``ML backend``.
        outcome: ``done`` changed something, ``kept`` found it right, ``advice`` asks for something,
            ``failed`` could not.
        said: one sentence.
        snippet: XML to paste, where there is some.
    """

    name: str
    outcome: Outcome
    said: str
    snippet: str | None = None


@dataclass(frozen=True)
class Connection:
    """A project to connect.

    Attributes:
        project: its number in Label Studio.
        backend_url: the backend's address as Label Studio reaches it.
        live: let Label Studio ask Tator when a task is opened, so that its picture is warm early.
    """

    settings: Settings
    project: int
    backend_url: str
    live: bool = True

    def run(self) -> list[Step]:
        """Connect, or repair what is there.

        Raises:
            TatorError: Label Studio or the backend cannot be reached at all.
        """
        check_backend(self.settings, self.backend_url)
        studio = open_studio(self.settings)
        with sentences(self.settings.label_studio_url):
            project = studio.projects.get(self.project)
            # The webhook first: Label Studio makes none where one of that address exists, so there never is
            # one without the header.
            steps = [self._webhook(studio), self._backend(studio)]
            if self.live:
                steps.append(self._live(studio, studio.projects.get(self.project)))
            return steps + configuration_steps(project.label_config or "")

    def _backend(self, studio: Any) -> Step:
        """Add the ML backend, or bring the one that is there in order."""
        rows = studio.ml.list(project=self.project)
        mine = [row for row in rows if (row.url or "").rstrip("/") == self.backend_url]
        wanted: dict[str, Any] = {
            "url": self.backend_url,
            "project": self.project,
            "title": TITLE,
            "is_interactive": True,
            "auth_method": "NONE",
        }
        if self.settings.password is not None:
            wanted.update(
                auth_method="BASIC_AUTH",
                basic_auth_user=self.settings.username,
                basic_auth_pass=self.settings.password.get_secret_value(),
            )
        try:
            if not mine:
                created = studio.ml.create(**wanted)
                return Step("ML backend", "done", f"added as backend {created.id}, interactive pre-annotations on")
            studio.ml.update(mine[0].id, **wanted)
        except Exception as error:
            raise explained(error, self.backend_url) from error
        for double in mine[1:]:  # left by earlier tries: the same address twice asks everything twice
            studio.ml.delete(double.id)
        if _in_order(mine[0], wanted) and not mine[1:]:
            return Step("ML backend", "kept", f"backend {mine[0].id} was in order")
        extra = f", {len(mine) - 1} double(s) removed" if mine[1:] else ""
        return Step("ML backend", "done", f"backend {mine[0].id} repaired{extra}")

    def _webhook(self, studio: Any) -> Step:
        """The automatic webhook carries no auth header unless it is given one."""
        url = f"{self.backend_url}/webhook"
        headers = webhook_headers(self.settings)
        hooks = [hook for hook in studio.webhooks.list(project=str(self.project)) if hook.url == url]
        if not hooks:
            studio.webhooks.create(
                url=url, project=self.project, headers=headers, send_payload=True, send_for_all_actions=True
            )
            return Step("webhook", "done", "made, so that submitted annotations reach Tator")
        stale = [hook for hook in hooks if (hook.headers or {}) != headers or not hook.is_active]
        if stale:  # all fields each time: those left out are emptied
            studio.webhooks.update(
                hooks[0].id, headers=headers, is_active=True, send_payload=True, send_for_all_actions=True
            )
        for double in hooks[1:]:
            studio.webhooks.delete(double.id)
        if stale or hooks[1:]:
            return Step("webhook", "done", "given the password header" if headers else "put in order")
        return Step("webhook", "kept", "was in order")

    def _live(self, studio: Any, project: Any) -> Step:
        """Opening a task asks the backend only where the project names it as its live model."""
        if project.model_version == TITLE:
            return Step("live model", "kept", "opening a task already makes its picture ready")
        if project.model_version:
            return Step(
                "live model",
                "advice",
                f"the project shows predictions of '{project.model_version}'; choose {TITLE} under Settings → "
                "Annotation to have pictures ready before the first click",
            )
        studio.projects.update(self.project, model_version=TITLE)
        return Step("live model", "done", "opening a task now makes its picture ready")


def webhook_headers(settings: Settings) -> dict[str, str]:
    """Headers the webhook must carry: none without a password."""
    if settings.password is None:
        return {}
    pair = f"{settings.username}:{settings.password.get_secret_value()}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def strip_key(settings: Settings, project: int | None) -> str:
    """What the live strip's address must carry where the backend has a password; else empty."""
    if settings.password is None:
        return ""
    secret = _strip_secret(settings.password.get_secret_value())
    return hmac.new(secret, f"strip:{project}".encode(), hashlib.sha256).hexdigest()[:24]


@functools.lru_cache(maxsize=4)
def _strip_secret(password: str) -> bytes:
    # annotators read the keys in the configuration: to guess the password from one must take long for each guess
    return hashlib.scrypt(password.encode(), salt=b"tator strip", n=2**14, r=8, p=1)


def strip_url(settings: Settings, backend_url: str, project: int | None) -> str:
    """Address of the live strip as it goes into a labelling configuration."""
    key = strip_key(settings, project)
    return f"{backend_url}/strip" + (f"?key={key}" if key else "")


def basic_auth(settings: Settings) -> httpx.BasicAuth | None:
    """What the backend itself asks for; None without a password."""
    if settings.password is None:
        return None
    return httpx.BasicAuth(settings.username, settings.password.get_secret_value())


def check_backend(settings: Settings, backend_url: str) -> None:
    """Make sure that Tator answers at an address and takes our password.

    Raises:
        TatorError: it does not.
    """
    try:
        answer = httpx.get(f"{backend_url}/health", timeout=5, auth=basic_auth(settings))
    except httpx.HTTPError as error:
        raise TatorError(f"Tator does not answer at {backend_url}; start it with `tator up`.") from error
    if answer.status_code == 401:
        raise TatorError(f"Tator at {backend_url} refuses the password; set TATOR_PASSWORD as the backend has it.")
    if not _is_tator(answer):
        raise TatorError(f"What answers at {backend_url} is not Tator; check the port.")


def _is_tator(answer: httpx.Response) -> bool:
    try:
        about = answer.json()
    except ValueError:  # a page
        return False
    return answer.is_success and isinstance(about, dict) and about.get("model_class") == "TatorBackend"


def configuration_steps(label_config: str) -> list[Step]:
    """What Tator serves with a configuration, and what to add."""
    try:
        interface = read(label_config)
    except LabelConfigError as error:
        return [Step("configuration", "failed", str(error))]
    found = problems(interface)
    usable = any(advice.level == "serves" for advice in found)
    outcomes: dict[str, Outcome] = {"serves": "kept", "missing": "advice" if usable else "failed", "hint": "advice"}
    return [Step("configuration", outcomes[advice.level], advice.message, advice.snippet) for advice in found]


def _in_order(row: Any, wanted: dict[str, Any]) -> bool:
    compared = ("url", "title", "is_interactive", "auth_method", "basic_auth_user")
    return all(getattr(row, key, None) == wanted.get(key) for key in compared if key in wanted)


def explained(error: Exception, backend_url: str) -> Exception:
    """Why Label Studio does not add a backend: it refuses its own network, or finds nothing at the address.

    Args:
        error: of the request; its ``body`` has Label Studio's words.
        backend_url: that was to be added.
    """
    said = (str(getattr(error, "body", "")) or str(error)).lower()
    for name in (backend_url, urlsplit(backend_url).hostname or ""):  # which may be called after anything
        said = said.replace(name.lower(), "") if name else said
    if getattr(error, "status_code", None) not in {400, 403}:
        return error
    if "reserved" in said or "block" in said or "ssrf" in said:
        return StudioError(
            "Label Studio refuses backends on its own network: start it with ML_BLOCK_LOCAL_IP=false and "
            "SSRF_PROTECTION_ENABLED=false, then run this again."
        )
    if "health check failed" in said:
        return StudioError(
            f"Label Studio finds no Tator at {backend_url}, though it answers here: give --backend the address that "
            "Label Studio's own host must use, and have Tator listen there (TATOR_HOST), then run this again."
        )
    return error
