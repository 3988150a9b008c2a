"""What the control API takes and gives, as pydantic models; messages of the engine are described as they are."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tator_ml.quality.comparison import Comparison


class Answer(BaseModel):
    """Part of an answer."""

    model_config = ConfigDict(frozen=True)


class Change(BaseModel):
    """Part of a request; a name that is not known is refused, as it is likely misspelled."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Answer):
    """Why a call did not do what was asked."""

    error: str = Field(description="One sentence that says what to do.")


class CheckResult(Answer):
    """One line of ``tator doctor``."""

    name: str
    level: Literal["ok", "hint", "bad"]
    said: str
    mend: str = Field(default="", description="How to mend it.")


class Checks(Answer):
    """Engine, weights, Redis and worker."""

    checks: list[CheckResult]


class KeptWords(Change):
    """Words that are asked again on every picture of a project."""

    text: str = Field(max_length=10_000, description="As typed into a prompt field; empty for all classes.")
    field: str = Field("", description="Name of the prompt field whose options hold; empty for the first.")


class Choices(Answer):
    """What was chosen for a project; null leaves the decision to the tags and the settings."""

    assists: list[str] | None = Field(description="Of refine and classify, what a prompt gets.")
    head: str | None = Field(description="Version of the active class head.")
    train_after: int | None = Field(description="Annotations after which a head is trained by itself.")
    preload: bool | None = Field(description="Whether pictures are made ready before they are opened.")
    segmenter: str | None = Field(description="Name of the segmenter that answers.")
    output: str | None = Field(description="What points are answered with: box, polygon or mask.")
    qwen: str | None = Field(description="Id of the active tuned Qwen.")
    words: KeptWords | None = Field(description="Asked on the next pictures too.")
    sam3: str | None = Field(description="Id of the active tuned SAM 3.")
    comparison: Comparison | None = Field(description="That goes on, of labelling with and without assistance.")


class ChoicesChange(Change):
    """Choices to change; those left out stay, null goes back to the default."""

    assists: list[Literal["refine", "classify"]] | None = None
    preload: bool | None = None
    segmenter: str | None = Field(None, description="One of the names that /tator/api/segmenters lists.")
    output: Literal["box", "polygon", "mask"] | None = None
    words: KeptWords | None = Field(None, description="To be asked on the next pictures too; null asks none.")


class Budget(Change):
    """Memory for warm pictures."""

    budget_bytes: int = Field(ge=0, description="Bytes; what is too much goes at once, the newest always fits.")


class Segmenters(Answer):
    """The segmenters there are."""

    names: list[str] = Field(description="To choose from.")
    default: str = Field(description="Of TATOR_SEGMENTER: answers for projects that chose none.")


class Head(Answer):
    """A class head."""

    version: str
    project: int | None = Field(description="It was trained for; null for an imported one.")
    created: float = Field(description="Seconds since the epoch.")


class Heads(Answer):
    """Every class head in the registry."""

    heads: list[Head]


class Job(Answer):
    """How a job stands."""

    id: str
    kind: str
    title: str
    project: int | None
    status: Literal["queued", "running", "done", "failed", "cancelled"]
    done: int
    total: int
    what: str
    created: float
    started: float | None
    ended: float | None
    attempt: int
    error: str | None


class Jobs(Answer):
    """Jobs, the newest first."""

    jobs: list[Job]


class Document(Answer):
    """An OpenAPI 3.1 document."""

    model_config = ConfigDict(frozen=True, extra="allow")
    openapi: str
