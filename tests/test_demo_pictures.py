"""A person's own pictures in the demo: all of them, under names of their own."""

from __future__ import annotations

from pathlib import Path

from demo.pictures import copy_own


def test_two_pictures_whose_names_would_be_one_are_two(tmp_path: Path) -> None:
    source = tmp_path / "own"
    for number, name in enumerate(("a/b.png", "a-b.png", "c.jpg", "._c.jpg", "notes.txt")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(str(number))
    assert list(copy_own(source, tmp_path / "served")) == [1, 2, 3]
    assert list(copy_own(source, tmp_path / "served")) == [1, 2, 3], "again changes nothing"
    served = {path.name: path.read_text() for path in (tmp_path / "served").iterdir()}
    assert set(served) == {"a-b.png", "a-b-2.png", "c.jpg"} and sorted(served.values()) == ["0", "1", "2"]
