"""A loaded vision-language model: a picture and words in, the words it writes out.

Generation is transformers' own ``generate``. Between tokens, and between the layers of the network, whatever waits in
better lanes goes first: on a CPU a question takes a minute, and a click must not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from transformers import StoppingCriteria, StoppingCriteriaList

from tator_ml.engine.detections import Ended
from tator_ml.vlm.coordinates import Coordinates, coordinates_of, input_wh
from tator_ml.vlm.prompts import Composed, messages
from tator_sdk.errors import TatorError

MOST_ASPECT = 200
"""Of a picture's sides; the processors of the family refuse more."""


class VlmError(TatorError):
    """A model cannot be loaded, or cannot be asked this; the message is one sentence for a person."""


@dataclass(frozen=True)
class Question:
    """What a model is given, ready on the CPU.

    Attributes:
        inputs: of the processor, batch of one.
        input_wh: width and height in pixels of what the model sees.
    """

    inputs: Any
    input_wh: tuple[int, int]


@dataclass(frozen=True)
class Generated:
    """What a model wrote.

    Attributes:
        text: without special tokens.
        tokens: that were written, the one that ends an answer included.
        ended: why it ended.
        input_wh: width and height in pixels of what the model saw; coordinates may be pixels of it.
        seconds: it took, with whatever went first meanwhile.
    """

    text: str
    tokens: int
    ended: Ended
    input_wh: tuple[int, int]
    seconds: float


class _Stopped(VlmError):
    """Nobody waits for the answer any more, or the time was up before its first token."""


class _Writing(StoppingCriteria):
    """One generation: what it has written, and whether it is to go on."""

    def __init__(
        self, prompt_tokens: int, pause: Callable[[], None], stop: Callable[[], bool], until: float, progress: Any
    ) -> None:
        self.ids: torch.Tensor | None = None
        self.ended: Ended | None = None
        self._prompt_tokens = prompt_tokens
        self._pause = pause
        self._stop = stop
        self._until = until
        self._progress = progress

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """After each token."""
        self.ids = input_ids
        self._progress(input_ids.shape[1] - self._prompt_tokens)
        self._pause()
        if self._stop():
            self.ended = "cancelled"
        elif time.monotonic() >= self._until:
            self.ended = "time"
        return torch.full((len(input_ids),), self.ended is not None, device=input_ids.device)

    def between_layers(self) -> None:
        """Before each layer; ends the pass where what it computes is for nobody."""
        self._pause()
        if self._stop():
            self.ended = "cancelled"
        elif self.ids is None and time.monotonic() >= self._until:
            self.ended = "time"
        else:
            return
        raise _Stopped

    def written(self) -> torch.Tensor:
        """Ids of the tokens that were written."""
        return torch.zeros(0, dtype=torch.long) if self.ids is None else self.ids[0, self._prompt_tokens :]


