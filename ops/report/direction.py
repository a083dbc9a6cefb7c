"""Which way is better: columns are known by the name of what they hold, so that no page has to say it again."""

from __future__ import annotations

import re

HIGHER = re.compile(r"psnr|ssim|csim|faces? found|high quality|intersection over union|\biou\b|\bauc\b", re.IGNORECASE)
LOWER = re.compile(
    r"^(paper: )?(fd|kd|fid|kid)\b|\bl1\b|perceptual|lpips|\bakd\b|^gaze\b|fake faces?|\berrors?\b|depth apart"
    r"|^seconds \d",
    re.IGNORECASE,
)
KEY = "↑ higher is better, ↓ lower is."


def arrow(title: str) -> str:
    """``↑`` where a higher value of what a column holds is better, ``↓`` where a lower one is, else nothing."""
    words = title.replace("_", " ")
    if HIGHER.search(words):
        return "↑"
    return "↓" if LOWER.search(words) else ""
