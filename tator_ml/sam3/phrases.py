"""Phrases → what the detector takes of them, each computed once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

TOKENS = 32
"""The text encoder's context; longer phrases are cut, where upstream's processor would hand on too many."""
KEPT = 1024
"""Phrases whose features stay on the device: 32 kB each."""

Features = tuple[Tensor, Tensor]
"""(B, 32, C) float32 features, and (B, 32) whether there is a token."""


class Phrases:
    """The text side of a ``Sam3Model``; threads may share it."""

    def __init__(self, detector: Any, tokenizer: Any, kept: int = KEPT) -> None:
        """Prepare.

        Args:
            detector: ``Sam3Model`` in evaluation mode.
            tokenizer: its own.
            kept: how many phrases are remembered; those asked for longest ago are forgotten.
        """
        self._detector = detector
        self._tokenizer = tokenizer
        self._kept = kept
        self._known: OrderedDict[str, Features] = OrderedDict()
        self._lock = threading.Lock()

    def features(self, phrases: Sequence[str]) -> Features:
        """Features of phrases in their order; those not known yet go through the text encoder together."""
        found: dict[str, Features] = {}
        with self._lock:
            for phrase in phrases:
                if phrase in self._known:
                    self._known.move_to_end(phrase)
                    found[phrase] = self._known[phrase]
        new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in found]
        if new:
            found |= self._encoded(new)
            with self._lock:
                self._known.update((phrase, found[phrase]) for phrase in new)
                while len(self._known) > self._kept:
                    self._known.popitem(last=False)
        parts = [found[phrase] for phrase in phrases]
        return torch.cat([one for one, _ in parts]), torch.cat([mask for _, mask in parts])

    @torch.no_grad()
    def _encoded(self, phrases: list[str]) -> dict[str, Features]:
        tokens = self._tokenizer(
            phrases, return_tensors="pt", padding="max_length", max_length=TOKENS, truncation=True
        ).to(self._detector.device)
        made = self._detector.get_text_features(tokens.input_ids, tokens.attention_mask, return_dict=True)
        return {
            phrase: (made.pooler_output[row : row + 1].clone(), tokens.attention_mask[row : row + 1].clone())
            for row, phrase in enumerate(phrases)
        }
