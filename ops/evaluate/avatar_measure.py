"""Avatars against clips: driven by their own person and by others, from one frame and from many, against the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.inversion import Inverter
from ops.apply.avatars import Prior
from ops.apply.invert_avatar import encoded, make_avatar
from ops.apply.inverters import load_inverter
from ops.apply.saved_avatars import Avatar
from ops.apply.source import Frame
from ops.evaluate import intervals
from ops.evaluate.avatar_faces import Judge, summarise
from ops.evaluate.avatar_takes import Take, spread
from ops.evaluate.pairwise import psnr
from ops.train.export import CONFIG

GREY = 128  # what surrounds a head when unseen views are compared: nobody could know the background
LATENT_ONLY = "latent_only"  # table 4's row without E_tex and E_tri
AVERAGE = "image_encoders"  # encoders of single frames; of several, their canonical features are averaged
ORDERED, UNORDERED = "ordered", "unordered"


@dataclass(frozen=True)
class Method:
    """A way from frames to an avatar: encoders on a prior, or E_latent alone."""

    name: str
    prior: Prior
    inverter: Inverter
    latent_only: bool = False

    def build(self, frames: Sequence[Frame]) -> Avatar:
        """The avatar of some frames, in the order given."""
        if not self.latent_only:
            return make_avatar(self.prior, self.inverter, frames, "")
        first = encoded(self.prior, frames[0])
        with torch.inference_mode():
            canonical = self.inverter.coarse(self.inverter.styles(first.image))
        identity = np.stack([np.asarray(frame.identity) for frame in frames]).mean(0)
        return Avatar(self.prior, canonical, torch.from_numpy(identity)[None].to(canonical.ws))


def find_encoders(checkpoints: Path) -> dict[str, Path]:
    """Folders of trained encoders by name: ``recurrent`` and its variants, ``image_encoders`` and theirs."""
    places = [path.parent for name in ("recurrent", AVERAGE) for path in sorted(checkpoints.glob(f"{name}*/{CONFIG}"))]
    return {place.name: place for place in places}


def load_methods(prior: Prior, encoders: Mapping[str, Path]) -> list[Method]:
    """All trained ways from frames to avatars, and E_latent alone of the first."""
    methods = [Method(name, prior, load_inverter(prior, folder)) for name, folder in encoders.items()]
    return [*methods, Method(LATENT_ONLY, prior, methods[0].inverter, latent_only=True)] if methods else []


def drawn(avatar: Avatar, frames: Sequence[Frame]) -> list[np.ndarray]:
    """The avatar with the frames' expressions, seen by their cameras."""
    return [
        avatar.picture(*(torch.from_numpy(np.asarray(code, np.float32))[None] for code in (f.expression, f.camera)))
        for f in frames
    ]


def pictures(frames: Sequence[Frame]) -> list[np.ndarray]:
    """The frames' own pictures."""
    return [np.asarray(frame.picture) for frame in frames]


def same_identity(method: Method, takes: Sequence[Take], judge: Judge, tests: int) -> dict[str, Any]:
    """The first frame is the source, others of the same clip drive (section 4.2.2)."""
    rows = []
    for take in takes:
        frames = [take.frames[n] for n in spread(range(1, len(take.frames)), tests)]
        rows.append(compare(judge, frames, drawn(method.build(take.frames[:1]), frames)))
    return summarise(rows)


def compare(judge: Judge, frames: Sequence[Frame], shown: Sequence[np.ndarray]) -> dict[str, list[float]]:
    """Every measure of drawn frames against the true ones."""
    true = pictures(frames)
    return {**judge.likeness(true, shown), **judge.identity(true, shown), **judge.motion(true, shown)}


def cross_identity(method: Method, takes: Sequence[Take], judge: Judge, tests: int) -> dict[str, Any]:
    """The first frame of each clip, driven by the next clip's person; without truth, identity and motion alone."""
    rows = []
    for number, take in enumerate(takes):
        driver = takes[(number + 1) % len(takes)]
        if driver is take:
            break
        frames = [driver.frames[n] for n in spread(range(len(driver.frames)), tests)]
        shown = drawn(method.build(take.frames[:1]), frames)
        source = pictures(take.frames[:1]) * len(shown)
        rows.append({**judge.identity(source, shown), **judge.motion(pictures(frames), shown)})
    return summarise(rows)


