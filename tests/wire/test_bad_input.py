"""Bad input: the annotator gets one sentence, nothing is lost, and the process lives on."""

from __future__ import annotations

import base64
import functools
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.wire.conftest import PictureServer, Running, scene_bytes, serving, serving_pictures, settings_at
from tests.wire.test_captured import INSIDE, TRUTH, near

Body = dict[str, Any]


@pytest.fixture
def click(payload: Any) -> Body:
    """A request with one point inside the bright rectangle, answered with a box."""
    body: Body = payload("predict_interactive_keypoint_ui")["body"]
    body["label_config"] = body["label_config"].replace('name="kp"', 'name="kp" model_output="box"')
    body["params"]["context"]["result"][0]["value"].update(INSIDE)
    body["tasks"][0]["data"]["image"] = "/picture"
    return body


@pytest.fixture
def box(payload: Any) -> Body:
    """A request with one loose box around the bright rectangle."""
    body: Body = payload("predict_interactive_rectangle_ui")["body"]
    body["params"]["context"]["result"][0]["value"].update(x=28.0, y=23.0, width=24.0, height=34.0)
    body["tasks"][0]["data"]["image"] = "/picture"
    return body


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for all tests that turn nothing of it, with the ordinary picture, and that no box of another disturbs."""
    with serving_pictures() as pictures, serving(settings_at(tmp_path_factory.mktemp("wire"), pictures)) as made:
        yield made


@pytest.fixture
def standing(application: Running) -> Running:
    """The same, with nothing that went wrong before."""
    application.services.notices.answered(1, "", None)
    assert application.error() is None
    return application


def prompt(body: Body) -> Body:
    item: Body = body["params"]["context"]["result"][-1]
    return item


def fails(running: Running, body: Body, words: str) -> list[Body]:
    """The request is answered, the strip says the sentence, and the next click works again."""
    (result,) = running.predict(body)
    said = running.error()
    assert said is not None and words in said, said
    assert "\n" not in said and "Traceback" not in said
    assert running.client.get("/health").status_code == 200
    regions: list[Body] = result["result"]
    return regions


def answers(running: Running, body: Body) -> Body:
    (result,) = running.predict(body)
    assert running.error() is None, running.error()
    (region,) = result["result"]
    return region  # type: ignore[no-any-return]


def test_unknown_tag(standing: Running, click: Body) -> None:
    prompt(click)["from_name"] = "nowhere"
    assert fails(standing, click, '"nowhere"') == []


def test_unknown_label_keeps_the_drawn_box(standing: Running, box: Body) -> None:
    prompt(box)["value"]["rectanglelabels"] = ["Spoon"]
    (region,) = fails(standing, box, "'Spoon'")
    assert region["id"] == prompt(box)["id"] and region["value"]["x"] == 28.0


def test_unknown_image(standing: Running, click: Body) -> None:
    prompt(click)["to_name"] = "other"
    fails(standing, click, '"other"')


def test_empty_result_and_no_context(standing: Running, click: Body) -> None:
    click["params"]["context"]["result"] = []
    assert standing.predict(click)[0]["result"] == [] and standing.error() is None
    click["params"] = {}
    assert standing.predict(click) == [[]]


def test_missing_image(standing: Running, click: Body) -> None:
    click["tasks"][0]["data"] = {}
    fails(standing, click, "no picture")
    click["tasks"][0]["data"] = None
    fails(standing, click, "no picture")


@pytest.mark.parametrize(
    ("status", "words"), [(404, "not there any more"), (401, "refuses"), (403, "refuses"), (500, "answers 500")]
)
def test_refusing_image_server(
    running: Running, click: Body, box: Body, pictures: PictureServer, status: int, words: str
) -> None:
    pictures.answers["/picture"] = (status, b"")
    assert fails(running, click, words) == []
    (region,) = fails(running, box, words)
    assert region["id"] == prompt(box)["id"], "a drawn box is not lost with auto-accept"


def test_slow_image_server(running: Running, click: Body, pictures: PictureServer) -> None:
    pictures.slow.add("/picture")
    fails(running, click, "within 1 s")


def test_image_server_away(running: Running, click: Body) -> None:
    click["tasks"][0]["data"]["image"] = "http://127.0.0.1:9/x.png"
    fails(running, click, "not allowed")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("file:///etc/passwd", "Reading file:///etc/passwd is not allowed; add its folder to TATOR_IMAGE_ROOTS."),
        ("http://169.254.169.254/latest", "from 169.254.169.254 are not allowed; add it to TATOR_IMAGE_HOSTS."),
        ("ftp://x/y", "Pictures from x are not allowed"),
        ("gopher://x", "Pictures from x are not allowed"),
    ],
)
def test_addresses_that_are_not_allowed(
    running: Running, click: Body, pictures: PictureServer, address: str, words: str
) -> None:
    click["tasks"][0]["data"]["image"] = address
    assert fails(running, click, words) == [] and not pictures.asked


def test_a_path_that_climbs_stays_on_label_studio(running: Running, click: Body, pictures: PictureServer) -> None:
    pictures.answers["/etc/passwd"] = (404, b"")
    click["tasks"][0]["data"]["image"] = "/../../etc/passwd"
    assert fails(running, click, "The picture is not there any more (404 from 127.0.0.1") == []
    assert [path for path, _ in pictures.asked] == ["/etc/passwd"]


def test_redirect_elsewhere_is_not_followed(running: Running, click: Body, pictures: PictureServer) -> None:
    pictures.answers["/picture"] = (302, b"http://169.254.169.254/secret.png")
    fails(running, click, "not allowed")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"this is no picture", "not a picture"),
        (scene_bytes("JPEG")[:3000], "damaged"),
        (scene_bytes("PNG")[:400], "damaged"),
    ],
)
def test_damaged_pictures(running: Running, click: Body, pictures: PictureServer, data: bytes, words: str) -> None:
    pictures.answers["/picture"] = (200, data)
    fails(running, click, words)
    pictures.answers["/picture"] = (200, scene_bytes())
    assert near(answers(running, click)["value"], TRUTH), "mended on the server, it works without a restart"


def test_a_transfer_that_is_cut(running: Running, click: Body, pictures: PictureServer) -> None:
    pictures.lengths["/picture"] = 10**6
    fails(running, click, "broke off")


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def ordinary() -> Image.Image:
    return Image.open(io.BytesIO(scene_bytes()))


@functools.cache
def odd_pictures() -> dict[str, bytes]:
    plain = ordinary()
    grey = np.asarray(plain.convert("L")).astype(np.uint16) * 257
    see_through = plain.convert("RGBA")
    return {
        "sixteen-bit": save(Image.fromarray(grey), "PNG"),
        "cmyk": save(plain.convert("CMYK"), "JPEG", quality=95),
        "palette": save(plain.convert("P"), "PNG"),
        "palette-transparent": save(plain.convert("P"), "GIF", transparency=255),
        "transparent": save(see_through, "PNG"),
        "grey": save(plain.convert("L"), "PNG"),
        "one-bit": save(plain.convert("1", dither=Image.Dither.NONE), "PNG"),
        "webp": save(plain, "WEBP", lossless=True),
        "bmp": save(plain, "BMP"),
        "tiff": save(plain, "TIFF"),
        "progressive": save(plain, "JPEG", quality=95, progressive=True),
    }


@pytest.mark.parametrize("kind", sorted(odd_pictures()))
def test_odd_kinds_of_pictures(running: Running, click: Body, pictures: PictureServer, kind: str) -> None:
    pictures.answers["/picture"] = (200, odd_pictures()[kind])
    assert near(answers(running, click)["value"], TRUTH)


def test_transparency_goes_onto_white(running: Running, click: Body, pictures: PictureServer) -> None:
    pixels = np.full((480, 640, 4), (20, 20, 20, 255), np.uint8)
    pixels[120:264, 192:320] = (0, 0, 0, 0)  # see-through: white in the browser, though its colour is black
    pictures.answers["/picture"] = (200, save(Image.fromarray(pixels), "PNG"))
    assert near(answers(running, click)["value"], TRUTH)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_click_in_a_turned_picture_hits_what_the_annotator_saw(
    running: Running, click: Body, pictures: PictureServer, orientation: int
) -> None:
    """The file's pixels are turned so that, with its EXIF tag applied, the ordinary scene appears."""
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    turned = ordinary() if undo is None else ordinary().transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pictures.answers["/picture"] = (200, save(turned, "JPEG", quality=95, exif=exif))
    region = answers(running, click)
    assert near(region["value"], TRUTH, slack=0.5)
    assert (region["original_width"], region["original_height"]) == (640, 480)


