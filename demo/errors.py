"""What can go wrong with a private Label Studio, in a sentence for a person."""

from __future__ import annotations

from tator_sdk.errors import TatorError


class LabelStudioError(TatorError):
    """Label Studio could not be installed, started or logged in to; the message is for a person."""