class Vlm:
    """A vision-language model with its processor; ``loading.load_vlm`` makes one.

    Attributes:
        version: names it, with digits of its weights.
        coordinates: how it writes places.
        nbytes: of its weights.
        device: where they are.
    """

    def __init__(self, model: Any, processor: Any, version: str, longest_side: int | None = None) -> None:
        """Wrap what was loaded.

        Args:
            model: of ``AutoModelForImageTextToText``, on its device.
            processor: of the model.
            version: of model and adapter.
            longest_side: in pixels, to which pictures are reduced before the processor sees them, as in the training
                of this model; None for whatever the processor does.

        Raises:
            UnknownFamily: the model's way to write coordinates is not known.
        """
        self.version = version
        self.coordinates: Coordinates = coordinates_of(model.config.model_type)
        self.nbytes = sum(one.numel() * one.element_size() for one in (*model.parameters(), *model.buffers()))
        self.device = model.device
        self._model = model.eval()
        self._processor = processor
        self._patch = int(processor.image_processor.patch_size)
        self._longest_side = longest_side
        self._preparing = threading.Lock()  # tokenizers are not safe between threads
        self._writing: _Writing | None = None  # of the device's thread alone
        for layer in layers(model):
            layer.register_forward_pre_hook(self._between_layers)

    def prepare(self, picture: NDArray[np.uint8], system: str, user: str, longest_side: int | None = None) -> Question:
        """Make a question ready, on any thread.

        Args:
            picture: (H, W, 3) uint8 RGB.
            system: the system message; empty for none.
            user: the words.
            longest_side: in pixels, to which the picture is reduced where memory is short.

        Raises:
            VlmError: the picture is too narrow for the model.
        """
        height, width = picture.shape[:2]
        if max(height, width) > MOST_ASPECT * min(height, width):
            raise VlmError(
                f"A picture of {width} x {height} pixels is too narrow to be asked about in words; use clicks instead."
            )
        image = capped(picture, min(one for one in (width + height, self._longest_side, longest_side) if one))
        asked = messages(Composed(system, user, None))
        with self._preparing:
            text = self._processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
            inputs = self._processor(text=[text], images=[image], return_tensors="pt")
        return Question(inputs, input_wh(inputs["image_grid_thw"][0].tolist(), self._patch))

    def answer(
        self,
        question: Question,
        max_new_tokens: int,
        pause: Callable[[], None] = lambda: None,
        stop: Callable[[], bool] = lambda: False,
        seconds: float | None = None,
        progress: Callable[[int], None] = lambda tokens: None,
    ) -> Generated:
        """Write the answer, greedily; one thread at a time.

        Args:
            question: of :meth:`prepare`.
            max_new_tokens: the longest answer.
            pause: called between layers and between tokens, to do what goes first; it may ask this same model.
            stop: asked there too; True ends the answer.
            seconds: until the answer ends, whole or not; None for no limit.
            progress: told how many tokens there are.
        """
        begun = time.monotonic()
        inputs = question.inputs.to(self.device)
        until = float("inf") if seconds is None else begun + seconds
        writing = _Writing(inputs["input_ids"].shape[1], pause, stop, until, progress)
        outer, self._writing = self._writing, writing
        try:
            writing.ids = self._model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                stopping_criteria=StoppingCriteriaList([writing]),
            )
        except _Stopped:
            pass  # what was written before is kept
        finally:
            self._writing = outer
        written = writing.written()
        text = self._processor.tokenizer.decode(written, skip_special_tokens=True)
        ended = writing.ended or ("end" if self._is_end(written) else "length")
        return Generated(text, len(written), ended, question.input_wh, time.monotonic() - begun)

    def generate(
        self,
        picture: NDArray[np.uint8],
        system: str,
        user: str,
        max_new_tokens: int,
        pause: Callable[[], None] = lambda: None,
        stop: Callable[[], bool] = lambda: False,
        seconds: float | None = None,
    ) -> Generated:
        """:meth:`prepare` and :meth:`answer` in one."""
        return self.answer(self.prepare(picture, system, user), max_new_tokens, pause, stop, seconds)

    def _between_layers(self, layer: nn.Module, _: object) -> None:
        if self._writing is not None:
            self._writing.between_layers()

    def _is_end(self, written: torch.Tensor) -> bool:
        ends = self._model.generation_config.eos_token_id
        return bool(len(written)) and int(written[-1]) in (ends if isinstance(ends, list) else [ends])


def layers(model: nn.Module) -> list[nn.Module]:
    """The layers of vision tower and language model: all members of the lists named ``blocks`` and ``layers``."""
    lists = [one for name, one in model.named_modules() if name.split(".")[-1] in ("blocks", "layers")]
    return [layer for one in lists if isinstance(one, nn.ModuleList) for layer in one]


def capped(picture: NDArray[np.uint8], longest_side: int) -> Image.Image:
    """A picture whose longest side has at most so many pixels, its aspect kept; never enlarged."""
    image = Image.fromarray(picture)
    factor = longest_side / max(image.size)
    if factor >= 1:
        return image
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    return image.resize(size, Image.Resampling.BICUBIC)


def bound(processor: Any, least_visual_tokens: int, most_visual_tokens: int) -> None:
    """Bound what a processor resizes pictures to; a model's own limits stand where they are the narrower ones.

    Args:
        processor: of the model; changed.
        least_visual_tokens: of a picture, each for a square of patch times merge pixels.
        most_visual_tokens: likewise.
    """
    images = processor.image_processor
    area = (images.patch_size * images.merge_size) ** 2
    longest = min(images.size["longest_edge"], most_visual_tokens * area)
    shortest = max(images.size["shortest_edge"], least_visual_tokens * area)
    if shortest > longest:  # a model for small pictures
        shortest = min(images.size["shortest_edge"], longest)
    images.size = {"shortest_edge": shortest, "longest_edge": longest}
