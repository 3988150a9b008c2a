"""How a job over a project asks its model: the prompt field's options, where the request does not say otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from label_config.concept_options import ConceptOptions, concept_options
from label_config.interface import Control, Interface
from label_config.word_options import WordOptions, word_options
from tator_ml.projects import ProjectChoices
from tator_ml.prompts.assists import AssistError
from tator_ml.vlm.registry import qwen_registry
from tator_ml.words.qwen import QwenManner
from tator_ml.words.sam3 import ConceptManner
from tator_sdk.requests import Prelabel
from tator_sdk.settings import Settings

AnyManner = TypeVar("AnyManner", QwenManner, ConceptManner)


def qwen_manners(
    request: Prelabel, settings: Settings, interface: Interface, choices: ProjectChoices, model: str | None
) -> tuple[QwenManner, ...]:
    """How a Qwen-VL is asked, for each image tag that can hold an answer.

    Args:
        request: whose options go before those of the prompt field.
        settings: of this installation.
        interface: of the project.
        choices: of the project.
        model: id of the model; None for the project's active one.

    Raises:
        AssistError: no tag can hold an answer; the sentence says what to add.
        TatorError: the model is not known.
    """
    registry = qwen_registry(settings)
    entry = registry.resolve(model or registry.active(request.project).id)
    agreement = settings.guard_agreement

    def made(prompt: Control, image_name: str) -> QwenManner:
        asked = {name: getattr(request, name) for name in ("mode", "max_results", "image_type", "extra_context")}
        given = {name: value for name, value in asked.items() if value is not None}
        options: WordOptions = replace(word_options(prompt.options), **given)
        return QwenManner.of(interface, prompt, image_name, options, choices, entry, agreement)

    return _each(request, interface, made)


def concept_manners(
    request: Prelabel, settings: Settings, interface: Interface, choices: ProjectChoices, model: str | None
) -> tuple[ConceptManner, ...]:
    """How SAM 3 is asked, likewise; ``model`` is a tuned run's id, or ``sam3``."""

    def made(prompt: Control, image_name: str) -> ConceptManner:
        asked = {name: getattr(request, name) for name in ("threshold", "max_results")}
        given = {name: value for name, value in asked.items() if value is not None}
        options: ConceptOptions = replace(concept_options(prompt.options), **given)
        manner = ConceptManner.of(interface, prompt, image_name, options, choices, request.output)
        return replace(manner, model=model) if model else manner

    return _each(request, interface, made)


def _each(request: Prelabel, interface: Interface, made: Callable[[Control, str], AnyManner]) -> tuple[AnyManner, ...]:
    found, problem = [], AssistError("The labelling configuration has no <Image>, so there is nothing to ask about.")
    for image in interface.images:
        fields = [one for one in interface.controls if one.takes == "text" and image.name in one.to_name]
        try:
            manner = made(fields[0] if fields else Control("", "TextArea", (image.name,)), image.name)
        except AssistError as error:
            problem = error
            continue
        found.append(manner if request.classify is None else replace(manner, classify=request.classify))
    if not found:
        raise problem
    return tuple(found)
