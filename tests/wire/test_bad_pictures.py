"""Bad pictures: damaged, too large, slow, elsewhere, or of odd kinds; the annotator gets one sentence."""

from __future__ import annotations

import base64
import functools
import io

import numpy as np
import pytest
from PIL import Image

from tests.wire.conftest import TRUTH, Body, PictureServer, Running, answers, fails, near, prompt, save, scene_bytes


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


def test_data_url_pictures(standing: Running, click: Body) -> None:
    click["tasks"][0]["data"]["image"] = "data:image/png;base64," + base64.b64encode(scene_bytes()).decode()
    assert near(answers(standing, click)["value"], TRUTH)
    click["tasks"][0]["data"]["image"] = "data:image/png;base64,%%%"
    fails(standing, click, "damaged")
