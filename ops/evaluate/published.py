"""What the papers published, to stand beside what was measured here."""

from __future__ import annotations

ANGLES = (-60.0, -45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0, 60.0)  # AamNCE paper, section 4: 9 angles, 0 is the label

AAMNCE_SOURCE = "AamNCE paper, Table 1: CelebA-HQ 256, LightCNN, 1000 objects"
AAMNCE_AUC: dict[str, dict[str, float]] = {
    "giraffe": {
        "L60": 0.664, "L45": 0.846, "L30": 0.983, "L15": 1.000,
        "R15": 0.999, "R30": 0.984, "R45": 0.810, "R60": 0.679,
    },
    "infonce": {
        "L60": 0.844, "L45": 0.907, "L30": 0.947, "L15": 0.999,
        "R15": 0.998, "R30": 0.967, "R45": 0.886, "R60": 0.823,
    },
    "aamnce": {
        "L60": 0.818, "L45": 0.929, "L30": 0.995, "L15": 1.000,
        "R15": 1.000, "R30": 0.992, "R45": 0.922, "R60": 0.829,
    },
}  # fmt: skip
TITLES = {"giraffe": "GIRAFFE", "infonce": "InfoNCE", "aamnce": "AamNCE"}


def angle_name(azimuth: float) -> str:
    """``L60`` for the camera 60 degrees on the subject's left (azimuth +60), ``R15`` for -15, ``0`` for the front."""
    return f"{'L' if azimuth > 0 else 'R'}{abs(azimuth):g}" if azimuth else "0"
