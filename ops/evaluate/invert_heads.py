"""Stage invert_heads: one picture of a head, and what is made of the sides that it does not show.

Held-out studio heads are inverted from a single view (styles, then the generator's weights), and the result is compared
with the picture given and, over the true head, with the truth of unseen views. The average head, from which the search
begins, is compared as well: an inversion that guesses worse than it has learned nothing about the other side.

python -m ops.evaluate.invert_heads data/checkpoints/heads data/weights/embedded data/inversions/heads
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from models.headcache import HeadCache
from ops.apply.cameras import turntable
from ops.apply.generators import to_uint8
from ops.apply.heads import Heads
from ops.apply.invert import Inversion, InversionParams, Target, Watch, invert
from ops.apply.pictures import Film, grid, panels
from ops.evaluate.features import MobileNetFeatures, load_features
from ops.evaluate.heads import find_variants
from ops.evaluate.held_out import TrueHead, held_out_heads
from ops.evaluate.pairwise import psnr, ssim
from ops.evaluate.perceptual import Distances, perceptual
from ops.runtime.allocator import use_fast_allocator
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.runtime.stage import Stage, stage
from ops.store.pictures import encode_png

GREY = 128  # what surrounds a head when unseen views are compared: nobody could know the background


class InvertHeadsParams(Params):
    """What is inverted, and how."""

    heads: int = Field(default=20, ge=1, description="held-out heads")  # section 5.5: 20 pictures
    azimuth: float = Field(
        default=0.0, description="of the view given, degrees"
    )  # section 5.5: photographs, near front
    unseen: tuple[float, ...] = (-90.0, -45.0, 45.0, 90.0, 180.0)  # unpublished: our choice
    variants: tuple[str, ...] = Field(default=(), description="which checkpoints; all if none is named")
    frames: int = Field(
        default=60, ge=0, description="of the first head's video; 0 for none"
    )  # unpublished: our choice
    inversion: InversionParams = InversionParams()
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _unseen_is_not_seen(self) -> Self:
        if not self.unseen or self.azimuth in self.unseen:
            raise ValueError("unseen must hold at least one azimuth, and not the one that is given")
        return self


@stage("invert_heads", InvertHeadsParams)
def main(s: Stage[InvertHeadsParams], checkpoints: Path, weights: Path, out: Path) -> None:
    """Invert held-out heads from one view each, and compare with the truth of that view and of the others."""
    p = s.params
    torch.set_num_threads(1)  # sums depend on the number of threads
    device = ("cuda" if torch.cuda.is_available() else "cpu") if p.device == "auto" else p.device
    folders = find_variants(checkpoints)
    absent = [name for name in p.variants if name not in folders]
    if absent:
        raise LineamentError(f"{checkpoints}: no checkpoint of {', '.join(absent)}; there are {', '.join(folders)}.")
    folders = {name: folder for name, folder in folders.items() if not p.variants or name in p.variants}
    backbone = load_features(weights, p.inversion.perceptual_side, device)
    apart = perceptual(backbone, device)
    watch = partial(_watch, s)
    truths: dict[int, list[TrueHead]] = {}
    results: dict[str, Any] = {}
    shown = []
    with publish(out, folder=True) as folder:
        for name, where in folders.items():
            generator = Heads(where, device)
            side = generator.resolution
            if side not in truths:
                truths[side] = held_out_heads(p.heads, [p.azimuth, *p.unseen], side)
            entries, rows = [], []
            made = inversions(generator, truths[side], p.inversion, backbone, watch)
            for number, (truth, found, views) in enumerate(made):
                entries.append(compare(truth, views, apart))
                rows.append(np.concatenate([truth.pictures, views["tuned"]]))
                if number == 0 and p.frames:
                    _film(folder / f"video_{name}.mp4", generator, found, p.frames)
            results[name] = {"mean": mean_of(entries, p.unseen), "heads": entries, "checkpoint": generator.digest}
            picture = grid(np.concatenate(rows), 1 + len(p.unseen))
            (folder / f"inversions_{name}.png").write_bytes(encode_png(picture))
            shown.append(picture[: 2 * (side + 2)])
            tuned = results[name]["mean"]["tuned"]
            s.log(f"{name}: {tuned['input']['psnr']:.1f} dB seen, {tuned['unseen']['psnr']:.1f} dB unseen")
        about = {**p.model_dump(mode="json"), "backbone_sha256": backbone.digest, "resize": backbone.rule}
        record = {"protocol": about, "variants": results, "limits": LIMITS}
        (folder / "inversions.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
    s.metrics({"heads": p.heads, "variants": {name: found["mean"] for name, found in results.items()}})
    s.preview(_stack(shown))


LIMITS = (
    "The heads inverted are rendered, of people that training has not seen, not photographs; their cameras are known "
    "exactly, those of photographs are estimated.",
    "Unseen views are compared over the true head only. A blurred average head scores well in PSNR; the perceptual "
    "distance sees that it is blurred.",
    "perceptual_mobilenetv2 is no LPIPS: its network and weights are others.",
)


def inversions(
    generator: Heads, truths: Iterable[TrueHead], p: InversionParams, backbone: MobileNetFeatures, watch: Watch
) -> Iterator[tuple[TrueHead, Inversion, dict[str, np.ndarray]]]:
    """Each head inverted from its first view: the truth, what was found, and by stage its pictures from all cameras."""
    params = _possible(p, generator)
    for truth in truths:
        found = invert(generator, _target(truth, params), backbone.network, params, watch)
        yield truth, found, _views(generator, found, truth)


def compare(truth: TrueHead, views: dict[str, np.ndarray], perceptual: Mapping[str, Distances]) -> dict[str, Any]:
    """Numbers of one head: of the view given (whole picture), and of each unseen one over the true head.

    Args:
        truth: the head; its first view was given.
        views: by stage (``average``, ``styles``, ``tuned``), (V, S, S, 3) uint8 from the same cameras.
        perceptual: perceptual distances by name.
    """
    found: dict[str, Any] = {}
    true_heads = [_on_grey(picture, mask) for picture, mask in zip(truth.pictures, truth.masks)]
    for name, pictures in views.items():
        heads = [_on_grey(picture, mask) for picture, mask in zip(pictures, truth.masks)]
        a, b = [truth.pictures[0], *true_heads[1:]], [pictures[0], *heads[1:]]
        columns = {"psnr": list(map(psnr, a, b)), "ssim": list(map(ssim, a, b))}
        columns |= {measure: list(map(float, distances(a, b))) for measure, distances in perceptual.items()}
        rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
        found[name] = [{key: float(f"{value:.5g}") for key, value in row.items()} for row in rows]
    return found


def mean_of(entries: list[dict[str, Any]], unseen: tuple[float, ...]) -> dict[str, Any]:
    """Means over heads by stage: of the view given, of all unseen ones, and of each."""

    def mean(rows: Iterable[dict[str, float]]) -> dict[str, float]:
        kept = list(rows)
        return {key: float(f"{np.mean([row[key] for row in kept]):.5g}") for key in kept[0]}

    return {
        stage_: {
            "input": mean(entry[stage_][0] for entry in entries),
            "unseen": mean(row for entry in entries for row in entry[stage_][1:]),
            "by_azimuth": {
                f"{azimuth:g}": mean(entry[stage_][1 + i] for entry in entries) for i, azimuth in enumerate(unseen)
            },
        }
        for stage_ in entries[0]
    }


def _possible(p: InversionParams, generator: Heads) -> InversionParams:
    """The parameters without the terms that this generator lacks."""
    lacks = {} if generator.config.foreground else {"mask": 0.0}
    return p.model_copy(update=lacks if generator.config.has_parsing else {**lacks, "parsing": 0.0})


def _target(truth: TrueHead, p: InversionParams) -> Target:
    picture = torch.from_numpy(truth.pictures[:1]).permute(0, 3, 1, 2).float() / 127.5 - 1
    mask = torch.from_numpy(truth.masks[:1, None]).float() / 255 if p.mask else None
    parsing = torch.from_numpy(truth.parsings[:1]).long() if p.parsing else None
    return Target(picture, torch.from_numpy(truth.cameras[:1]), mask, parsing)


def _views(generator: Heads, found: Inversion, truth: TrueHead) -> dict[str, np.ndarray]:
    """The head from all cameras of the truth, at every stage of the inversion."""
    labels = torch.from_numpy(truth.cameras).to(generator.device)

    def seen(net_styles: tuple[Any, Tensor]) -> np.ndarray:
        cache = HeadCache(*net_styles, occupancy=None)
        return np.concatenate([to_uint8(generator.checked(cache.view(label)).image) for label in labels.split(1)])

    stages = {
        "average": (generator.net, found.average),
        "styles": (generator.net, found.styles),
        "tuned": (found.net, found.styles),
    }
    return {name: seen(pair) for name, pair in stages.items()}


def _film(path: Path, generator: Heads, found: Inversion, frames: int) -> None:
    cache = HeadCache(found.net, found.styles)
    with Film(path) as film:
        for label in turntable(frames).to(generator.device).split(1):
            film.add(panels(cache.view(label), label, ("picture", "depth"), max(generator.resolution, 128))[0])


def _on_grey(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask[..., None] > 127, picture, np.uint8(GREY))


def _stack(pictures: list[np.ndarray]) -> np.ndarray:
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(p, ((0, 4), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
    return np.concatenate(padded)


def _watch(s: Stage[InvertHeadsParams], steps: Iterable[int], what: str) -> Iterable[int]:
    return s.progress(steps, desc=what, unit="step")


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
