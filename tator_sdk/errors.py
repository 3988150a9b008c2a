"""Errors whose text is meant for a person."""

from __future__ import annotations


class TatorError(Exception):
    """Something a person can act on: the message is one sentence that says what to do."""
