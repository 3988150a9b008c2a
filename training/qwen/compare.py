"""A tuned model and the active one, asked about the same pictures as they would be asked in service."""

from __future__ import annotations

from collections.abc import Sequence

from tator_ml.vlm.loading import load_vlm
from tator_ml.vlm.registry import QwenEntry
from tator_sdk.qwen_request import QwenTraining
from tator_sdk.settings import Settings
from training.gate import Decision
from training.job import Job
from training.qwen.base import device_of
from training.qwen.conversations import Conversation
from training.qwen.evaluate import Answer, boxes_of, measure
from training.qwen.gate import decide
from training.qwen.scores import Tally, constant_answer, tally
from training.samples import Sample, Samples, readable
from training.tuning import release_memory


def compare(
    candidate: QwenEntry, active: QwenEntry, samples: Samples, request: QwenTraining, settings: Settings, job: Job
) -> Decision:
    """Ask both about held-out pictures that neither has learned from, and decide.

    Raises:
        TatorError: one of them cannot be loaded.
    """
    seen = {one["image"] for one in active.examples() if not one["held_out"]}
    unseen = [sample for sample in samples.held_out if sample.image not in seen]
    fair = readable(unseen, request.compare_pictures, job.log)
    mine = _ask(candidate, "the new model", fair, samples.classes, request, settings, job)
    release_memory()
    theirs = _ask(active, "the active model", fair, samples.classes, request, settings, job)
    release_memory()
    truth = [boxes_of(sample, samples.classes) for sample in fair]
    trivial = constant_answer(
        [boxes_of(sample, samples.classes) for sample in samples.train],
        [sample.size_wh for sample in samples.train],
        [sample.size_wh for sample in fair],
    )
    return decide(mine, theirs, tally(truth, trivial, samples.classes), request.seed)


def _ask(
    entry: QwenEntry, name: str, pictures: Sequence[Sample], classes: Sequence[str], request: QwenTraining,
    settings: Settings, job: Job,
) -> Tally:  # fmt: skip
    longest = entry.metadata.max_image_dim if entry.metadata else None
    device = str(device_of(settings, request.device))
    job.progress(0, len(pictures), f"loading {name}")
    model = load_vlm(settings, entry.model_id, device, entry.adapter, entry.id, longest)

    def ask(part: Sequence[Conversation]) -> list[Answer]:
        made = []
        for one in part:
            pixels = one.sample.read()
            generated = model.generate(pixels, one.asked.system, one.asked.user, request.max_new_tokens, pause=pause)
            made.append((generated.text, generated.input_wh))
        return made

    done = 0

    def pause() -> None:  # between tokens too, so that clicks go first
        job.progress(done, len(pictures), f"asking {name}")

    def step(count: int, total: int) -> None:
        nonlocal done
        done = count
        pause()

    return measure(ask, model.coordinates, pictures, classes, entry.style, most=request.max_detections, step=step)
