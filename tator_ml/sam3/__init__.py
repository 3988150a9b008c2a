"""SAM 3 in the engine, and those that were tuned."""
