"""Starter weights: small models trained on generated scenes, so that everything works offline."""