def test_picture_above_the_pixel_limit(running: Running, click: Body, pictures: PictureServer) -> None:
    bomb = save(Image.new("1", (20_000, 20_000)), "PNG")
    pictures.answers["/picture"] = (200, bomb)
    fails(running, click, "pixels")


def test_file_above_the_byte_limit(running: Running, click: Body, pictures: PictureServer) -> None:
    pictures.answers["/picture"] = (200, b"\x89PNG" + b"0" * (running.services.settings.image_max_bytes + 1))
    fails(running, click, "larger than")


@pytest.mark.parametrize(("x", "y"), [(0, 0), (100, 100), (100.4, 50), (-0.5, 20)])
def test_points_on_the_border_are_taken(standing: Running, click: Body, x: float, y: float) -> None:
    prompt(click)["value"].update(x=x, y=y)
    standing.predict(click)
    assert "Nothing was found" in (standing.error() or ""), "the border of this scene is dark"


@pytest.mark.parametrize(("x", "y"), [(150, 50), (-20, 50), (50, 1e9)])
def test_points_outside(standing: Running, click: Body, x: float, y: float) -> None:
    prompt(click)["value"].update(x=x, y=y)
    fails(standing, click, "outside the picture")


@pytest.mark.parametrize("x", ["left", None, [1], {}])
def test_points_that_are_no_numbers(standing: Running, click: Body, x: object) -> None:
    prompt(click)["value"]["x"] = x
    fails(standing, click, "no usable 'x'")


