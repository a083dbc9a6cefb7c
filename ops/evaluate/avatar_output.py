"""What evaluate_avatar's numbers are called, and what they cannot say."""

from __future__ import annotations

from typing import Any

TITLES = {
    "avatar": "InvertAvatar",
    "next3d": "Next3D",
    "recurrent": "recurrent encoders",
    "image_encoders": "single frames, averaged",
    "latent_only": "style alone",
    "recurrent_mean": "mean of frames, trained",
    "recurrent_conv": "ConvFusion",
    "recurrent_attention": "AttFusion",
    "image_encoders_offsets": "plane offsets",
    "image_encoders_posed": "posed pictures",
}


def title(name: str) -> str:
    """How a generator or a way to make avatars is called."""
    return TITLES.get(name, name.replace("_", " "))


def seen_by_the_detector(results: dict[str, Any]) -> dict[str, Any]:
    """In how many drawn pictures a face was found, by the name of what drew them."""
    return {name: f["faces"] for name, f in results["generators"].items()} | {
        name: f["same"]["faces"] for name, f in results["encoders"].items()
    }


def limits_of(results: dict[str, Any]) -> list[str]:
    """In plain words, what keeps these numbers from being the paper's."""
    about, takes = results["protocol"], results["protocol"]["takes"]
    lines = [
        "Distances and perceptual distances are of MobileNetV2's features, not of Inception's or VGG's: they are "
        "neither FID nor LPIPS. Identity is compared by the network in the column's name; the paper used ArcFace.",
        "AKD is in picture sides; the paper does not say its unit. Pictures are enlarged to 256 pixels before "
        "detection. Where no face is found in one of the two pictures the pair does not count: mind the share of "
        "faces found.",
        f"{about['samples']:,} heads were drawn for the distances; the paper drew 50,000.",
    ]
    if takes:
        lines.append(
            f"{len(takes)} clips, of rendered people whom no training has seen, or held back in training; the paper "
            "took 100 of VFHQ. Rendered people are simpler than filmed ones."
        )
    lines += [
        f"{title(name)}: the detector finds no face in what it draws, so there is no AKD, no gaze and no expression."
        for name, found in seen_by_the_detector(results).items()
        if not found["mean"]
    ]
    lines += [
        f"{title(name)}: trained on other shards." for name, f in results["generators"].items() if not f["same_data"]
    ]
    return lines
