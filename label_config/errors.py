"""What can be wrong with a labelling configuration, in a sentence for a person."""

from __future__ import annotations


class LabelConfigError(ValueError):
    """A configuration cannot be built or read; the message is one sentence for a person."""


class UnknownTag(LabelConfigError):
    """A request names a tag that the configuration does not have; the message lists those it has."""
