"""Names, addresses and texts that an enemy would send."""

from __future__ import annotations

NAMES = (
    "..", "../secret", "../../etc/passwd", "/etc/passwd", "..\\secret", "C:\\secret", "C:secret", "a/../../secret",
    "%2e%2e%2fsecret", "%252e%252e%252fsecret", "..%2fsecret", "..%c0%afsecret", "\uff0e\uff0e\uff0fsecret",
    "secret\x00.json", "\n", "con", ".", "", "-rf", "~", "~root", "$HOME", "`id`",
    "a" * 5000, "\ud800", "<img src=x onerror=alert(1)>",
)  # fmt: skip
"""Of versions, jobs, uploads, pictures, files."""

MARKUP = '"><img src=x onerror="window.hit=1"><script>window.hit=1</script>{{7*7}}'
"""Shown anywhere, it must stay text."""
MARKED = ("<img src=x", "<script>window", "49")
"""What a page holds where it did not; the last of them is a template's answer."""
