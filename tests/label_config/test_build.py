"""Configurations made from classes: valid for Label Studio, harmless with any name, and as its editor needs them."""

from __future__ import annotations

import html
import itertools
import re
from collections import Counter
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from label_config.build import KEYS, NEGATIVE, NO_HOTKEY, SHIFTED, TWEAK, build, template_names
from label_config.errors import LabelConfigError
from label_config.palette import colour, contrast_with_white
from label_config.reader import problems, read

TEMPLATES = ["all", "boxes", "masks", "polygons", "sam3"]

EDITOR_KEYS = set("behkmopruvw[]")
"""Plain keys of Label Studio 1.23.2's editor (its keymap), in lower case."""

EDITOR_COMBINATIONS = {"shift+1", "shift+2", "shift+r"} | {f"alt+{key}" for key in "adhlmr."}

class_names = (
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Cn"]), min_size=1, max_size=40)
    .map(str.strip)
    .filter(lambda name: name not in ("", TWEAK, NEGATIVE))
)


def classes(count: int) -> list[str]:
    return [f"class {index}" for index in range(count)]


def labels(xml: str) -> list[Element]:
    return list(fromstring(xml).iter("Label"))


def strip_source(xml: str) -> str:
    """The strip's URL as the browser gets it: out of XML, then out of HTML."""
    (markdown,) = fromstring(xml).iter("Markdown")
    found = re.fullmatch(
        r"<iframe src='([^'<>]*)' width='600' height='28' style='border:0'></iframe>", markdown.get("value", "")
    )
    assert found
    return html.unescape(found[1])


def test_the_templates_are_those_we_promise() -> None:
    assert list(template_names()) == TEMPLATES


@pytest.mark.parametrize("count", [1, 3, 30])
@pytest.mark.parametrize("template", TEMPLATES)
def test_label_studio_finds_every_template_valid(template: str, count: int) -> None:
    label_interface: Any = pytest.importorskip("label_studio_sdk.label_interface")
    seen = label_interface.LabelInterface(build(template, classes(count), "http://host/strip?a=1&b=2", project=3))
    seen.validate()
    assert list(seen.get_control("box").labels) == classes(count)
    assert all(control.to_name == ["image"] for control in seen.controls)


@pytest.mark.parametrize(
    ("template", "prompts", "outputs", "answer_to_a_click"),
    [
        ("boxes", "point box", "box", "box"),
        ("masks", "point brush box", "brush box", "brush"),
        ("polygons", "point box", "polygon box", "polygon"),
        ("all", "point box brush prompt", "box brush polygon", "box brush polygon"),
        ("sam3", "point box example prompt", "box example polygon brush", "box example polygon brush"),
    ],
)
def test_what_a_template_asks_and_answers(template: str, prompts: str, outputs: str, answer_to_a_click: str) -> None:
    interface = read(build(template, ["Car", "Person"]))
    point = interface.control("point")
    assert " ".join(control.name for control in interface.prompts_for("image")) == prompts
    assert " ".join(control.name for control in interface.outputs_for("image")) == outputs
    assert " ".join(control.name for control in interface.outputs_for("image", point)) == answer_to_a_click
    assert interface.labels == ("Car", "Person") == point.classes
    assert point.assists_for("Tweak") == frozenset({"tweak"}) and point.assists_for("Car") is None
    assert not interface.warnings
    assert {advice.level for advice in problems(interface)} <= {"serves", "hint"}


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_first_smart_tag_takes_points(template: str) -> None:
    controls = [e for e in fromstring(build(template, ["Car"])).iter() if e.get("toName") and e.get("smart") != "false"]
    assert controls[0].tag == "KeyPointLabels"
    assert [control.tag for control in controls].count("KeyPointLabels") == 1, "K takes the last keypoint tag only"


@pytest.mark.parametrize("count", [1, 10, 30, 60, 120])
@pytest.mark.parametrize("template", TEMPLATES)
def test_hotkeys_are_unique_and_none_is_the_editors(template: str, count: int) -> None:
    hotkeys = [label.get("hotkey", "") for label in labels(build(template, classes(count)))]
    assert all(hotkeys), "the editor would give a label without a hotkey the next free key, be it a tool's"
    given_out = [key for key in hotkeys if key != NO_HOTKEY]
    assert [key for key, times in Counter(given_out).items() if times > 1] == []
    assert not {*given_out} & (EDITOR_KEYS | EDITOR_COMBINATIONS)
    assert "x" in given_out


def test_hotkeys_of_the_point_tool_are_plain_keys_first() -> None:
    control = read(build("boxes", classes(50))).control("point")
    assert [label.attrs["hotkey"] for label in control.labels][:12] == list("1234567890qt")
    inert = [label for label in control.labels if label.attrs["hotkey"] == NO_HOTKEY]
    assert len(inert) == 50 - len(KEYS) - len(SHIFTED)


