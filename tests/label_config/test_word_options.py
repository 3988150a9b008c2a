"""What a prompt field says about words, and what is said where it cannot be read."""

from __future__ import annotations

import pytest

from label_config.build import build
from label_config.reader import read
from label_config.word_options import WordOptions, word_options


def field(attributes: str) -> str:
    return f'<View><Image name="i" value="$u"/><TextArea name="t" toName="i" {attributes}/></View>'


@pytest.mark.parametrize(
    ("attributes", "options"),
    [
        ("", WordOptions()),
        ('model_mode="BBOX_SAM"', WordOptions(mode="bbox_sam")),
        ('model_mode="point" model_max_results="50"', WordOptions(mode="point", max_results=50)),
        ('model_keep_prompt="True" model_image_type=" aerial photograph "',
         WordOptions(image_type="aerial photograph", keep_prompt=True)),
        ('model_extra_context="Only {whole} objects."', WordOptions(extra_context="Only {whole} objects.")),
    ],
)  # fmt: skip
def test_options_are_read_from_the_tag(attributes: str, options: WordOptions) -> None:
    interface = read(field(attributes))
    assert word_options(interface.control("t").options) == options and not interface.warnings


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ('model_mode="mask"', "bbox, bbox_sam, point and sam3"),
        ('model_max_results="0"', "from 1 to 50"),
        ('model_max_results="51"', "from 1 to 50"),
        ('model_max_results="½"', "from 1 to 50"),
        ('model_max_results="-3"', "from 1 to 50"),
        ('model_keep_prompt="yes"', "neither true nor false"),
    ],
)
def test_what_cannot_be_read_is_said_and_counts_as_not_given(attributes: str, said: str) -> None:
    interface = read(field(attributes))
    assert word_options(interface.control("t").options) == WordOptions()
    (warning,) = interface.warnings
    assert said in warning and '"t"' in warning


def test_the_template_with_a_prompt_field_says_how_words_are_answered() -> None:
    options = read(build("all", ["Car"])).control("prompt").options
    assert options["mode"] == "bbox" and word_options(options) == WordOptions()
