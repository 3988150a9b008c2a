"""What ``segment_anything`` itself says, through its predictor."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor

from tator_ml.engine.segmenters.base import Prompts
from tests.adapters.material import Answer, show


def upstream_answer(predictor: SamPredictor, image: NDArray[np.uint8], prompts: Prompts, multimask: bool) -> Answer:
    """``SamPredictor`` on one picture: ``predict`` for one prompt, ``predict_torch`` for several."""
    show(predictor, image)
    points, labels, boxes = prompts.points, prompts.labels, prompts.boxes
    if len(prompts) == 1:
        full, iou, low_res = predictor.predict(
            None if points is None else points[0],
            None if labels is None else labels[0],
            None if boxes is None else boxes[0],
            multimask_output=multimask,
            return_logits=True,
        )
        return Answer(*(torch.as_tensor(value)[None] for value in (full, iou, low_res)))
    size_hw, transform = image.shape[:2], predictor.transform
    full, iou, low_res = predictor.predict_torch(
        None if points is None else torch.as_tensor(transform.apply_coords(points, size_hw)).float(),
        None if labels is None else torch.as_tensor(labels),
        None if boxes is None else torch.as_tensor(transform.apply_boxes(boxes, size_hw)).float(),
        multimask_output=multimask,
        return_logits=True,
    )
    return Answer(full, iou, low_res)
