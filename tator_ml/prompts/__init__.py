"""What people draw → prompts for the engine, and its answers → regions of the editor."""
