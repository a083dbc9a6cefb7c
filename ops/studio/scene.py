"""One picture's circumstances: camera, expression, pose, light and background, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from models.camera import intrinsics, look_at, pack_label, pose_on_sphere
from models.parametric.anny import Anny
from ops.studio.avatar import default_pose
from ops.studio.lighting import about_vertical, draw_light, rotate_coefficients
from ops.studio.params import StudioParams
from ops.studio.people import stream

# Expressions as sums of face units; each draw scales one of them and adds a little of everything.
_EXPRESSIONS: tuple[dict[str, float], ...] = (
    {"mouthSmile": 0.8, "cheekSquint": 0.5, "eyeSquint": 0.25},
    {"mouthSmile": 0.6, "jawOpen": 0.22, "cheekSquint": 0.5, "mouthUpperUp": 0.35, "mouthLowerDown": 0.2},
    {"mouthFrown": 0.6, "browInnerUp": 0.6, "mouthShrugLower": 0.3},
    {"browDown": 0.8, "noseSneer": 0.35, "mouthPress": 0.5, "eyeSquint": 0.35},
    {"browInnerUp": 0.7, "browOuterUp": 0.7, "eyeWide": 0.6, "jawOpen": 0.4},
    {"jawOpen": 0.25, "mouthFunnel": 0.3},
    {"mouthPucker": 0.7},
    {"eyeBlink": 1.0},
    {"mouthLeft": 0.5, "mouthSmileLeft": 0.4},
    {"jawOpen": 0.12, "mouthStretch": 0.3},
    {"cheekPuff": 0.6, "mouthPress": 0.3},
)


@dataclass(frozen=True)
class View:
    """A picture to take of one avatar.

    Attributes:
        camera: (25,) label.
        azimuth, elevation, roll: degrees of the camera about the head's centre.
        expression: (52,) face units; pose: (6, 3) axis-angle of the joints.
        light: (9, 3) coefficients; key, key_colour: (3,) direction (world frame) and colour of the key light.
        background: (size, size, 3) float32, linear light.
    """

    camera: np.ndarray
    azimuth: float
    elevation: float
    roll: float
    expression: np.ndarray
    pose: np.ndarray
    light: np.ndarray
    key: np.ndarray
    key_colour: np.ndarray
    background: np.ndarray


def draw_view(params: StudioParams, model: Anny, identity: int, number: int, *, extent: float | None = None) -> View:
    """View ``number`` of an identity; ``extent`` overrides how many world units the picture is across at the head."""
    rng = stream(params.seed, 10, identity, number)
    azimuth, elevation, roll = draw_angles(params, rng, number)
    camera = draw_camera(params, rng, azimuth, elevation, roll, extent)
    neutral = rng.random() < params.neutral_share
    expression = draw_expression(rng, model, neutral)
    pose = default_pose() + rng.normal(0, 1, (6, 3)).astype(np.float32) * np.array(
        [
            [0.05, 0.10, 0.03],
            [0.06, 0.12, 0.04],
            [0.02, 0.04, 0.04],
            [0.02, 0.04, 0.04],
            [0.05, 0.1, 0.07],
            [0.05, 0.1, 0.07],
        ],
        np.float32,
    )
    light, key, key_colour = draw_light(rng)
    turn = about_vertical(np.deg2rad(azimuth))
    return View(
        camera=camera,
        azimuth=azimuth,
        elevation=elevation,
        roll=roll,
        expression=expression,
        pose=pose.astype(np.float32),
        light=rotate_coefficients(light, turn),
        key=(turn @ key).astype(np.float32),
        key_colour=key_colour,
        background=draw_background(rng, params.size),
    )


def draw_angles(params: StudioParams, rng: np.random.Generator, number: int) -> tuple[float, float, float]:
    """Azimuth, elevation and roll in degrees. Azimuth is near the front or anywhere on the circle."""
    if rng.random() < params.azimuth_front_share:
        azimuth = rng.normal(0, params.azimuth_front_spread)
    else:
        # The circle is walked in golden steps, so that few views cover it evenly.
        azimuth = 360 * ((number * 0.6180339887 + rng.random()) % 1.0)
    azimuth = float((azimuth + 180) % 360 - 180)
    elevation = float(np.clip(rng.normal(3, params.elevation_spread), -35, 45))
    return azimuth, elevation, float(np.clip(rng.normal(0, params.roll_spread), -20, 20))


def draw_camera(
    params: StudioParams,
    rng: np.random.Generator,
    azimuth: float,
    elevation: float,
    roll: float,
    extent: float | None = None,
) -> np.ndarray:
    """A label (25,): distance, framing and focal length vary as in hand-held pictures; central principal point."""
    extent = rng.uniform(params.extent_min, params.extent_max) if extent is None else extent
    radius = 2.7 * float(np.exp(rng.uniform(np.log(0.8), np.log(2.2))))  # 0.8 to 2.2 m
    radius = min(radius * max(1.0, extent / 1.75), 6.0)  # nobody stands so near for more than the head
    # Portraits are framed lower than the head's middle, and never quite centred.
    pivot = rng.normal(0, 0.045), -0.16 * extent + rng.normal(0, 0.04)
    angles = np.deg2rad([azimuth, elevation, roll])
    # The angles are about the head's centre: the camera stands there, and looks at the pivot.
    eye = pose_on_sphere(torch.tensor(angles[0]), torch.tensor(angles[1]), radius, roll=float(angles[2]))[:3, 3]
    target = torch.tensor(pivot, dtype=eye.dtype)
    right = torch.tensor([np.cos(angles[0]), 0.0, -np.sin(angles[0])], dtype=eye.dtype)
    target = right * target[0] + torch.tensor([0.0, 1.0, 0.0], dtype=eye.dtype) * target[1]
    pose = look_at(eye, target, float(angles[2]))
    label = pack_label(pose[None].float(), intrinsics(torch.tensor([radius / extent], dtype=torch.float32)))[0]
    return label.numpy().astype(np.float32)


def unit_weights(names: tuple[str, ...], units: dict[str, float]) -> np.ndarray:
    """(52,) weights of face units given by name; a name without a side means both."""
    weights = np.zeros(len(names), np.float32)
    for unit, value in units.items():
        for place, full in enumerate(names):
            if full in (unit, unit + "Left", unit + "Right"):
                weights[place] += value
    return weights


def gaze_units(names: tuple[str, ...], sideways: float, upwards: float) -> np.ndarray:
    """(52,) weights of the units that turn both eyes towards the subject's left and up, each in [-1, 1]."""
    left = ("eyeLookOutLeft", "eyeLookInRight") if sideways > 0 else ("eyeLookInLeft", "eyeLookOutRight")
    vertical = "eyeLookUp" if upwards > 0 else "eyeLookDown"
    return unit_weights(names, {**dict.fromkeys(left, abs(sideways)), vertical: abs(upwards)})


