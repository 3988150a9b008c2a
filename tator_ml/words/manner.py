"""Who answers a project's words, and how: what its prompt field says, else its segmenter."""

from __future__ import annotations

from label_config.concept_options import concept_options, words_by
from label_config.interface import Control, Interface
from label_config.word_options import word_options
from tator_ml.projects import ProjectChoices
from tator_ml.services import Services
from tator_ml.words.finding import Manner
from tator_ml.words.qwen import QwenManner
from tator_ml.words.sam3 import ConceptManner


def manner_of(
    services: Services,
    project: int | None,
    choices: ProjectChoices,
    interface: Interface,
    prompt: Control,
    image_name: str,
) -> Manner:
    """How words of a prompt field are answered.

    Args:
        services: of the web process.
        project: its number.
        choices: of the project.
        interface: of the project.
        prompt: the prompt field.
        image_name: name of the image tag.

    Raises:
        TatorError: with a sentence: no tag can take the answer, or the active model is gone.
    """
    if words_by(prompt.options, choices.segmenter or services.settings.segmenter) == "sam3":
        return ConceptManner.of(interface, prompt, image_name, concept_options(prompt.options), choices)
    model, agreement = services.qwen.active(project), services.settings.guard_agreement
    return QwenManner.of(interface, prompt, image_name, word_options(prompt.options), choices, model, agreement)