def test_colours_belong_to_the_index_and_can_be_told_apart() -> None:
    first, more = (labels(build("boxes", classes(count))) for count in (3, 30))
    assert [label.get("background") for label in first][:3] == [label.get("background") for label in more][:3]
    colours = [colour(index) for index in range(200)]
    assert all(re.fullmatch("#[0-9A-F]{6}", each) and contrast_with_white(each) >= 3 for each in colours)
    assert len(set(colours[:100])) == 100
    apart = [
        sum(abs(int(one[i : i + 2], 16) - int(other[i : i + 2], 16)) for i in (1, 3, 5))
        for one, other in itertools.combinations(colours[:40], 2)
    ]
    assert min(apart) >= 24


@pytest.mark.parametrize("template", TEMPLATES)
@given(names=st.lists(class_names, min_size=1, max_size=6, unique=True))
@settings(max_examples=15, deadline=None)
def test_any_name_comes_back_as_it_went_in(template: str, names: list[str]) -> None:
    xml = build(template, names)
    interface = read(xml)
    assert interface.labels == tuple(names)
    for control in interface.controls:
        assert [interface.find_label(control, name) for name in control.classes] == list(control.classes)
    assert interface.image("image").value_key == "image"


@pytest.mark.parametrize("name", ["<b>&\"'", "{class}", "{key} {digit}", "{strip_url}", "]]>", "a=b", "true", "日本語"])
def test_names_are_not_markup_nor_placeholders(name: str) -> None:
    assert read(build("all", [name, "Other"], "http://host/strip")).labels == (name, "Other")


def test_a_dollar_in_a_name_is_shown_and_not_looked_up_in_the_task() -> None:
    label = labels(build("boxes", ["US$5 <note>", "Car"]))[0]
    assert label.get("value") == "US$5 <note>" and label.get("html") == "US$5 &lt;note&gt;"
    assert labels(build("boxes", ["Car"]))[0].get("html") is None


@pytest.mark.parametrize(
    ("url", "project", "expected"),
    [
        ("http://127.0.0.1:9090/strip", None, "http://127.0.0.1:9090/strip"),
        ("https://h/strip", 7, "https://h/strip?project=7"),
        ("https://h/strip?token=a&project=1", 7, "https://h/strip?token=a&project=7"),
        ("https://h/strip?a=1&b=2", None, "https://h/strip?a=1&b=2"),
        ("https://h/'><script>/$image", None, "https://h/%27%3E%3Cscript%3E/%24image"),
    ],
)
def test_the_strip_carries_its_url_and_project(url: str, project: int | None, expected: str) -> None:
    assert strip_source(build("all", ["Car"], url, project=project)) == expected


@pytest.mark.parametrize("template", TEMPLATES)
def test_without_a_url_there_is_no_strip(template: str) -> None:
    xml = build(template, ["Car"])
    assert "<Markdown" not in xml and "{" not in xml
    assert "<Markdown" in build(template, ["Car"], "http://host/strip")


@pytest.mark.parametrize(
    ("key", "value"), [("image", "$image"), ("$photo", "$photo"), ("meta.views[0].url", "$meta.views[0].url")]
)
def test_the_image_key_is_taken(key: str, value: str) -> None:
    (image,) = fromstring(build("boxes", ["Car"], image_key=key)).iter("Image")
    assert image.get("value") == value and image.get("zoom") == image.get("zoomControl") == "true"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("circles", ["Car"]), 'There is no template "circles"; there are all, boxes, masks, polygons, sam3.'),
        (("../boxes", ["Car"]), 'There is no template "../boxes"; there are all, boxes, masks, polygons, sam3.'),
        (("boxes", []), "There are no classes; give at least one name."),
        (("boxes", ["Car", " Car "]), 'The class "Car" is given twice.'),
        (("boxes", ["Car", ""]), "The name of class 2 is empty."),
        (("boxes", [" \t"]), "The name of class 1 is empty."),
        (("boxes", ["a\nb"]), "The name of class 1 has a line break or an unprintable character."),
        (("boxes", ["a\x00b"]), "The name of class 1 has a line break or an unprintable character."),
        (("boxes", ["\ud800"]), "The name of class 1 has a line break or an unprintable character."),
        (("boxes", ["Tweak"]), '"Tweak" is the name of a tool in the templates; give that class another.'),
        (("boxes", "Car"), "Classes are given as a list of names, not as one string."),
        (("boxes", ["Car"], "host/strip"), 'The strip\'s URL "host/strip" must begin with http'),
        (("boxes", ["Car"], "javascript:alert(1)"), "must begin with http:// or https:// and name a host."),
        (("boxes", ["Car"], None, "a b"), '"a b" cannot be the key of an image'),
        (("boxes", ["Car"], None, ""), '"" cannot be the key of an image'),
    ],
)
def test_mistakes_are_told_in_one_sentence(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(LabelConfigError) as caught:
        build(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
