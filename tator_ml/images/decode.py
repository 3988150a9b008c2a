"""Bytes of a picture → pixels: see `tator_sdk.images`, which the laptop side needs too."""

from tator_sdk.images import ImageError, decode_image, image_size

__all__ = ["ImageError", "decode_image", "image_size"]
