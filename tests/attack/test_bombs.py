"""What is small where it comes in and huge where it is read: archives, pictures, JSON, YAML, XML, patterns."""

from __future__ import annotations

import io
import json
import resource
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from label_config.errors import LabelConfigError
from label_config.reader import read as read_config
from tator_ml.vlm.parsing import parse
from tator_ml.web.body import read_predict
from tator_sdk.formats.archive import ArchiveLimits, unpack
from tator_sdk.formats.dataset import DatasetError
from tator_sdk.formats.names import find_names, read_yaml
from tator_sdk.formats.opening import open_dataset
from tator_sdk.images import ImageError, decode_image, image_size, thumbnail
from tator_sdk.shapes import shapes_of_result
from tests.dashboard.conftest import Site
from tests.fuzz.targets import CONFIG, INTERFACE

pytestmark = pytest.mark.attack  # together they take their time
SMALL = ArchiveLimits(entries=50, total_bytes=2**20, file_bytes=2**18, ratio=20.0, ratio_from_bytes=2**16)
SECONDS = 5.0
"""In which anything hostile must be done with, on a busy machine."""


def within(seconds: float, work: Callable[[], Any]) -> Any:
    began = time.monotonic()
    try:
        return work()
    finally:
        assert time.monotonic() - began < seconds