def test_points_that_are_not_finite(standing: Running, click: Body) -> None:
    prompt(click)["value"]["x"] = math.inf
    fails(standing, click, "not a finite number")


def test_only_negative_points(standing: Running, click: Body) -> None:
    prompt(click)["is_positive"] = False
    fails(standing, click, "negative")


def test_prompt_without_coordinates(standing: Running, click: Body) -> None:
    prompt(click)["value"] = None
    fails(standing, click, "no coordinates")


@pytest.mark.parametrize("size", [{"width": 0}, {"height": 0}, {"width": 0, "height": 0}])
def test_boxes_without_area(standing: Running, box: Body, size: Body) -> None:
    prompt(box)["value"].update(size)
    fails(standing, box, "no area")


def test_inverted_box_is_put_in_order(running: Running, box: Body) -> None:
    prompt(box)["value"].update(x=52.0, y=57.0, width=-24.0, height=-34.0)
    assert near(answers(running, box)["value"], TRUTH)


def test_box_partly_outside(running: Running, box: Body, pictures: PictureServer) -> None:
    pixels = np.full((480, 640, 3), 20, np.uint8)
    pixels[120:264, 0:128] = 230
    pictures.answers["/picture"] = (200, save(Image.fromarray(pixels), "PNG"))
    prompt(box)["value"].update(x=-4.0, y=23.0, width=26.0, height=34.0)
    assert near(answers(running, box)["value"], {"x": 0, "y": 25, "width": 20, "height": 30})


def test_box_smaller_than_a_pixel_comes_back(running: Running, box: Body) -> None:
    prompt(box)["value"].update(x=40.0, y=40.0, width=0.01, height=0.01)
    region = answers(running, box)
    assert region["value"]["width"] == 0.01


def test_rotated_rectangle_keeps_its_turn(running: Running, box: Body, pictures: PictureServer) -> None:
    import cv2

    pixels = np.full((480, 640, 3), 20, np.uint8)
    corners = cv2.boxPoints(((320.0, 240.0), (200.0, 80.0), 30.0)).astype(np.int32)
    cv2.fillPoly(pixels, [corners], (230, 230, 230))
    pictures.answers["/picture"] = (200, save(Image.fromarray(pixels), "PNG"))
    along, down = np.array([math.cos(math.radians(30)), 0.5]), np.array([-0.5, math.cos(math.radians(30))])
    x, y = np.array([320, 240]) - 110 * along - 48 * down
    prompt(box)["value"].update(
        x=100 * x / 640, y=100 * y / 480, width=100 * 220 / 640, height=100 * 96 / 480, rotation=30
    )
    value = answers(running, box)["value"]
    assert abs(value["rotation"] - 30) < 2
    assert abs(value["width"] * 6.4 - 200) < 4 and abs(value["height"] * 4.8 - 80) < 4


