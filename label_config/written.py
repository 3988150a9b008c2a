"""Values of attributes as people write them: switches, counts and shares, and the sentence where one cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def switch(written: str) -> bool | None:
    """``true`` or ``false`` in any case; None for anything else."""
    return {"true": True, "false": False}.get(written.strip().lower())


def count(written: str, most: int) -> int | None:
    """A whole number from 1 to the most; None for anything else.

    Example:
        >>> count(" 20 ", 50), count("51", 50), count("²", 50)
        (20, None, None)
    """
    digits = written.strip()
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 4 else 0
    return number if 1 <= number <= most else None


def share(written: str) -> float | None:
    """A number from 0 to 1; None for anything else."""
    try:
        number = float(written)
    except ValueError:
        return None
    return number if 0 <= number <= 1 else None


def unreadable_switch(where: str, options: Mapping[str, str], name: str) -> Iterator[str]:
    """A sentence where an option is given and is no switch; ``where`` names the tag."""
    written = options.get(name, "")
    if written.strip() and switch(written) is None:
        yield f'{where} has model_{name}="{written}", which is neither true nor false.'


def unreadable_count(where: str, options: Mapping[str, str], name: str, most: int) -> Iterator[str]:
    """A sentence where an option is given and is no number from 1 to the most; ``where`` names the tag."""
    written = options.get(name, "")
    if written.strip() and count(written, most) is None:
        yield f'{where} has model_{name}="{written}", which is no number from 1 to {most}.'
