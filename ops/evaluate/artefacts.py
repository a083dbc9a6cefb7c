"""Automatic judges of artefacts, in place of the people of SphereHead's user study (section 5.3); their false alarms.

The paper showed people the back of each head and all its sides. Here a face detector looks for faces behind, and
five plain detectors look for what is broken. None is a person; so each one's limits are drawn from real pictures, and
how often it fires on other real pictures stands beside every rate.

* ``face_behind``: the face detector is surer of a face than it is in nearly all true back views, although the camera
  stands behind (azimuth beyond 120 degrees). Heads with short hair set it off at its usual threshold.
* ``pieces``: more of the head floats apart than in real masks.
* ``cover``: the head covers less or more of the picture than real ones do.
* ``dull``: less sharp than any real picture.
* ``unlike``: farther from all real pictures, by the angle between features, than real pictures are from one another.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ops.evaluate.heads_views import RealHeads, in_view
from ops.evaluate.identity import cosine
from ops.runtime.errors import LineamentError

DETECTORS = ("face_behind", "pieces", "cover", "dull", "unlike")
MARGIN = 1.1  # how far beyond the most extreme real picture a limit lies; unpublished: our choice
USUAL = 0.5  # mediapipe's threshold of its face detectors: the least that counts as firing
SHARE = 0.95  # of true back views that stay below the detector's limit; unpublished: our choice
FEWEST = 8  # real pictures a half, below which limits mean nothing; unpublished: our choice


@dataclass(frozen=True)
class Facts:
    """What detectors look at, one entry a picture; NaN where a network has no mask."""

    azimuths: np.ndarray
    face_scores: np.ndarray
    sharpness: np.ndarray
    coverage: np.ndarray
    pieces: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class Limits:
    """Where detectors fire, see the module."""

    least_face: float
    least_sharpness: float
    least_cover: float
    most_cover: float
    most_pieces: float
    most_distance: float

    def as_dict(self) -> dict[str, float | None]:
        """Plain numbers; None where the data has no masks."""
        return {name: None if np.isnan(value) else round(float(value), 6) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Calibrated:
    """Limits from one half of the real pictures, and what the other half sets off.

    Attributes:
        limits: of the detectors.
        near: (M, D) features of the first half, to which pictures are compared.
        false_alarms: by detector, share of the second half's pictures (of its back views for ``face_behind``).
        any_alarm: share of the second half's pictures with any detector firing.
        samples: pictures in the second half, and back views among them.
    """

    limits: Limits
    near: np.ndarray
    false_alarms: dict[str, float]
    any_alarm: float
    samples: tuple[int, int]


def facts_of(real: RealHeads, chosen: np.ndarray) -> Facts:
    """The facts of some real pictures, at their true azimuths where those are known."""
    values = (real.calibration_azimuths, real.face_scores, real.sharpness, real.coverage, real.pieces, real.features)
    return Facts(*(value[chosen] for value in values))


def calibrate(real: RealHeads) -> Calibrated:
    """Draw limits from every other real picture, and count alarms among the rest.

    Raises:
        LineamentError: too few pictures.
    """
    order = np.arange(len(real.features))
    first, second = facts_of(real, order % 2 == 0), facts_of(real, order % 2 == 1)
    if len(second.features) < FEWEST:
        raise LineamentError(
            f"{len(order)} real pictures cannot calibrate the artefact detectors; {2 * FEWEST} are the least. "
            "Raise evaluate_heads.reference or make more head shards."
        )
    apart = angles(first.features, first.features)
    np.fill_diagonal(apart, np.inf)
    behind = first.face_scores[in_view(first.azimuths, "back")]
    limits = Limits(
        least_face=max(USUAL, float(np.quantile(behind, SHARE))) if len(behind) else USUAL,
        least_sharpness=float(first.sharpness.min() / MARGIN),
        least_cover=_extreme(first.coverage, np.min) / MARGIN,
        most_cover=_extreme(first.coverage, np.max) * MARGIN,
        most_pieces=max(_extreme(first.pieces, np.max) * MARGIN, 0.01),
        most_distance=float(apart.min(axis=1).max() * MARGIN),
    )
    fired = alarms(second, limits, first.features)
    back = in_view(second.azimuths, "back")
    false = {name: float(fired[name].mean()) for name in DETECTORS}
    false["face_behind"] = float(fired["face_behind"][back].mean()) if back.any() else float("nan")
    together = np.any([fired[name] for name in DETECTORS], axis=0)
    return Calibrated(limits, first.features, false, float(together.mean()), (len(back), int(back.sum())))


def alarms(facts: Facts, limits: Limits, near: np.ndarray) -> dict[str, np.ndarray]:
    """By detector, (N,) whether it fires. Comparisons with NaN are false: what cannot be seen raises no alarm."""
    return {
        "face_behind": (facts.face_scores > limits.least_face) & in_view(facts.azimuths, "back"),
        "pieces": facts.pieces > limits.most_pieces,
        "cover": (facts.coverage < limits.least_cover) | (facts.coverage > limits.most_cover),
        "dull": facts.sharpness < limits.least_sharpness,
        "unlike": angles(facts.features, near).min(axis=1) > limits.most_distance,
    }


def judge(facts: Facts, objects: int, calibrated: Calibrated) -> dict[str, object]:
    """The rates of the user study for ``objects`` heads, each seen from the same V cameras.

    Args:
        facts: of objects x V pictures, object by object.
        objects: how many heads.
        calibrated: the detectors.

    Returns:
        ``fake_face_rate`` (share of back views), ``heads_with_fake_face``, ``high_quality_rate`` (share of heads that
        set off nothing in any view), ``by_detector`` (share of heads each one fires on), ``views``.
    """
    fired = {
        name: found.reshape(objects, -1) for name, found in alarms(facts, calibrated.limits, calibrated.near).items()
    }
    back = in_view(facts.azimuths, "back").reshape(objects, -1)
    behind = fired["face_behind"]
    return {
        "fake_face_rate": float(behind[back].mean()) if back.any() else None,
        "heads_with_fake_face": float(behind.any(axis=1).mean()),
        "high_quality_rate": float((~np.any(list(fired.values()), axis=0)).all(axis=1).mean()),
        "by_detector": {name: float(fired[name].any(axis=1).mean()) for name in DETECTORS},
        "back_views": int(back.sum()),
        "heads": objects,
        "views": int(back.shape[1]),
    }


def mirrored_score(back: np.ndarray, front: np.ndarray, flipped: np.ndarray) -> dict[str, float | int]:
    """How much the back of heads looks like their mirrored front, by features (N, D) of the same N heads.

    ``score`` is the mean cosine of a back view with its own flipped front view; ``front_alone`` that with the front
    view as it is. A tri-plane that mixes both sides makes the first large: it paints a mirror image behind.
    """
    own, plain = (np.diag(cosine(back, other)) for other in (flipped, front))
    return {"score": float(own.mean()), "front_alone": float(plain.mean()), "heads": len(back)}


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M): one minus the cosine of features (N, D) and (M, D)."""
    return 1 - cosine(a, b)


def _extreme(values: np.ndarray, which: object) -> float:
    known = values[~np.isnan(values)]
    return float(which(known)) if len(known) else float("nan")  # type: ignore[operator]