def zipped(path: Path, entries: dict[str, bytes], **how: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **how) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({f"{n}.txt": b"0" for n in range(60)}, "60 files"),
        ({"a.txt": b"0" * 2**21}, "more than the"),
        ({f"{n}.txt": b"\0" * 2**17 for n in range(4)}, "times its size"),
    ],
)
def test_archives_that_mean_to_fill_the_disk(tmp_path: Path, entries: dict[str, bytes], said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        unpack(zipped(tmp_path / "bomb.zip", entries), tmp_path / "out", SMALL)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bomb.zip"], "nothing is left of it"


def test_an_archive_that_lies_about_its_sizes(tmp_path: Path) -> None:
    """The directory says one byte; what comes is counted."""
    path = zipped(tmp_path / "liar.zip", {"a.txt": b"0" * 200_000, "b.txt": b"kept"})
    data = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        place = data.index(signature)
        data[place + at : place + at + 4] = struct.pack("<I", 1)
    path.write_bytes(bytes(data))
    unpacked = unpack(path, tmp_path / "out", SMALL)
    assert unpacked.files == 1 and [one.name for one in (tmp_path / "out").iterdir()] == ["b.txt"]
    assert "damaged" in unpacked.skipped[0].reason


def test_entries_that_overlap_and_archives_in_archives(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", {"a.txt": b"0" * 1000}).read_bytes()
    path = zipped(tmp_path / "outer.zip", {"inner.zip": inner, "set/a.txt": b"kept"})
    assert unpack(path, tmp_path / "out", SMALL).files == 1
    assert not list((tmp_path / "out").rglob("*.zip")), "what no data set needs is not even unpacked"
    # many directory entries for one and the same kernel of data (https://www.bamsoftware.com/hacks/zipbomb/)
    data = zipped(tmp_path / "one.zip", {"a0.txt": b"\0" * 60_000}).read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entries = b"".join(data[start:end].replace(b"a0.txt", f"a{n}.txt".encode()) for n in range(10))
    tail = bytearray(data[end:])
    tail[8:12], tail[12:16] = struct.pack("<HH", 10, 10), struct.pack("<I", len(entries))
    (tmp_path / "overlap.zip").write_bytes(data[:start] + entries + bytes(tail))
    with pytest.raises(DatasetError, match="times its size"):
        unpack(tmp_path / "overlap.zip", tmp_path / "out2", SMALL)


def link(name: str, mode: int) -> zipfile.ZipInfo:
    about = zipfile.ZipInfo(name)
    about.create_system = 3
    about.external_attr = mode << 16
    return about


def test_no_entry_leaves_the_folder(tmp_path: Path) -> None:
    """Absolute, upwards, drives, links, devices, pipes, reserved names, control characters, names twice."""
    path = tmp_path / "evil.zip"
    hostile = ("/etc/a.txt", "../a.txt", "x/../../a.txt", "C:\\a.txt", "C:a.txt", "..\\..\\a.txt", "\\\\host\\a.txt",
               "con.txt",
               "x/nul.txt", "x\x01/a.txt", "a.txt\x00.png", "...../a.txt/..", " ./a.txt", "A.TXT", "a.txt",
               "a.txt/b.txt", "s/" * 300 + "a.txt", "n" * 300 + ".txt")  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        for name in hostile:
            archive.writestr(zipfile.ZipInfo(name), b"evil")
        for kind, mode in (("link", 0o120777), ("pipe", 0o010644), ("device", 0o020644), ("socket", 0o140644)):
            archive.writestr(link(f"{kind}.txt", mode), b"/etc/passwd")
        archive.writestr(link("folder", 0o120777), b"/etc")
        archive.writestr("folder/b.txt", b"through the link")
    inside = tmp_path / "in" / "here"
    unpack(path, inside)
    for one in tmp_path.rglob("*"):
        assert one == path or one.is_relative_to(tmp_path / "in"), one
        assert not one.is_symlink() and (one.is_dir() or one.is_file())
    assert not Path("/etc/a.txt").exists() and not (tmp_path / "in" / "a.txt").exists()


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def saved(kind: str, size: tuple[int, int] = (64, 48), **how: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "grey").save(stream, kind, **how)
    return stream.getvalue()


def pictures() -> dict[str, bytes]:
    text = b"".join(
        struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
        for data in [b"k\0\0" + zlib.compress(b"\0" * 10**8)]
    )
    good = saved("PNG")
    exif = Image.Exif()
    exif[0x0112] = 65535
    frames = [Image.new("P", (32, 32), n % 255) for n in range(300)]
    return {
        "wide": png(2**31 - 1, 2**31 - 1), "tall": png(1, 2**30), "empty": png(0, 0), "short": png(9000, 9000),
        "text": good[:33] + text + good[33:],
        "profile": saved("PNG", icc_profile=b"\xff" * 10_000), "turned": saved("JPEG", exif=exif),
        "rubbish exif": saved("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 200),
        "animated": saved("GIF", save_all=True, append_images=frames),
        "cut": saved("JPEG", (2000, 2000))[:900], "tiff": saved("TIFF")[:60], "icon": b"\0\0\1\0" + b"\xff" * 90,
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99999 99999\n(/etc/passwd) (r) file\n",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "xbm": b"#define a_width 99999\n#define a_height 99999\n", "ppm": b"P6 99999999 99999999 255\n",
        "dds": b"DDS " + struct.pack("<I", 124) + b"\xff" * 120, "psd": b"8BPS\0\1" + b"\xff" * 40, "nothing": b"",
    }  # fmt: skip


@pytest.mark.parametrize("name", pictures())
def test_pictures_that_are_larger_than_they_look(name: str) -> None:
    data = pictures()[name]
    for read in (
        lambda: image_size(data, 10**8),
        lambda: decode_image(data, 10**6),
        lambda: thumbnail(data, 10**6, 64),
    ):
        try:
            within(SECONDS, read)
        except ImageError as refused:
            assert "\n" not in str(refused) and "Traceback" not in str(refused)


def test_postscript_is_no_picture() -> None:
    """Pillow would hand it to Ghostscript, which runs programs."""
    with pytest.raises(ImageError):
        decode_image(pictures()["eps"], 10**8)


def aliases(levels: int) -> str:
    grown = "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, levels))
    return f"a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n{grown}"


MERGED = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 10)}], k{n}: 1}}\n" for n in range(1, 9)
)
YAMLS = {
    "names": f"{aliases(9)}names: *a8\n", "entries": f"{aliases(9)}names: [A]\ntrain: *a8\n",
    "path": f"{aliases(9)}names: [A]\npath: *a8\n", "merged": f"{MERGED}names: [A]\n", "deep": "names: " + "[" * 3000,
    "itself": "names: &a [*a]\n", "object": "names: !!python/object/apply:os.system ['touch hit']\n",
    "module": "names: !!python/module:os\n", "large": "names: [A]\n# " + "x" * 17 * 2**20,
    "index": "names: {99999999999999999999: A}\n", "dates": "names: [2001-99-99]\n", "bytes": "\ud800names: [A]",
}  # fmt: skip


@pytest.mark.parametrize("name", YAMLS)
def test_yaml_that_grows(tmp_path: Path, name: str) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(YAMLS[name], "utf-8", "surrogatepass")
    try:
        found = within(SECONDS, lambda: read_yaml(path))
        assert len(repr(found)) < 10_000
    except DatasetError as refused:
        assert "data.yaml" in str(refused)


