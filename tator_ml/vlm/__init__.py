"""Vision-language models: objects asked for in words. Only ``model`` needs torch."""
