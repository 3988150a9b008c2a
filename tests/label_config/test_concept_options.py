"""What tags say about phrases and examples, and what is said where it cannot be read."""

from __future__ import annotations

import pytest

from label_config.build import build
from label_config.concept_options import ConceptOptions, concept_options, words_by
from label_config.errors import LabelConfigError
from label_config.interface import Interface
from label_config.reader import problems, read


def view(*tags: str) -> Interface:
    return read(f'<View><Image name="i" value="$u"/>{"".join(tags)}</View>')


def field(attributes: str) -> Interface:
    return view(f'<TextArea name="t" toName="i" model_mode="sam3" {attributes}/>')


def example(attributes: str, tag: str = "RectangleLabels") -> Interface:
    labels = '<Label value="Car"/><Label value="Not this"/>'
    return view(f'<{tag} name="t" toName="i" {attributes}>{labels}</{tag}>')


@pytest.mark.parametrize(
    ("attributes", "options"),
    [
        ("", ConceptOptions()),
        ('model_score_threshold="0.3" model_max_results="200"', ConceptOptions(threshold=0.3, max_results=200)),
        ('model_score_threshold="0" model_keep_prompt="True"', ConceptOptions(threshold=0.0, keep_prompt=True)),
    ],
)
def test_options_of_a_prompt_field(attributes: str, options: ConceptOptions) -> None:
    interface = field(attributes)
    assert concept_options(interface.control("t").options) == options and not interface.warnings


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ('model_max_results="0"', "from 1 to 200"),
        ('model_max_results="201"', "from 1 to 200"),
        ('model_score_threshold="2"', "from 0 to 1"),
        ('model_score_threshold="nan"', "from 0 to 1"),
        ('model_keep_prompt="yes"', "neither true nor false"),
    ],
)
def test_what_cannot_be_read_is_said_and_counts_as_not_given(attributes: str, said: str) -> None:
    interface = field(attributes)
    assert concept_options(interface.control("t").options) == ConceptOptions()
    (warning,) = interface.warnings
    assert said in warning and '"t"' in warning


@pytest.mark.parametrize(
    ("attributes", "segmenter", "by"),
    [
        ("", None, "qwen"),
        ("", "sam2-tiny", "qwen"),
        ("", "sam3", "sam3"),
        ('model_mode="bbox"', "sam3", "qwen"),
        ('model_mode="SAM3"', "sam2-tiny", "sam3"),
    ],
)
def test_who_answers_words(attributes: str, segmenter: str | None, by: str) -> None:
    tag = view(f'<TextArea name="t" toName="i" {attributes}/>').control("t")
    assert words_by(tag.options, segmenter) == by


def test_negatives_are_labels_and_no_classes() -> None:
    interface = example('model_mode="exemplar" model_negatives="not THIS" model_phrase="true"')
    tag = interface.control("t")
    assert tag.takes_exemplars and tag.is_negative("Not this") and not tag.is_negative("Car")
    assert tag.classes == interface.labels == ("Car",) and concept_options(tag.options).phrase
    assert interface.find_label(tag, "Not this") is None and not interface.warnings
    assert "examples (t) are answered with boxes (t)" in problems(interface)[0].message


@pytest.mark.parametrize(
    ("attributes", "tag", "said"),
    [
        ('model_mode="exemplar" model_negatives="Other"', "RectangleLabels", 'no label "other"'),
        ('model_mode="exemplar" model_phrase="maybe"', "RectangleLabels", "neither true nor false"),
        ('model_mode="exemplar" model_max_results="x"', "RectangleLabels", "from 1 to 200"),
        ('model_mode="exemplar"', "BrushLabels", "examples are boxes"),
        ('model_negatives="Not this"', "RectangleLabels", 'without model_mode="exemplar"'),
    ],
)
def test_what_keeps_examples_from_working_is_said(attributes: str, tag: str, said: str) -> None:
    (warning,) = example(attributes, tag).warnings
    assert said in warning and '"t"' in warning


def test_only_boxes_are_examples() -> None:
    assert not example('model_mode="exemplar"', "BrushLabels").control("t").takes_exemplars
    assert not example("").control("t").takes_exemplars


def test_the_template_asks_for_phrases_and_examples() -> None:
    interface = read(build("sam3", ["Car", "Bus"]))
    tag = interface.control("example")
    assert tag.takes_exemplars and tag.classes == ("Car", "Bus") and tag.is_negative("Not this")
    assert words_by(interface.control("prompt").options, None) == "sam3"
    assert concept_options(interface.control("prompt").options) == ConceptOptions()
    with pytest.raises(LabelConfigError, match="name of a tool"):
        build("sam3", ["Not this"])
    assert read(build("boxes", ["Not this"])).labels == ("Not this",)
