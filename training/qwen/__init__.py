"""Fine-tuning of Qwen-VL on boxes and points."""