def draw_expression(rng: np.random.Generator, model: Anny, neutral: bool) -> np.ndarray:
    """(52,) face units in [0, 1]."""
    names = model.expression_names
    weights = np.zeros(len(names), np.float32)
    if not neutral:
        chosen = _EXPRESSIONS[rng.integers(len(_EXPRESSIONS))]
        weights += unit_weights(names, {unit: value * rng.uniform(0.4, 1.1) for unit, value in chosen.items()})
    weights += unit_weights(names, {"eyeBlink": rng.uniform(0.0, 0.06)})
    sideways, upwards = rng.normal(0, 0.22, 2)
    return np.clip(weights + gaze_units(names, sideways, 0.6 * upwards), 0, 1)


def draw_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size, 3) linear light: a gradient, with blurred shapes out of focus before it most of the time."""
    coarse = max(32, size // 4)
    base = np.exp(rng.uniform(np.log(0.03), np.log(0.75)))
    first, second = (
        np.clip(base * np.exp(rng.normal(0, 0.35)) * (1 + rng.normal(0, 0.16, 3)), 0.004, 0.95) for _ in (0, 1)
    )
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-0.5, 0.5, coarse)
    ramp = np.clip(axis[None] * np.cos(angle) + axis[:, None] * np.sin(angle) + 0.5, 0, 1)[..., None]
    picture = (first * (1 - ramp) + second * ramp).astype(np.float32)
    if rng.random() < 0.75:
        for _ in range(rng.integers(4, 22)):
            colour = np.clip(base * np.exp(rng.normal(0, 0.8)) * (1 + rng.normal(0, 0.3, 3)), 0.003, 1.0).tolist()
            centre = tuple(int(v) for v in rng.integers(0, coarse, 2))
            if rng.random() < 0.5:
                corner = tuple(int(v) for v in np.array(centre) + rng.integers(4, coarse // 2, 2))
                cv2.rectangle(picture, centre, corner, colour, -1)
            else:
                cv2.circle(picture, centre, int(rng.integers(2, coarse // 5)), colour, -1, cv2.LINE_AA)
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.012, 0.05) * coarse))
    noise = rng.normal(0, 0.02, (coarse, coarse, 1)).astype(np.float32) * rng.random()
    picture = cv2.resize(picture * (1 + noise), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture, 0.001, 1)
