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


SPHEREHEAD_SOURCE = "SphereHead paper, Tables 1 and 2: FID of 50,000 at 512 px, 37 people asked about 100 heads"
SPHEREHEAD_ABLATION: dict[str, dict[str, float]] = {  # fid, share of fake faces, share of high quality
    "eg3d": {"fid": 10.3, "ff": 0.761, "hq": 0.037},
    "panohead": {"fid": 8.6, "ff": 0.237, "hq": 0.261},
    "panohead_vico": {"fid": 8.3, "ff": 0.048, "hq": 0.632},
    "single_sphere": {"fid": 8.1, "ff": 0.037, "hq": 0.787},
    "single_sphere_vico": {"fid": 7.9, "ff": 0.003, "hq": 0.856},
    "dual_sphere": {"fid": 7.9, "ff": 0.009, "hq": 0.842},
    "dual_sphere_vico": {"fid": 7.9, "ff": 0.0, "hq": 0.904},
    "spherehead": {"fid": 7.8, "ff": 0.0, "hq": 0.926},
}
HEAD_TITLES = {
    "eg3d": "EG3D",
    "panohead": "PanoHead",
    "panohead_vico": "PanoHead + ViCo",
    "single_sphere": "single sphere",
    "single_sphere_vico": "single sphere + ViCo",
    "dual_sphere": "dual sphere",
    "dual_sphere_vico": "dual sphere + ViCo",
    "spherehead": "SphereHead",
}
