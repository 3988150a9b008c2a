"""What people say in words, or by an example → objects of one picture, found by a Qwen-VL or by SAM 3."""
