"""The documentation as data: its pages, their code blocks, and every command in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "first-hour.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "first-hour.md"),
)  # fmt: skip
"""In the order in which a newcomer reads."""

PROGRAMS = (
    "tator", "make", "python", "python3", "pip", ".venv/bin/", "/opt/tator/bin/", "accelerate", "hf", "label-studio",
    "docker", "kubectl", "systemctl", "journalctl", "ssh", "curl", "git", "sudo", "apt-get", "useradd", "install",
    "tar", "cp", "source", "export", "caddy", "nginx", "redis-cli",
)  # fmt: skip
"""What begins a command, after settings such as ``NAME=value``."""

_SETTINGS = re.compile(r"^(?:[A-Z][A-Z0-9_]*=\S* )+")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str


KINDS = frozenset({"export"})
"""Kinds of jobs that a shell has a command of the same name for."""


@dataclass(frozen=True)
class Command:
    """A command line as the page has it, without its comment.

    Attributes:
        page: name of the file.
        line: where it stands.
        text: to the letter.
        inline: whether it stands in a sentence.
    """

    page: str
    line: int
    text: str
    inline: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def blocks(page: Path) -> list[Block]:
    """Fenced blocks of a page, in order."""
    return [
        Block(page.name, token.map[0] + 1 if token.map else 0, token.info.strip(), token.content)
        for token in MarkdownIt("commonmark").parse(page.read_text())
        if token.type == "fence"
    ]


def commands(page: Path) -> list[Command]:
    """Commands of a page, in the order in which they stand."""
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text()):
        first = token.map[0] + 1 if token.map else 0
        if token.type == "fence" and token.info.strip() in {"", "sh", "bash", "shell", "console"}:
            for offset, text in enumerate(token.content.splitlines(), 1):
                if is_command(line := without_comment(text)):
                    found.append(Command(page.name, first + offset, line, inline=False))
        elif token.type == "inline":
            for child in token.children or ():
                text = " ".join(child.content.split())
                if child.type == "code_inline" and is_command(text) and text not in KINDS:
                    found.append(Command(page.name, first, text, inline=True))
    return found


def is_command(text: str) -> bool:
    """Whether a line begins with one of ``PROGRAMS``."""
    words = _SETTINGS.sub("", f"{text} ").strip()
    program = words.split(" ")[0]
    return any(program == one or (one[-1] == "/" and program.startswith(one)) for one in PROGRAMS)


def without_comment(text: str) -> str:
    """A line of a shell without the comment at its end."""
    return re.sub(r"(^|\s+)#\s.*$", "", text).strip()


def words(text: str) -> list[str]:
    """Words of a line as a shell sees them."""
    return shlex.split(text)


def every_command() -> Iterator[Command]:
    """All commands of all pages, in order."""
    for page in PAGES:
        yield from commands(page)