def test_a_few_aliases_are_nothing_bad(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("base: &names [Car, Bus]\nnames: *names\ntrain: images\n")
    assert read_yaml(tmp_path / "data.yaml").names == ("Car", "Bus")


def test_a_file_of_names_without_end(tmp_path: Path) -> None:
    with (tmp_path / "classes.txt").open("wb") as file:
        file.truncate(20 * 2**20)
    with pytest.raises(DatasetError, match="larger"):
        find_names(tmp_path)


DEEP = 200_000
BODIES = {
    "deep": b'{"tasks": ' + b"[" * DEEP + b"]" * DEEP + b"}", "deep object": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "number": b'{"tasks": [], "project": ' + b"9" * 2 * 10**6 + b"}", "key": b'{"' + b"a" * 10**7 + b'": 1}',
    "doubled": b'{"tasks": [' + b'{"id": 1},' * 500 + b'{"id": 1}]}', "nan": b'{"tasks": [NaN, Infinity, -Infinity]}',
    "surrogates": b'{"tasks": [{"data": {"image": "\\ud800"}}]}', "nul": b"\0" * 1000, "bom": b"\xef\xbb\xbf{}",
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_json_that_is_deep_or_long(site: Site, name: str) -> None:
    for where in ("/predict", "/webhook", "/setup", "/strip/choices?project=1"):
        answer = within(
            SECONDS, lambda where=where: site.client.post(where, data=BODIES[name], content_type="application/json")
        )
        assert answer.status_code in {200, 400, 413}, (where, answer.text[:200])
    answer = site.client.put("/tator/api/projects/1", data=BODIES[name], content_type="application/json")
    assert answer.status_code in {200, 400, 413}, answer.text[:200]


def test_a_body_beyond_the_limit_is_not_read(site: Site) -> None:
    answer = site.client.post("/predict", data=b" " * (65 * 2**20), content_type="application/json")
    assert answer.status_code == 413 and "Traceback" not in answer.text
    assert read_predict(b'{"tasks": []}')["tasks"] == []


def test_regions_that_are_deep_or_huge() -> None:
    points = [[1e308, 1e308]] * 100_000
    for value in ({"points": points, "polygonlabels": ["Car"]}, {"format": "rle", "rle": [255] * 10**5},
                  {"points": [[float("nan"), 1]] * 5}, {"format": "rle", "rle": [0, 0, 0, *[255] * 400]}):  # fmt: skip
        for width in (64, 10**9, 0, -5, float("inf")):
            row = {"id": "a", "from_name": "poly" if "points" in value else "brush", "to_name": "image",
                   "type": "polygonlabels" if "points" in value else "brushlabels", "value": value,
                   "original_width": width, "original_height": width}  # fmt: skip
            within(SECONDS, lambda row=row: shapes_of_result([row], INTERFACE))


ENTITIES = '<!DOCTYPE x [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
) + "]>"  # fmt: skip
XMLS = {
    "laughs": f"{ENTITIES}<View><Header value='&j;'/></View>",
    "file": "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><View><Header value='x'/>&e;</View>",
    "dtd": "<!DOCTYPE x SYSTEM 'http://127.0.0.1:9/x.dtd'><View/>",
    "parameter": "<!DOCTYPE x [<!ENTITY % p SYSTEM 'http://127.0.0.1:9/x'> %p;]><View/>",
    "include": "<View xmlns:xi='http://www.w3.org/2001/XInclude'><xi:include href='file:///etc/passwd'/></View>",
    "deep": "<View>" * 100_000, "wide": "<View>" + "<Label value='a'/>" * 200_000 + "</View>",
    "attributes": "<View " + " ".join(f"a{n}='1'" for n in range(100_000)) + "/>",
    "quadratic": f"<!DOCTYPE x [<!ENTITY a '{'x' * 50_000}'>]><View>{'&a;' * 1000}</View>",
    "instruction": "<?xml-stylesheet href='http://127.0.0.1:9/'?><View/>",
    "utf7": "<?xml version='1.0' encoding='UTF-7'?><View/>",
}  # fmt: skip


@pytest.mark.parametrize("name", XMLS)
def test_hostile_xml_in_configurations(site: Site, name: str) -> None:
    try:
        found = within(SECONDS, lambda: read_config(XMLS[name]))
        assert "root:" not in repr(found)
    except LabelConfigError as refused:
        assert "root:" not in str(refused) and len(str(refused)) < 1000
    body = {"tasks": [{"id": 1, "data": {"image": "/x"}}], "project": "1.1", "label_config": XMLS[name],
            "params": {"context": {"result": [{"from_name": "a", "type": "x"}]}}}  # fmt: skip
    answer = within(SECONDS, lambda: site.client.post("/predict", json=body))
    assert answer.status_code == 200 and "root:" not in answer.text + str(site.services.notices.get(1))


def test_a_configuration_with_thousands_of_labels_is_read_in_a_moment() -> None:
    labels = "".join(f'<Label value="class {n}" predicted_values="{"a," * 20}b"/>' for n in range(9_000))
    control = f'<RectangleLabels name="box" toName="image">{labels}</RectangleLabels>'
    config = f'<View><Image name="image" value="$image"/>{control}</View>'
    within(SECONDS, lambda: read_config(config))
    assert read_config(CONFIG).images


ANSWERS = (
    "[" * 50_000, '{"label": ' * 20_000, "```json\n" * 20_000, '[{"bbox_2d": [' + "1," * 100_000, 
    "(" * 10**5 + "1,2)" * 999,
    '"' * 100_000, "\\" * 100_001, '{"label": "' + "a" * 10**6, "<box>" * 50_000, "1 " * 200_000, " " * 500_000 + "x",
    '[{"bbox_2d": [1,2,3,4], "label": "' + "\\ud83d" * 50_000 + '"}]', "[{},{},{}" * 20_000, "-" * 300_000,
    "0." * 200_000,
)  # fmt: skip


@pytest.mark.parametrize("number", range(len(ANSWERS)))
def test_no_answer_of_a_model_takes_long_to_read(number: int) -> None:
    within(SECONDS, lambda: parse(ANSWERS[number]))


def coco_of_mask(counts: object) -> str:
    return json.dumps({"images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}],
                       "categories": [{"id": 1, "name": "Car"}],
                       "annotations": [{"id": 1, "image_id": 1, "category_id": 1,
                                        "segmentation": {"size": [6, 8], "counts": counts}}]})  # fmt: skip


COCOS = {
    # four times 2**62 is nothing in 64 bits, so that the rest seems to fill the picture
    "wrapped": coco_of_mask([2**62] * 4 + [48]), "wrapped floats": coco_of_mask([2.0**62] * 4 + [48]),
    "wrapped text": coco_of_mask(2 * ("P" * 12 + "4") + "`10`N0"),
    "infinite": coco_of_mask([float("inf")]),
    "deep": '{"images": ' + "[" * 100_000, "big": '{"images": [{"id": ' + "9" * 300_000 + "}]}",
    "rle": json.dumps({"images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}],
                       "categories": [{"id": 1, "name": "Car"}],
                       "annotations": [{"id": 1, "image_id": 1, "category_id": 1,
                                        "segmentation": {"size": [10**6, 10**6], "counts": [10**12]}}]}),
    "compressed": json.dumps({"images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}],
                              "categories": [{"id": 1, "name": "Car"}],
                              "annotations": [{"id": 1, "image_id": 1, "category_id": 1,
                                               "segmentation": {"size": [6, 8], "counts": "~" * 10**5}}]}),
    "strings": '{"images": [{"id": 1, "file_name": "' + "[" * 200 + '\\\\\\"[{.png"}]}',
    "ids": '{"categories": [{"id": [1], "name": "a"}, {"id": {}, "name": "b"}], "images": [{"id": [1]}]}',
    "sides": json.dumps({"categories": [{"id": 1, "name": "a"}],
                         "images": [{"id": 1, "file_name": "a", "width": 10**20}]}),
    "upwards": json.dumps({"images": [{"id": 1, "file_name": "../../../../etc/passwd", "width": 8, "height": 6}],
                           "categories": [{"id": 1, "name": "Car"}], "annotations": []}),
}  # fmt: skip


@pytest.mark.parametrize("name", COCOS)
def test_coco_files_that_grow_or_lead_away(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.png").write_bytes(saved("PNG", (8, 6)))
    path = zipped(tmp_path / "set.zip", {"a.png": saved("PNG", (8, 6)), "set.json": COCOS[name].encode()})

    def look() -> None:
        with closing(open_dataset(path, "coco")) as reader:
            for picture in reader.pictures():
                assert "passwd" not in str(picture.path)

    try:
        within(SECONDS, look)
    except DatasetError as refused:
        assert len(str(refused)) < 2000


@pytest.mark.parametrize("entry", ["../..", "/", "/etc", "../outside", "link", "..\\outside", "file:///etc", "~", "\0"])
def test_no_entry_of_a_data_yaml_leads_out_of_an_archive(tmp_path: Path, entry: str) -> None:
    outside = tmp_path / "outside" / "images"
    outside.mkdir(parents=True)
    (outside / "secret.png").write_bytes(saved("PNG", (8, 6)))
    about = json.dumps(
        {"path": entry, "train": entry, "val": "../outside/images", "test": str(outside), "names": ["Car"]}
    )
    lists = f"{outside}/secret.png\n../outside/images/secret.png\n"
    path = zipped(
        tmp_path / "set.zip",
        {"data.yaml": about.encode(), "images/a.png": saved("PNG", (8, 6)), "list.txt": lists.encode(),
         "classes.txt": b"Car\n"},
    )  # fmt: skip
    try:
        with closing(open_dataset(path)) as reader:
            assert all("secret" not in str(picture.path) for picture in reader.pictures())
    except DatasetError:
        pass


def test_what_was_refused_was_refused_within_little_memory(tmp_path: Path) -> None:
    """All pictures and metadata above once more, in a process that may have 1.5 GB."""
    code = (
        "from tests.attack import test_bombs as t; from pathlib import Path; import sys\n"
        "for name in t.pictures(): t.test_pictures_that_are_larger_than_they_look(name)\n"
        "for name in t.YAMLS: t.test_yaml_that_grows(Path(sys.argv[1]), name)\n"
    )
    limit = 1536 * 2**20
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        check=True,
        timeout=200,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )
