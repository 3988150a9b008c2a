"""Pictures, requests and a job for the tests of training SAM 3."""

from __future__ import annotations

from training.sam3.tiny import Shape

SHAPE = Shape(side=56, patch=14, vision_hidden=32, hidden=32, queries=8)
WORDS = ("red car", "blue boat", "green tree")
