"""People who talk: the views of a clip's frames, one after the other.

Speech is a string of mouth shapes, several a second, with pauses; lids blink, eyes jump from one thing to the next
while the head wanders, nods and tilts, and the shoulders follow the breath. The camera stands still or circles slowly.

The studio's frame is the head's. In a clip the torso and the light stand still, so a moving head means that camera and
light move about it the other way; the truth of a frame is the camera in the head frame, as for a single picture.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from scipy.interpolate import CubicSpline, PchipInterpolator

from models.camera import spherical_angles
from models.parametric.anny import Anny
from ops.studio.avatar import default_pose, head_transforms
from ops.studio.lighting import about_vertical, draw_light, rotate_coefficients
from ops.studio.params import StudioParams
from ops.studio.people import stream
from ops.studio.scene import View, draw_background, draw_camera, gaze_units, unit_weights

# Mouth shapes of speech; unpublished: our choice.
_VOWELS: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.42, "mouthLowerDown": 0.30, "mouthUpperUp": 0.15},  # ah
    {"jawOpen": 0.18, "mouthStretch": 0.30, "mouthSmile": 0.25, "mouthUpperUp": 0.20, "mouthLowerDown": 0.2},  # ee
    {"jawOpen": 0.26, "mouthFunnel": 0.55, "mouthPucker": 0.20},  # oh
    {"jawOpen": 0.10, "mouthPucker": 0.60, "mouthFunnel": 0.15},  # oo
    {"jawOpen": 0.28, "mouthLowerDown": 0.25, "mouthUpperUp": 0.10},  # eh
)
_CONSONANTS: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.05, "mouthLowerDown": 0.30, "mouthStretch": 0.25},  # s, t
    {"jawOpen": 0.12, "mouthLowerDown": 0.15},  # l, n, k
    {"mouthPress": 0.30, "mouthRollLower": 0.20, "mouthRollUpper": 0.15},  # m, b, p
    {"jawOpen": 0.06, "mouthRollLower": 0.30, "mouthUpperUp": 0.25},  # f, v
)
_SWEEP = 14.0  # degrees that a circling camera covers at most
_ROOM = 0.25  # of the background's width, that a circling camera uncovers


def clip_views(params: StudioParams, model: Anny, joints: np.ndarray, identity: int, number: int) -> Iterator[View]:
    """The views of the frames of clip ``number`` of an identity whose joints at rest are ``joints`` (6, 3)."""
    rng = stream(params.seed, 40, identity, number)
    count = params.clip_frames
    times = np.arange(count) / params.clip_fps
    azimuth = float(np.clip(rng.normal(0, params.clip_azimuth_spread), -60, 60))
    elevation = float(np.clip(rng.normal(2, 0.6 * params.elevation_spread), -20, 25))
    camera = draw_camera(params, rng, azimuth, elevation, float(np.clip(rng.normal(0, 1.5), -5, 5)))
    sweep = rng.uniform(-_SWEEP, _SWEEP) if rng.random() < 0.5 else 0.0
    light, key, key_colour = draw_light(rng)
    place = draw_background(rng, int(params.clip_size * (1 + _ROOM)))
    expressions, poses = _expressions(rng, model.expression_names, times), _poses(rng, times)

    stand = about_vertical(np.deg2rad(azimuth))
    first = camera[:16].reshape(4, 4).astype(np.float64)
    for frame in range(count):
        along = 0.5 * sweep * -np.cos(np.pi * frame / max(count - 1, 1))  # degrees; starts and ends softly
        to_head = head_transforms(joints, poses[frame])[0, 0].numpy().astype(np.float64)
        pose = to_head @ _turned(first, np.deg2rad(along))
        seen_from, above, _ = np.rad2deg(spherical_angles(torch.from_numpy(pose)))
        turn = to_head[:3, :3] @ stand
        yield View(
            camera=np.concatenate([pose.reshape(-1), camera[16:]]).astype(np.float32),
            azimuth=float(seen_from),
            elevation=float(above),
            roll=roll_of(pose),
            expression=expressions[frame],
            pose=poses[frame],
            light=rotate_coefficients(light, turn),
            key=(turn @ key).astype(np.float32),
            key_colour=key_colour,
            background=_window(place, params.clip_size, 0.5 + along / _SWEEP),
        )


def roll_of(pose: np.ndarray) -> float:
    """Degrees by which a camera (4, 4) is turned clockwise about its axis; as ``models.camera.look_at`` has it."""
    right, forward = pose[:3, 0], pose[:3, 2]
    level = np.cross(forward, [0.0, 1.0, 0.0])
    level /= np.linalg.norm(level)
    return float(np.rad2deg(np.arctan2(right @ np.cross(forward, level), right @ level)))


def _turned(pose: np.ndarray, angle: float) -> np.ndarray:
    """A camera carried about the vertical axis through the head."""
    turn = np.eye(4)
    turn[:3, :3] = about_vertical(angle)
    return turn @ pose


def _window(place: np.ndarray, size: int, share: float) -> np.ndarray:
    """(size, size, 3) part of a wider background: from its left border (0) to its right one (1)."""
    room = place.shape[0] - size
    move = np.array([[1, 0, -share * room], [0, 1, -0.5 * room]])
    return cv2.warpAffine(place, move, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _wander(rng: np.random.Generator, times: np.ndarray, period: float, channels: int) -> np.ndarray:
    """(T, channels) smooth noise of about unit variance that turns about every ``period`` seconds."""
    knots = np.arange(-2, times[-1] / period + 3) * period
    return CubicSpline(knots, rng.normal(0, 1.1, (len(knots), channels)))(times)


def _poses(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """(T, 6, 3) axis-angles: a wandering head, nods of speech, shoulders that breathe."""
    slow, fast = _wander(rng, times, 1.3, 6), _wander(rng, times, 0.45, 3)
    breath = np.sin(2 * np.pi * (times / rng.uniform(3.0, 4.5) + rng.random()))
    poses = np.repeat(default_pose()[None], len(times), axis=0)
    poses += rng.normal(0, 1, (6, 3)) * np.array([[0.02] * 3] * 2 + [[0.02, 0.03, 0.03]] * 2 + [[0.04, 0.08, 0.05]] * 2)
    poses[:, 0] += slow[:, :3] * [0.025, 0.05, 0.02]
    poses[:, 1] += slow[:, 3:] * [0.035, 0.08, 0.03] + fast * [0.022, 0.012, 0.010]
    poses[:, 2, 2] += 0.012 * breath
    poses[:, 3, 2] -= 0.012 * breath
    return poses.astype(np.float32)


def _expressions(rng: np.random.Generator, names: tuple[str, ...], times: np.ndarray) -> np.ndarray:
    """(T, 52) face units of somebody who talks."""
    weights = _speech(rng, names, times)
    slow = _wander(rng, times, 1.6, 3)
    mood = (
        unit_weights(names, {"mouthSmile": 0.25, "cheekSquint": 0.2}),
        unit_weights(names, {"browInnerUp": 0.30, "browOuterUp": 0.25}),
        unit_weights(names, {"browDown": 0.25, "eyeSquint": 0.15}),
    )
    for channel, units in enumerate(mood):
        weights += np.clip(slow[:, channel : channel + 1], 0, 2) * units
    weights += _blinks(rng, times)[:, None] * unit_weights(names, {"eyeBlink": 1.0})
    sideways, upwards = _gaze(rng, times)
    weights += np.stack([gaze_units(names, *look) for look in zip(sideways, upwards, strict=True)])
    return np.clip(weights, 0, 1).astype(np.float32)


def _speech(rng: np.random.Generator, names: tuple[str, ...], times: np.ndarray) -> np.ndarray:
    """(T, 52) mouth shapes: phrases of syllables with pauses between them, without overshoot."""
    vowels, consonants = (np.stack([unit_weights(names, shape) for shape in kind]) for kind in (_VOWELS, _CONSONANTS))
    now = -rng.uniform(0.2, 1.0)
    moments, keys = [now - 1.0], [np.zeros(len(names))]
    while now < times[-1] + 1:
        for _ in range(rng.integers(4, 11)):
            for shapes in (consonants, vowels):
                moments.append(now)
                keys.append(shapes[rng.integers(len(shapes))] * rng.uniform(0.6, 1.1))
                now += rng.uniform(0.08, 0.14)
        pause = rng.uniform(0.25, 0.7)
        moments += [now, now + pause]
        keys += [np.zeros(len(names))] * 2
        now += pause + 0.1
    return np.asarray(PchipInterpolator(moments, np.stack(keys))(times))


def _blinks(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """(T,) closing of the lids: shut in 70 ms, open again in 160 ms, every few seconds."""
    closed = np.full(len(times), rng.uniform(0.0, 0.06))
    at = rng.uniform(0.2, 1.5)
    while at < times[-1] + 0.3:
        closed = np.maximum(closed, np.interp(times - at, [-0.07, 0, 0.04, 0.20], [0, 1, 1, 0]))
        at += 0.5 + rng.exponential(2.2)
    return closed


def _gaze(rng: np.random.Generator, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T,) sideways and upwards in [-1, 1]: the eyes rest on a thing, then jump to the next within 50 ms."""
    moments, looks = [-9.0], [rng.normal(0, 0.2, 2) * [1, 0.6]]
    at = rng.uniform(-0.5, 0.5)
    while at < times[-1] + 1:
        look = rng.normal(0, 0.2, 2) * [1, 0.6]
        moments += [at, at + 0.05]
        looks += [looks[-1], look]
        at += 0.05 + rng.uniform(0.4, 1.8)
    paths = np.stack(looks)
    return np.interp(times, moments, paths[:, 0]), np.interp(times, moments, paths[:, 1])
