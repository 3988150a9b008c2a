"""The engine: models, warm pictures and lanes; the process that holds a device."""