def by_frames(
    method: Method,
    takes: Sequence[Take],
    judge: Judge,
    counts: Sequence[int],
    tests: int,
    seed: int,
    likeness_alone: bool = False,
) -> dict[str, dict[str, Any]]:
    """How the number of frames matters: ``ordered`` and ``unordered`` to count to measures (Figures 6 and 12, table 3).

    Frames come evenly from the first two thirds of a clip, or from there by chance and in any order; the last third
    judges. Unordered ones are not measured for one frame alone. ``likeness_alone`` leaves identity and motion out.
    ``psnr_gain`` is what further frames add to the PSNR of the same picture drawn from the first frame alone: pictures
    differ far more than that among themselves.
    """
    found: dict[str, dict[str, Any]] = {ORDERED: {}, UNORDERED: {}}
    alone: dict[int, list[float]] = {}
    for order, entries in found.items():
        for count in counts if order == ORDERED else [n for n in counts if n > 1]:
            rows = []
            for number, take in enumerate(takes):
                build, judged = take.split()
                if count > len(build):
                    continue
                chosen = spread(build, count)
                if order == UNORDERED:
                    chosen = np.random.default_rng([seed, number, count]).permutation(build)[:count].tolist()
                frames = [take.frames[n] for n in spread(judged, tests)]
                shown = drawn(method.build([take.frames[n] for n in chosen]), frames)
                row = judge.likeness(pictures(frames), shown) if likeness_alone else compare(judge, frames, shown)
                gain = np.subtract(row["psnr"], alone.setdefault(number, row["psnr"])).tolist()
                rows.append({**row, "psnr_gain": gain} if count > 1 else row)
            if rows:
                entries[str(count)] = summarise(rows)
    return found


def against_truth(
    method: Method, takes: Sequence[Take], judge: Judge, counts: Sequence[int], tests: int
) -> dict[str, Any]:
    """What only the studio knows: views nobody showed, and the expression that was asked for.

    Returns:
        ``unseen_psnr`` by number of frames, over the true head, and ``unseen_gain``, the same less that of one frame,
        picture by picture; ``expression``: mean distance of the units fitted to
        the drawn picture from the true ones of the driver; ``expression_floor``: the same of the true picture, below
        which nothing can be measured. Mind the counts: pictures in which no face was fitted do not count.
    """
    unseen: dict[str, Any] = {}
    gains: dict[str, Any] = {}
    alone: dict[int, list[float]] = {}
    for count in counts:
        values: dict[int, list[float]] = {}
        for number, take in enumerate(takes):
            build, _ = take.split()
            if take.unseen is None or count > len(build):
                continue
            values[number] = unseen_psnr(method.build([take.frames[n] for n in spread(build, count)]), take)
            alone.setdefault(number, values[number])
        if values:
            unseen[str(count)] = _by_take(values)
        if values and count > 1:
            gains[str(count)] = _by_take({n: np.subtract(found, alone[n]).tolist() for n, found in values.items()})
    errors: dict[str, list[float]] = {"expression": [], "expression_floor": []}
    owners = []
    for number, take in enumerate(takes):
        if take.expressions is None:
            continue
        chosen = spread(range(1, len(take.frames)), tests)
        frames = [take.frames[n] for n in chosen]
        shown = drawn(method.build(take.frames[:1]), frames)
        for n, frame, picture in zip(chosen, frames, shown):
            errors["expression"].append(units_apart(picture, take.expressions[n], judge))
            errors["expression_floor"].append(units_apart(np.asarray(frame.picture), take.expressions[n], judge))
            owners.append(number)
    return {
        "unseen_psnr": unseen,
        "unseen_gain": gains,
        **{name: intervals.mean(np.array(values), np.array(owners)) for name, values in errors.items()},
    }


def _by_take(values: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    """The mean over all pictures; takes are drawn whole."""
    groups = np.repeat(list(values), [len(found) for found in values.values()])
    return intervals.mean(np.concatenate([np.array(found) for found in values.values()]), groups)


def unseen_psnr(avatar: Avatar, take: Take) -> list[float]:
    """PSNR of each view of a take that no frame showed, over the true head."""
    assert take.unseen is not None
    posed = torch.from_numpy(take.unseen.expression)[None]
    found = []
    for picture, mask, camera in zip(take.unseen.pictures, take.unseen.masks, take.unseen.cameras):
        shown = avatar.picture(posed, torch.from_numpy(camera)[None])
        found.append(psnr(on_grey(picture, mask), on_grey(shown, mask)))
    return found


def units_apart(picture: np.ndarray, units: np.ndarray, judge: Judge) -> float:
    """Mean distance of face units fitted to a picture from known ones; NaN where no face is found and fitted."""
    fitted = judge.units(picture)
    return float("nan") if fitted is None else float(np.abs(fitted - units).mean())


def on_grey(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A picture whose background nobody could know."""
    return np.where(mask[..., None] > 127, picture, np.uint8(GREY))