@pytest.mark.parametrize("body", [b"{", b"", b"[1, 2]", b"null", b'"text"', b"\xff\xfe", b"{'a': 1}"])
def test_malformed_json(standing: Running, body: bytes) -> None:
    for path in ("/predict", "/setup", "/webhook"):
        answer = standing.client.post(path, data=body, content_type="application/json")
        assert answer.status_code == 400 and "JSON" in answer.json["error"]


@pytest.mark.parametrize("tasks", [None, "x", 5, [1, 2], {}])
def test_tasks_that_are_none(standing: Running, tasks: object) -> None:
    answer = standing.client.post("/predict", json={"tasks": tasks})
    assert answer.status_code == 400 and "tasks" in answer.json["error"]


@pytest.mark.parametrize("project", [None, "", "abc", "1.2.3", -4, {"id": 1}, "9" * 40])
def test_wrong_project_value(standing: Running, click: Body, project: object) -> None:
    click["project"] = project
    (result,) = standing.predict(click)
    assert near(result["result"][0]["value"], TRUTH), "the picture and the configuration are in the request"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("", "configuration is empty"),
        ("<View>", "not valid XML: see line 1, column 7"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><View>&a;</View>", "which Tator refuses to read"),
        ("no xml", "not valid XML: see line 1, column 1"),
    ],
)
def test_wrong_configuration(standing: Running, click: Body, config: str, words: str) -> None:
    click["label_config"] = config
    assert fails(standing, click, words) == []


def test_configuration_without_a_tag_for_answers(standing: Running, click: Body) -> None:
    click["label_config"] = (
        '<View><Image name="image" value="$image"/><KeyPointLabels name="kp" toName="image">'
        '<Label value="Ball"/></KeyPointLabels></View>'
    )
    fails(standing, click, "<RectangleLabels>")


def test_one_of_two_tasks_fails(running: Running, click: Body, pictures: PictureServer) -> None:
    pictures.answers["/gone"] = (404, b"")
    good, bad = click["tasks"][0], {**click["tasks"][0], "id": 99, "data": {"image": "/gone"}}
    click["tasks"] = [bad, good]
    first, second = running.predict(click)
    assert first["result"] == [] and near(second["result"][0]["value"], TRUTH)


def test_surprise_inside_is_one_sentence(running: Running, click: Body, monkeypatch: Any) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail /root/x")

    monkeypatch.setattr(running.segmenter, "decode", explode)
    fails(running, click, "unexpected error")
    assert "secret" not in (running.error() or "")


def test_stroke_of_another_size_and_empty_stroke(standing: Running, click: Body) -> None:
    from tator_sdk.regions import encode_rle

    item = prompt(click)
    item.update(from_name="brush", type="brushlabels")
    item["value"] = {"format": "rle", "rle": encode_rle(np.zeros((480, 640), bool)), "brushlabels": ["Ball"]}
    fails(standing, click, "empty")
    item["value"]["rle"] = encode_rle(np.ones((10, 10), bool))
    fails(standing, click, "another size")
    item["value"]["rle"] = [1, 2, "x"]
    fails(standing, click, "could not be read")
    stroke = np.zeros((480, 640), bool)
    stroke[180:200, 210:300] = True
    item["value"]["rle"] = encode_rle(stroke)
    region = answers(standing, click)
    assert region["id"] == item["id"] and region["type"] == "brushlabels"


def test_data_url_pictures(standing: Running, click: Body) -> None:
    click["tasks"][0]["data"]["image"] = "data:image/png;base64," + base64.b64encode(scene_bytes()).decode()
    assert near(answers(standing, click)["value"], TRUTH)
    click["tasks"][0]["data"]["image"] = "data:image/png;base64,%%%"
    fails(standing, click, "damaged")
