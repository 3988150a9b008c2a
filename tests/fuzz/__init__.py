"""Whatever is read from outside, read with input that nobody would write: only our own sentences may come back.

The same targets run as property tests in the suite, and for a stated number of inputs under libFuzzer, which looks for
input that reaches code no input has reached before: ``python -m tests.fuzz --inputs 200000`` (``make fuzz``).
"""
