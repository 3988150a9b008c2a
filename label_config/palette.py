"""Label colours: the colour of a class depends on its index alone, so that it never changes as classes are added.

The first 40 were chosen once: six of the Okabe-Ito kind, then the farthest from all before (CIE Lab, with red-green
blindness simulated after Machado et al. 2009). Each has a contrast of at least 3:1 with white (WCAG 1.4.11).
"""

from __future__ import annotations

import colorsys

_CHOSEN = (
    "#0072B2", "#D55E00", "#009E73", "#AA3377", "#332288", "#8A6D00", "#783024", "#9C60FC", "#FC1860", "#009CB4",
    "#9C84F0", "#003CCC", "#783084", "#F06048", "#3C6C48", "#902400", "#2460C0", "#489C90", "#8490D8", "#783054",
    "#C00048", "#FC5484", "#D86CB4", "#9C5430", "#3054CC", "#249C30", "#6C00A8", "#B4009C", "#A8486C", "#906090",
    "#305400", "#C06060", "#FC48CC", "#9C78FC", "#84186C", "#30A80C", "#7830A8", "#00543C", "#FC549C", "#306C24",
)  # fmt: skip

_GOLDEN_ANGLE = 0.618033988749895
_LEAST_CONTRAST = 3.0


def colour(index: int) -> str:
    """Colour ``#RRGGBB`` of the class at an index from 0; past the chosen ones, hues at golden angles."""
    if index < len(_CHOSEN):
        return _CHOSEN[index]
    hue = index * _GOLDEN_ANGLE % 1
    lightness = (0.55, 0.40, 0.28)[index % 3]
    while True:
        red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue, lightness, 0.75))
        found = f"#{red:02X}{green:02X}{blue:02X}"
        if contrast_with_white(found) >= _LEAST_CONTRAST:
            return found
        lightness -= 0.02


def contrast_with_white(hexadecimal: str) -> float:
    """Contrast ratio 1..21 of ``#RRGGBB`` against white, after WCAG 2.2."""
    parts = [int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)
