"""A model's name for a class finds the label, and never one it does not mean."""

from __future__ import annotations

import pytest

from label_config.errors import UnknownTag
from label_config.names import same_name
from label_config.reader import Interface, read

XML = """<View><Image name="i" value="$i"/>
<RectangleLabels name="r" toName="i">
  <Label value="Vehicle" predicted_values="car,truck, Pickup"/>
  <Label value="car"/>
  <Label value="Person"/>
  <Label value="Traffic light"/>
  <Label value="Berry"/><Label value="Box"/><Label value="Glass"/><Label value="Houses"/>
  <Label value="Shown" alias="short"/>
  <Label value="Bus"/>
  <Label value="Tweak" model_assist="tweak"/>
</RectangleLabels>
<BrushLabels name="b" toName="i"><Label value="Person"/></BrushLabels></View>"""


@pytest.fixture(scope="module")
def interface() -> Interface:
    return read(XML)


@pytest.mark.parametrize(
    ("model_label", "label"),
    [
        ("truck", "Vehicle"),
        ("car", "Vehicle"),  # predicted_values come before the label of that name
        ("Car", "Vehicle"),
        ("pickup", "Vehicle"),
        ("pickups", "Vehicle"),
        ("Person", "Person"),
        ("PERSON", "Person"),
        (" person ", "Person"),
        ("persons", "Person"),
        ("traffic_light", "Traffic light"),
        ("traffic-lights", "Traffic light"),
        ("berries", "Berry"),
        ("boxes", "Box"),
        ("glasses", "Glass"),
        ("house", "Houses"),
        ("buses", "Bus"),
        ("bus", "Bus"),
        ("short", "short"),
        ("shown", "short"),
        ("per", None),
        ("people", None),
        ("", None),
        ("s", None),
        ("Tweak", None),
    ],
)
def test_find_label(interface: Interface, model_label: str, label: str | None) -> None:
    assert interface.find_label("r", model_label) == label
    assert interface.find_label(interface.control("r"), model_label) == label


def test_labels_are_those_of_the_control(interface: Interface) -> None:
    assert interface.find_label("b", "person") == "Person"
    assert interface.find_label("b", "truck") is None
    with pytest.raises(UnknownTag):
        interface.find_label("nothing", "person")


def test_an_exact_name_wins_over_a_folded_one() -> None:
    found = read(
        '<View><Image name="i" value="$i"/><Rectangle name="r"/><RectangleLabels name="l" toName="i">'
        '<Label value="CAR"/><Label value="car"/><Label value="cars"/></RectangleLabels></View>'
    )
    assert [found.find_label("l", name) for name in ("car", "CAR", "Car", "cars", "CARS")] == [
        "car",
        "CAR",
        "CAR",
        "cars",
        "cars",
    ]


@pytest.mark.parametrize(
    ("one", "other"), [("glass", "glas"), ("gas", "ga"), ("bus", "bu"), ("basis", "basi"), ("cat", "car"), ("", "")]
)
def test_names_that_only_look_alike(one: str, other: str) -> None:
    assert not same_name(one, other, "plural")
