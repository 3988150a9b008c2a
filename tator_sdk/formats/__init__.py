"""Data sets in files: read a picture at a time, with the file and line of whatever is wrong."""

from tator_sdk.formats.opening import open_dataset

__all__ = ["open_dataset"]
