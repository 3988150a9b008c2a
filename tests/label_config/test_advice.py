"""Advice says what works, and its snippets mend what does not."""

from __future__ import annotations

from xml.etree.ElementTree import fromstring

import pytest

from label_config.reader import Advice, problems, read

IMAGE = '<Image name="photo" value="$photo"/>'
KEYPOINTS = '<KeyPointLabels name="kp" toName="photo"><Label value="Car"/></KeyPointLabels>'
BOXES = '<RectangleLabels name="r" toName="photo"><Label value="Car"/><Label value="a &amp; b"/></RectangleLabels>'


def advice(*tags: str) -> list[Advice]:
    return problems(read(f"<View>{''.join(tags)}</View>"))


def messages(*tags: str) -> str:
    return "\n".join(each.message for each in advice(*tags))


def test_what_works_comes_first_and_names_the_tags() -> None:
    found = advice(IMAGE, KEYPOINTS, BOXES)
    assert found[0] == Advice("serves", 'On "photo", clicks (kp) and boxes (r) are answered with boxes (r).')
    order = ["serves", "missing", "hint"]
    assert [order.index(each.level) for each in found] == sorted(order.index(each.level) for each in found)


def test_only_answers_that_are_allowed_are_promised() -> None:
    polygons = '<PolygonLabels name="p" toName="photo"><Label value="Car"/></PolygonLabels>'
    only = KEYPOINTS.replace("toName", 'model_output="polygon" toName')
    mute = BOXES.replace("toName", 'smart="false" toName')
    assert advice(IMAGE, only, mute, polygons)[0].message == 'On "photo", clicks (kp) are answered with polygons (p).'


def test_outputs_alone_can_hold_retrieved_predictions() -> None:
    assert 'On "photo", predictions can be retrieved as polygons (p).' in messages(
        IMAGE, '<PolygonLabels name="p" toName="photo"><Label value="Car"/></PolygonLabels>'
    )


@pytest.mark.parametrize(
    "tags",
    [
        (),
        (IMAGE,),
        (IMAGE, KEYPOINTS),
        (IMAGE, BOXES),
        (IMAGE, '<Choices name="point" toName="photo"/>', BOXES),
        ('<Image name="a" value="$a"/><Image name="b" value="$b"/>', '<Rectangle name="box" toName="a"/>'),
        ('<Text name="image" value="$t"/>',),
    ],
)
def test_pasting_the_snippets_mends_everything_missing(tags: tuple[str, ...]) -> None:
    """As a person would: paste what is missing, look again, until nothing is."""
    pasted = list(tags)
    for _ in range(4):
        missing = [each for each in advice(*pasted) if each.level == "missing"]
        if not missing:
            break
        assert missing[0].snippet and fromstring(missing[0].snippet) is not None
        pasted.insert(0, missing[0].snippet)
    found = advice(*pasted)
    assert "missing" not in {each.level for each in found} and found[0].level == "serves"
    names = [
        element.get("name") for element in fromstring(f"<View>{''.join(pasted)}</View>").iter() if element.get("name")
    ]
    assert len(set(names)) == len(names), "Label Studio refuses a configuration with a name given twice"


def test_snippets_carry_the_labels_that_are_there() -> None:
    (snippet,) = (each.snippet for each in advice(IMAGE, BOXES) if each.level == "missing")
    assert snippet and '<Label value="a &amp; b"' in snippet
    assert read(f"<View>{IMAGE}{snippet}</View>").labels == ("Car", "a & b")


def test_a_keypoint_tag_that_is_not_smart_is_named() -> None:
    mute = KEYPOINTS.replace("toName", 'smart="false" toName')
    assert 'Clicks do not reach Tator: remove smart="false" from "kp".' in messages(IMAGE, mute, BOXES)


def test_order_and_number_of_the_smart_tags() -> None:
    assert 'The smart button starts with "r": put "kp" before it' in messages(IMAGE, BOXES, KEYPOINTS)
    assert "The smart button" not in messages(IMAGE, KEYPOINTS, BOXES)
    second = KEYPOINTS.replace("kp", "kp2")
    assert 'key K takes the last of "kp" and "kp2" only' in messages(IMAGE, KEYPOINTS, second, BOXES)


def test_labels_that_cannot_be_answered_are_named() -> None:
    more = '<KeyPointLabels name="kp" toName="photo"><Label value="Car"/><Label value="Bus"/></KeyPointLabels>'
    assert '"r" cannot hold "Bus", which "kp" asks for: add it there.' in messages(IMAGE, more, BOXES)
    assert "cannot hold" not in messages(IMAGE, KEYPOINTS, BOXES)


@pytest.mark.parametrize(
    "tool",
    [
        KEYPOINTS.replace("<Label", '<Label value="Fix" model_assist="tweak"/><Label', 1),
        KEYPOINTS + '<KeyPoint name="t" toName="photo" model_assist="tweak"/>',
    ],
)
def test_a_tweak_tool_is_known_and_asks_for_nothing_new(tool: str) -> None:
    assert "tighten a standing box" in messages(IMAGE, KEYPOINTS, BOXES)
    text = messages(IMAGE, tool, BOXES)
    assert "tighten a standing box" not in text and "clicks (kp) and boxes (r) are answered" in text
    assert "cannot hold" not in text
