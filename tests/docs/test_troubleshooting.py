"""The table of messages is true: each stands in the source, and what says no mend of its own stands in the table."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.commands import ROOT

PACKAGES = ("label_config", "tator_sdk", "tator_ml", "training")
PAGE = ROOT / "docs" / "troubleshooting.md"
MENDS = re.compile(
    r"[;:?] |`|TATOR_|_MODEL_ID| --|\b(?:try|ask|draw|click|paint|add|choose|give|name|label|type|set|use|send|start) "
)
"""What a sentence has that says what to do, or why."""

WHERE_MESSAGES_ARE_PARTS = {
    "tator_sdk/annotations.py": "reports count regions that cannot be read",
    "tator_sdk/shapes.py": "exports list them",
    "tator_ml/quality/overlap.py": "such suggestions are left out of figures",
    "tator_ml/prompts/standing.py": "such boxes are left as they are",
    "tator_ml/engine/store.py": "the log says it, and the picture is encoded anew",
    "tator_ml/engine/questions.py": "what took its place is answered",
    "tator_ml/engine/finding.py": "the API's callers get it; nobody types such a question",
    "tator_ml/launch.py": "no command and no form asks for it",
    "training/prelabel/look.py": "the report lists the task",
    "training/tweak/look.py": "the report lists the task",
    "tator_ml/web/dashboard/data/importing.py": "stands beside the form's field",
    "tator_ml/web/dashboard/team.py": "stands beside the form's field",
    "tator_sdk/looking.py": "stands where the pictures would be",
    "tator_sdk/packages.py": "only a made-up address leads there",
    "tator_ml/projects.py": "stands beside the form's field",
}
"""Files whose bare sentences nobody meets alone, and why."""

ENOUGH = {
    "This request belongs to no project, so there is nothing to forget.",
    "The head … is not known to this process.",
    "The head … is not loaded.",
    "A verdict needs … probabilities, not ….",
    "… takes crops of … uint8, not … ….",
    "… cannot be read (…).",
    "… is no job of Tator's, so it was not called.",
}
"""Sentences between Tator's own parts, or lines of a report."""


@functools.cache
def trees() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text())) for one in PACKAGES for path in sorted((ROOT / one).rglob("*.py"))]


def spoken(node: ast.expr) -> str | None:
    """The words of a string, with … for each value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


def name_of(node: ast.expr) -> str:
    """The last name of ``a.b.C``."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@functools.cache
def everything_said() -> list[str]:
    """All strings of the source and the pages' templates."""
    said = [
        words
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.expr) and (words := spoken(node))
    ]
    said = [re.sub(r"\[/?[a-z ]*\]", "", words) for words in said]  # rich's colours
    return [*said, *(path.read_text() for path in (ROOT / "tator_ml" / "web").rglob("*.html"))]


def errors() -> Iterator[tuple[str, str]]:
    """File and sentence of everything that is raised with a sentence of its own."""
    kinds = {"TatorError"}
    classes = [node for _, tree in trees() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for _ in range(5):  # as deep as they inherit
        kinds |= {one.name for one in classes if kinds & {name_of(base) for base in one.bases}}
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and name_of(node.func) in kinds:
                for argument in node.args:
                    if words := spoken(argument):
                        yield str(path.relative_to(ROOT)), words
                        break


def told() -> list[str]:
    """The messages of the table: several in a cell are parted by a slash."""
    cells = re.findall(r"^\| (?!message \|)(.+?) \| .+ \|$", PAGE.read_text(), re.M)
    return [message for cell in cells for message in cell.replace(" (in the log)", "").split(" / ")]


def pattern(message: str) -> str:
    """Of a message; between two words where … stands, anything may come."""
    return r".{0,80}?".join(re.escape(part.strip()) for part in message.split("…") if part.strip())


@pytest.mark.parametrize("message", told())
def test_a_message_of_the_table_is_one_that_tator_gives(message: str) -> None:
    assert len(message.replace("…", "").strip()) > 5, "too little to be known by"
    longest = max(message.split("…"), key=len).strip()
    assert any(re.search(pattern(message), line) for line in everything_said() if longest in line), message


def test_what_says_no_mend_is_in_the_table() -> None:
    known = [re.compile(pattern(one)) for one in told()]
    bare = [
        f"{path}: {words}"
        for path, words in errors()
        if path not in WHERE_MESSAGES_ARE_PARTS and words not in ENOUGH
        if not MENDS.search(words) and not any(one.search(words) for one in known)
    ]
    assert not bare, "\n".join(bare)


def test_what_this_test_would_find() -> None:
    assert len(list(errors())) > 300
    assert not MENDS.search("The picture is damaged.") and MENDS.search("It is busy; try again in a moment.")
