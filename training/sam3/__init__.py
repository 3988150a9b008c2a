"""Tuning of SAM 3 on a project's own labels: phrases and boxes, in plain PyTorch."""
