"""Conversations → tensors: what the model sees is what it sees in service, and only its answer counts.

The question is built by the processor exactly as for a prompt, and the answer's tokens are appended to its ids. So the
picture is resized once, by the processor itself, and the targets are written in the frame that its grid of patches
says: there is no second formula for the resize that could differ from the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from tator_ml.vlm.coordinates import Coordinates, input_wh
from tator_ml.vlm.model import capped
from tator_ml.vlm.parsing import Detected, answer
from tator_ml.vlm.prompts import Composed, messages
from training.qwen.conversations import Conversation

IGNORED = -100
"""The label of a token that does not count (torch's own ``ignore_index``)."""

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Encoder:
    """Turns conversations into a model's input.

    Attributes:
        processor: of the model.
        coordinates: how the model writes places.
        longest: side that pictures are reduced to before the processor sees them, pixels.
    """

    processor: Any
    coordinates: Coordinates
    longest: int

    @property
    def patch(self) -> int:
        """Side of a patch of the vision tower, pixels."""
        return int(self.processor.image_processor.patch_size)

    def picture(self, conversation: Conversation) -> Image.Image:
        """A conversation's picture, within the cap."""
        return capped(conversation.sample.read(), self.longest)

    def question(self, asked: Composed) -> str:
        """The text of a prompt up to where the answer begins."""
        text: str = self.processor.apply_chat_template(messages(asked), tokenize=False, add_generation_prompt=True)
        return text

    def target(self, conversation: Conversation, seen_wh: tuple[int, int]) -> str:
        """The answer, with places as the model writes them.

        Args:
            conversation: whose objects stand in pixels of the picture as it was labelled.
            seen_wh: what the processor resized it to, pixels.
        """
        size_wh = conversation.sample.size_wh
        written = [
            Detected(
                one.label,
                self.coordinates.from_picture(one.box, size_wh, seen_wh),
                self.coordinates.from_picture(one.point, size_wh, seen_wh),
            )
            for one in conversation.answer
        ]
        return answer(written, conversation.output)

    def encode(self, conversation: Conversation) -> Tensors:
        """One conversation as tensors, with ``labels`` that ignore all but the answer and its end.

        Returns:
            ``input_ids``, ``attention_mask``, ``labels`` and other rows for each token (L,), ``pixel_values``
            (patches, values), ``image_grid_thw`` (1, 3).
        """
        text = self.question(conversation.asked)
        encoded = self.processor(text=[text], images=[self.picture(conversation)], return_tensors="pt")
        said = self.target(conversation, input_wh(encoded["image_grid_thw"][0].tolist(), self.patch))
        said = said.replace("<|", "< |")  # no class's name becomes a token that ends the answer
        tokenizer = self.processor.tokenizer
        tokens = [*tokenizer(said, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        spoken = torch.tensor(tokens)
        rows: Tensors = {}
        for name, value in encoded.items():
            if name in WHOLE:
                rows[name] = value
            else:
                more = {"input_ids": spoken, "attention_mask": torch.ones_like(spoken)}
                rows[name] = torch.cat([value[0], more.get(name, torch.zeros_like(spoken))])
        rows["labels"] = torch.cat([torch.full_like(encoded["input_ids"][0], IGNORED), spoken])
        return rows


WHOLE = ("pixel_values", "image_grid_thw")
"""Tensors of pictures, which are joined; the others have a row for each token, and are padded."""


def collate(encoded: Sequence[Mapping[str, torch.Tensor]], pad: int) -> Tensors:
    """Several conversations as one batch, padded at their ends.

    Args:
        encoded: of :meth:`Encoder.encode`.
        pad: id of the token to pad with.
    """
    fill = {"input_ids": pad, "labels": IGNORED}
    return {
        name: torch.cat([one[name] for one in encoded])
        if name in WHOLE
        else torch.nn.utils.rnn.pad_sequence(
            [one[name] for one in encoded], batch_first=True, padding_value=fill.get(name, 0)
        )
        for name in encoded[0]
    }
