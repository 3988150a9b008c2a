"""Any Label Studio XML becomes an interface, or one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from label_config.errors import LabelConfigError, UnknownTag
from label_config.reader import MAX_BYTES, Interface, problems, read, read_cached

PAYLOADS = Path(__file__).parents[1] / "payloads"
IMAGE = '<Image name="image" value="$image"/>'


def view(*tags: str) -> Interface:
    return read(f"<View>{''.join(tags)}</View>")


def names(controls: Any) -> str:
    return " ".join(control.name for control in controls)


def captured() -> Iterator[Any]:
    """Every configuration in the captured requests."""

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, each in value.items():
                if key in ("label_config", "schema") and isinstance(each, str):
                    yield each
                yield from walk(each)
        elif isinstance(value, list):
            for each in value:
                yield from walk(each)

    for path in sorted(PAYLOADS.glob("*.json")):
        for xml in dict.fromkeys(walk(json.loads(path.read_text()))):
            yield pytest.param(xml, id=path.stem)


@pytest.mark.parametrize("xml", [*captured()])
def test_captured_configurations(xml: str) -> None:
    interface = read(xml)
    assert [(image.name, image.value_key) for image in interface.images] == [("image", "image")]
    assert interface.warnings == ()
    if "TextArea" in xml:
        assert names(interface.prompts_for("image")) == "prompt rect"
        assert names(interface.outputs_for("image")) == "rect"
        assert interface.labels == ("Ball", "Box", "Cup")
    else:
        assert names(interface.prompts_for("image")) == "brush kp rect"
        assert names(interface.outputs_for("image")) == "brush rect poly"
        assert interface.labels == ("Ball", "Box")
    assert any(advice.level == "serves" for advice in problems(interface))


@pytest.mark.parametrize("xml", [*captured()])
def test_label_studio_reads_captured_configurations_the_same(xml: str) -> None:
    label_interface: Any = pytest.importorskip("label_studio_sdk.label_interface")
    theirs = {control.name: control for control in label_interface.LabelInterface(xml).controls}
    ours = {control.name: control for control in read(xml).controls}
    assert theirs.keys() == ours.keys()
    for name, control in ours.items():
        assert [label.value for label in control.labels] == list(theirs[name].labels or [])
        assert list(control.to_name) == theirs[name].to_name and control.tag == theirs[name].tag


@pytest.mark.parametrize(
    ("tag", "takes", "gives", "result_type"),
    [
        ("KeyPoint", "points", None, "keypoint"),
        ("KeyPointLabels", "points", None, "keypointlabels"),
        ("Rectangle", "boxes", "box", "rectangle"),
        ("RectangleLabels", "boxes", "box", "rectanglelabels"),
        ("Rectangle3PointLabels", "boxes", "box", "rectanglelabels"),
        ("Brush", "strokes", "mask", "brush"),
        ("BrushLabels", "strokes", "mask", "brushlabels"),
        ("Bitmask", "strokes", "mask", "bitmask"),
        ("BitmaskLabels", "strokes", "mask", "bitmasklabels"),
        ("MagicWand", "strokes", None, "magicwand"),
        ("Polygon", None, "polygon", "polygon"),
        ("PolygonLabels", None, "polygon", "polygonlabels"),
        ("Ellipse", None, "ellipse", "ellipse"),
        ("EllipseLabels", None, "ellipse", "ellipselabels"),
        ("TextArea", "text", None, "textarea"),
        ("Labels", None, None, "labels"),
    ],
)
def test_what_each_tag_takes_and_gives(tag: str, takes: str | None, gives: str | None, result_type: str) -> None:
    for written in (tag, tag.lower()):
        interface = view(IMAGE, f'<{written} name="c" toName="image"/>')
        control = interface.control("c")
        assert (control.takes, control.gives, control.result_type) == (takes, gives, result_type)
        assert control.smart and control.assists is None and control.score_threshold is None
        assert bool(interface.prompts_for("image")) == bool(takes)
        assert bool(interface.outputs_for("image")) == bool(gives)


@pytest.mark.parametrize(
    ("attributes", "asks"),
    [
        ("", True),
        ('smart="true"', True),
        ('smart="false"', False),
        ('smart="False"', False),
        ('editable="true"', True),
        ('editable="false"', False),
        ('perRegion="true"', False),
        ('smart="false" editable="false" maxSubmissions="0"', False),
    ],
)
def test_status_texts_are_no_inputs(attributes: str, asks: bool) -> None:
    interface = view(IMAGE, f'<TextArea name="t" toName="image" {attributes}/>')
    assert bool(interface.prompts_for("image")) is asks


def test_smart_can_be_switched_off() -> None:
    interface = view(
        IMAGE, '<KeyPointLabels name="kp" toName="image" smart="false"><Label value="a"/></KeyPointLabels>'
    )
    assert not interface.control("kp").smart and interface.prompts_for("image") == ()


def test_options_threshold_and_predicted_values() -> None:
    control = view(
        IMAGE,
        '<RectangleLabels name="r" toName="image" model_score_threshold="0.25" model_Assist=" Refine, classify"'
        ' model_output="box" opacity="0.3"><Label value="Auto" predicted_values="car, truck ,"/></RectangleLabels>',
    ).control("r")
    assert dict(control.options) == {"score_threshold": "0.25", "assist": " Refine, classify", "output": "box"}
    assert control.score_threshold == 0.25
    assert control.assists == frozenset({"refine", "classify"}) and control.outputs == frozenset({"box"})
    assert control.attrs["opacity"] == "0.3"
    assert control.labels[0].predicted_values == ("car", "truck")
    with pytest.raises(TypeError):
        control.options["x"] = "y"  # type: ignore[index]
    assert hash(control)


@pytest.mark.parametrize(
    ("written", "assists", "warned"),
    [
        ("", None, False),
        ("none", frozenset(), False),
        ("tweak", frozenset({"tweak"}), False),
        ("refine,colour", frozenset({"refine"}), True),
        ("colour", None, True),
    ],
)
def test_assists_and_what_is_unknown_in_them(written: str, assists: frozenset[str] | None, warned: bool) -> None:
    interface = view(IMAGE, f'<Rectangle name="r" toName="image" model_assist="{written}"/>')
    assert interface.control("r").assists == assists
    expected = '"r" has model_assist="colour", but Tator knows only classify, refine, tweak.'
    assert interface.warnings == ((expected,) if warned else ())


@pytest.mark.parametrize("written", ["high", "-0.1", "1.5", "nan", ""])
def test_a_threshold_that_is_none_is_told(written: str) -> None:
    interface = view(IMAGE, f'<Rectangle name="r" toName="image" model_score_threshold="{written}"/>')
    assert interface.control("r").score_threshold is None
    assert "is no number from 0 to 1" in interface.warnings[0]


def test_a_label_has_assists_of_its_own() -> None:
    interface = view(
        IMAGE,
        '<KeyPointLabels name="p" toName="image" model_assist="classify"><Label value="Car"/>'
        '<Label value="Fix" model_assist="tweak"/></KeyPointLabels>',
    )
    control = interface.control("p")
    assert control.assists_for("Car") == control.assists_for(None) == frozenset({"classify"})
    assert control.assists_for("Fix") == frozenset({"tweak"})
    assert control.classes == interface.labels == ("Car",)


def test_several_images_in_one_task() -> None:
    interface = view(
        '<Image name="left" value="$a"/><Image name="right" value="$b"/>',
        '<KeyPointLabels name="kp" toName="left,right"><Label value="x"/></KeyPointLabels>',
        '<RectangleLabels name="r1" toName="left"><Label value="x"/></RectangleLabels>',
        '<RectangleLabels name="r2" toName="right"><Label value="y"/></RectangleLabels>',
        '<PolygonLabels name="p2" toName="right"><Label value="y"/><Label value="x"/></PolygonLabels>',
        '<Pairwise name="pw" toName="left,right"/>',
    )
    assert [image.name for image in interface.images] == ["left", "right"]
    assert interface.control("kp").to_name == ("left", "right")
    assert names(interface.prompts_for("left")) == "kp r1"
    assert names(interface.prompts_for(interface.image("right"))) == "kp r2"
    assert names(interface.outputs_for("right")) == "r2 p2"
    assert interface.labels == ("x", "y")


@pytest.mark.parametrize(
    ("tag", "data", "urls"),
    [
        ('value="$image"', {"image": "/a.png"}, ("/a.png",)),
        ('value="$image"', {}, ()),
        ('value="$image"', {"image": None}, ()),
        ('value="$meta.views[1].url"', {"meta": {"views": [{}, {"url": "/b.png"}]}}, ("/b.png",)),
        ('value="$meta.views[7].url"', {"meta": {"views": [{}]}}, ()),
        ('value="$meta.views[²].url"', {"meta": {"views": [{}, {}, {"url": "/b.png"}]}}, ()),
        (f'value="$meta.views[{"9" * 5000}].url"', {"meta": {"views": [{}]}}, ()),
        ('value="$a.b"', {"a.b": "/dotted.png"}, ("/dotted.png",)),
        ('valueList="$pages"', {"pages": ["/1.png", "/2.png"]}, ("/1.png", "/2.png")),
        ('value="https://h/$id.png"', {"id.png": "7"}, ("https://h/7",)),
        ('value="https://h/constant.png"', {}, ("https://h/constant.png",)),
    ],
)
def test_where_an_image_is_found_in_a_task(tag: str, data: dict[str, Any], urls: tuple[str, ...]) -> None:
    assert view(f'<Image name="image" {tag}/>').image("image").urls(data) == urls


def test_value_keys() -> None:
    interface = view(
        '<Image name="a" value="$x.y[0]"/><Image name="b" valueList="$l"/><Image name="c" value="http://h"/>'
    )
    assert [(image.value_key, image.is_list) for image in interface.images] == [
        ("x.y[0]", False),
        ("l", True),
        ("", False),
    ]


def test_a_plain_rectangle_takes_its_labels_from_the_labels_beside_it() -> None:
    interface = view(
        IMAGE,
        '<Labels name="what" toName="image"><Label value="Cat" alias="c"/><Label value="Dog"/></Labels>',
        '<Rectangle name="r" toName="image"/><KeyPoint name="k" toName="image"/><TextArea name="t" toName="image"/>',
    )
    assert [interface.control(name).labels_from for name in ("what", "r", "k", "t")] == ["what", "what", "what", None]
    assert interface.control("r").classes == ("c", "Dog") == interface.labels
    assert view(IMAGE, '<Rectangle name="r" toName="image"/>').control("r").labels_from is None


def test_labels_from_the_task() -> None:
    control = view(IMAGE, '<RectangleLabels name="r" toName="image" value="$brands"/>').control("r")
    assert control.labels == () and control.labels_key == "brands" and control.labels_from == "r"
    assert view(IMAGE, '<RectangleLabels name="r" toName="image"/>').control("r").labels_key is None


def test_labels_nested_in_views_and_a_missing_to_name() -> None:
    interface = view(
        IMAGE, '<RectangleLabels name="r"><View><Header value="h"/><Label value="a"/></View><Label/></RectangleLabels>'
    )
    assert interface.control("r").classes == ("a",) and interface.control("r").to_name == ("image",)


@pytest.mark.parametrize(
    "xml",
    [
        "<View/>",
        '<View><Text name="t" value="$t"/><Labels name="l" toName="t"><Label value="a"/></Labels></View>',
        '<View><Video name="v" value="$v"/><VideoRectangle name="r" toName="v"/></View>',
        '<View><Audio name="a" value="$a"/><TextArea name="t" toName="a"/><Choices name="c" toName="a"/></View>',
    ],
)
def test_configurations_without_images(xml: str) -> None:
    interface = read(xml)
    assert interface.images == () and interface.controls == () and interface.labels == ()
    assert [advice.level for advice in problems(interface)] == ["missing"]


def test_choices_and_the_like_are_ignored() -> None:
    interface = view(
        IMAGE,
        '<Choices name="c" toName="image"><Choice value="day"/></Choices><Rating name="s" toName="image"/>',
        '<Relations><Relation value="of"/></Relations><RectangleLabels name="r" toName="image"/>',
    )
    assert names(interface.controls) == "r" and interface.warnings == ()


def test_an_unknown_tag_is_told_with_the_tags_there_are() -> None:
    interface = view(IMAGE, '<Rectangle name="r" toName="image"/><Brush name="b" toName="image"/>')
    with pytest.raises(UnknownTag, match=r'^The labelling configuration has no tag named "kp"; it has r, b\.$'):
        interface.control("kp")
    with pytest.raises(UnknownTag, match=r'has no image named "x"; it has image\.$'):
        interface.image("x")
    with pytest.raises(UnknownTag, match=r"it has no tag that Tator serves\.$"):
        Interface().control("kp")


@pytest.mark.parametrize(
    ("tags", "warning"),
    [
        ('<Rectangle name="image" toName="image"/>', 'The name "image" is given twice; only the first tag counts.'),
        ('<Rectangle toName="image"/>', "A <Rectangle> has no name and is passed over."),
        ('<Rectangle name="r" toName="img"/>', '"r" points to "img", which this configuration does not have.'),
        ('<Repeater on="$i"><Rectangle name="r_{{idx}}" toName="image"/></Repeater>', "Tags inside a <Repeater>"),
        (
            '<BrushLabels name="b" toName="image"><Label value="a"/><Label value="a"/></BrushLabels>',
            'The label "a" stands twice in "b".',
        ),
    ],
)
def test_what_is_odd_is_told_and_never_fatal(tags: str, warning: str) -> None:
    interface = view(IMAGE, tags)
    assert [told for told in interface.warnings if told.startswith(warning)]
    assert warning in "\n".join(advice.message for advice in problems(interface))


BOMB = '<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><View><Header value="&b;"/></View>'


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("", "is empty"),
        (" \n ", "is empty"),
        (None, "is empty"),
        ("<View", "not valid XML: see line 1, column"),
        ("<View>\n <Image></View>", "see line 2"),
        ("no XML", "not valid XML"),
        ("<View/><View/>", "not valid XML"),
        ("<View>&nbsp;</View>", "not valid XML"),
        ("<View>\x00</View>", "not valid XML"),
        ("<View>\ud800</View>", "characters that XML cannot hold"),
        (BOMB, "document type or entities"),
        ('<!DOCTYPE v SYSTEM "file:///etc/passwd"><View/>', "document type or entities"),
        ('<!DOCTYPE v [<!ENTITY x SYSTEM "http://127.0.0.1/">]><View>&x;</View>', "document type or entities"),
        (f"<View>{' ' * MAX_BYTES}</View>", "larger than 1 MB"),
        (f"<View>{'ä' * (MAX_BYTES // 2)}</View>", "larger than 1 MB"),
        ("<a>" * 100_000 + "</a>" * 100_000, "nested too deeply"),
    ],
)
def test_hostile_or_broken_text_is_refused_with_a_sentence(xml: Any, message: str) -> None:
    with pytest.raises(LabelConfigError) as caught:
        read(xml)
    assert message in str(caught.value) and str(caught.value).endswith(".")


@given(st.text(st.sampled_from(list('<>/&;"=!ViewImage name$x -[]?%')), max_size=60))
@settings(max_examples=100, deadline=None)
def test_no_text_makes_anything_but_an_interface_or_a_sentence(text: str) -> None:
    for xml in (text, f"<View>{text}</View>", f'<View><Image name="i" value="{text}"/></View>'):
        try:
            interface = read(xml)
        except LabelConfigError as error:
            assert str(error).endswith(".")
        else:
            assert problems(interface)


def test_reading_is_remembered_and_errors_are_not() -> None:
    xml = f'<View>{IMAGE}<Rectangle name="remembered" toName="image"/></View>'
    assert read_cached(xml) is read_cached(xml) and read_cached(xml) == read(xml)
    for _ in range(2):
        with pytest.raises(LabelConfigError):
            read_cached("<View")
    assert read_cached.cache_info().maxsize == 128


def test_model_oriented_of_a_tag_and_of_its_labels() -> None:
    written = (
        '<View><Image name="i" value="$u"/><RectangleLabels name="r" toName="i" model_oriented="True">'
        '<Label value="Ship"/><Label value="House" model_oriented="false"/><Label value="Odd" model_oriented="yes"/>'
        '</RectangleLabels><KeyPointLabels name="k" toName="i"><Label value="Ship"/></KeyPointLabels></View>'
    )
    interface = read(written)
    said = {name: interface.control("r").oriented_for(name) for name in ("Ship", "House", "Odd", None)}
    assert said == {"Ship": True, "House": False, "Odd": True, None: True}
    assert interface.control("k").oriented_for("Ship") is None
    assert any("Odd" in warning and "neither" in warning for warning in interface.warnings)
