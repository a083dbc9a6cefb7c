"""Stage evaluate_giraffe: is a generated person the same from every side?

As in the AamNCE paper, section 4: each checkpoint draws the same objects from nine angles, and a recogniser compares
every side view with every frontal picture. Genuine pairs are of one object (N an angle), impostor pairs of two
different ones (all N (N - 1) of them).

python -m ops.evaluate.giraffe data/checkpoints/giraffe data/shards/faces data/evaluation/giraffe
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import cv2
import numpy as np
from pydantic import Field, model_validator

from ops.evaluate import published, verification
from ops.evaluate.giraffe_output import Measured, write_results
from ops.evaluate.identity import Name, Recogniser, load_recogniser
from ops.runtime.allocator import use_fast_allocator
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.runtime.shardwork import Piece, digest, run_pieces
from ops.runtime.stage import Stage, stage
from ops.store.reader import ShardDataset

THUMB = 32  # side of the pictures kept to measure how much a view changes
CODE = (
    "models.giraffe",
    "models.render.neural",
    "models.render.composite",
    "ops.apply.generators",
    "ops.evaluate.identity",
)


class EvaluateGiraffeParams(Params):
    """The paper's protocol."""

    objects: int = Field(default=1000, ge=3)  # section 4
    angles: tuple[float, ...] = published.ANGLES  # section 4; degrees, positive is the subject's left
    seed: int = Field(default=0, ge=0)  # fixed, its value unpublished: our choice
    recogniser: Name = "dlib_128d"  # section 4: LightCNN, which is lightcnn29 here and needs weights of the user's
    weights: Path | None = Field(default=None, description="the recogniser's weights, for lightcnn29")
    weights_sha256: str = Field(default="", description="hash the weights must have; empty for any")
    confidence: float = Field(default=0.95, gt=0, lt=1)  # unpublished: our choice
    strip_objects: int = Field(default=5, ge=1)  # rows of the strips; unpublished: our choice
    block: int = Field(default=8, ge=1, description="objects a piece of work")  # unpublished: our choice
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _has_front_and_sides(self) -> Self:
        if 0.0 not in self.angles or len(set(self.angles)) < 2 or len(set(self.angles)) != len(self.angles):
            raise ValueError("angles must be different and hold 0 (the frontal picture) and at least one other")
        return self


@dataclass(frozen=True)
class Block:
    """One piece of work: some objects of one checkpoint."""

    folder: Path
    first: int
    count: int
    params: EvaluateGiraffeParams


def measure_block(block: Block, out: Path) -> None:
    """Draw a block's objects and embed every picture; an ``npz`` with embeddings, thumbnails and the strip's rows."""
    import torch

    from ops.apply.generators import load_generator

    torch.set_num_threads(1)  # sums depend on the number of threads: one, wherever the block is done
    use_fast_allocator()
    p = block.params
    device = ("cuda" if torch.cuda.is_available() else "cpu") if p.device == "auto" else p.device
    renderer, recogniser = load_generator(block.folder, device), recogniser_of(p)
    seeds = [p.seed * 1_000_003 + block.first + i for i in range(block.count)]
    images = renderer.render(seeds, p.angles)
    flat = images.reshape(-1, *images.shape[2:])
    embeddings = recogniser.embed(list(flat)).reshape(*images.shape[:2], -1)
    thumbs = np.stack([cv2.resize(i, (THUMB, THUMB), interpolation=cv2.INTER_AREA) for i in flat])
    shown = images[: max(0, p.strip_objects - block.first)]
    with out.open("wb") as file:
        np.savez(file, embeddings=embeddings, thumbs=thumbs.reshape(*images.shape[:2], THUMB, THUMB, 3), shown=shown)


def recogniser_of(p: EvaluateGiraffeParams) -> Recogniser:
    """The recogniser that the parameters name."""
    return load_recogniser(p.recogniser, p.weights, p.weights_sha256)


@stage("evaluate_giraffe", EvaluateGiraffeParams)
def main(s: Stage[EvaluateGiraffeParams], checkpoints: Path, shards: Path, out: Path) -> None:
    """Verify generated objects from nine angles against their frontal pictures, for every variant."""
    p = s.params
    recogniser = recogniser_of(p)  # before any work, so that missing weights are named at once
    data_hash = ShardDataset(shards).hash
    folders = find_variants(checkpoints)
    records = {name: _record(folder) for name, folder in folders.items()}
    pieces = [piece for name in folders for piece in _pieces(name, folders[name], records[name], p, recogniser.digest)]
    paths = iter(run_pieces(s, pieces, measure_block, code=CODE, suffix=".npz", unit="block"))
    measured = []
    for name in folders:
        parts = [np.load(next(paths)) for _ in range(0, p.objects, p.block)]
        embeddings, thumbs, shown = (
            np.concatenate([part[key] for part in parts if len(part[key])]) for key in ("embeddings", "thumbs", "shown")
        )
        measured.append(measure(name, records[name], embeddings, thumbs, shown, p, recogniser))
    with publish(out, folder=True) as folder:
        results, preview = write_results(folder, measured, p, recogniser, data_hash)
    s.metrics(_summary(results))
    s.preview(preview)
    for m in measured:
        s.log(f"{m.variant}: mean AUC {m.mean_auc:.3f} over {len(p.angles) - 1} angles, {p.objects} objects")


def find_variants(checkpoints: Path) -> dict[str, Path]:
    """Published checkpoints by variant, the paper's first and in its order.

    Raises:
        LineamentError: there is none.
    """
    found = {path.parent.name: path.parent for path in sorted(checkpoints.glob("*/config.json"))}
    if not found:
        raise LineamentError(f"{checkpoints}: no checkpoint found. Train one first: dvc repro train_giraffe.")
    known = [name for name in published.AAMNCE_AUC if name in found]
    return {name: found[name] for name in [*known, *(n for n in found if n not in known)]}


def measure(
    variant: str,
    record: dict[str, Any],
    embeddings: np.ndarray,
    thumbs: np.ndarray,
    shown: np.ndarray,
    p: EvaluateGiraffeParams,
    recogniser: Recogniser,
) -> Measured:
    """All numbers of one checkpoint.

    Args:
        variant: its name.
        record: its ``config.json``.
        embeddings: (N, A, D) of N objects from A angles.
        thumbs: (N, A, h, h, 3) uint8 small pictures.
        shown: (n, A, H, H, 3) uint8 rows of the strip.
        p: the protocol.
        recogniser: compares embeddings.
    """
    front = p.angles.index(0.0)
    small = thumbs.astype(np.float32)
    angles = {}
    for column, azimuth in sorted(enumerate(p.angles), key=lambda item: -item[1]):
        if column == front:
            continue
        scores = recogniser.similarity(embeddings[:, front], embeddings[:, column])
        genuine, impostor = verification.pairs(scores)
        curve = verification.roc(genuine, impostor)
        angles[published.angle_name(azimuth)] = {
            "azimuth": azimuth,
            "curve": curve,
            "by_pair": verification.delong(genuine, impostor, p.confidence),
            "by_object": verification.by_object(scores, p.confidence),
            "eer": verification.equal_error_rate(curve),
            "genuine": len(genuine),
            "impostor": len(impostor),
            "change": float(np.abs(small[:, column] - small[:, front]).mean()),
        }
    between = float(np.abs(small[:, front] - np.roll(small[:, front], 1, axis=0)).mean())
    return Measured(variant, record, angles, between, shown)


def _record(folder: Path) -> dict[str, Any]:
    from ops.train.export import read_config

    return read_config(folder)


def _pieces(
    name: str, folder: Path, record: dict[str, Any], p: EvaluateGiraffeParams, recogniser: str
) -> Sequence[Piece]:
    from ops.apply.generators import checkpoint_digest

    identity = digest(checkpoint_digest(record), recogniser)
    starts = range(0, p.objects, p.block)
    return [
        Piece(f"{name}-{first:06d}", identity, Block(folder, first, min(p.block, p.objects - first), p))
        for first in starts
    ]


def _summary(results: dict[str, Any]) -> dict[str, Any]:
    """The few numbers that git keeps."""
    variants = {
        name: {
            "mean_auc": entry["mean_auc"],
            "interval": entry["mean_interval"],
            "auc": {angle: row["auc"] for angle, row in entry["angles"].items()},
        }
        for name, entry in results["variants"].items()
    }
    keys = ("recogniser", "objects", "genuine_pairs", "impostor_pairs", "seed")
    return {"variants": variants, **{key: results["protocol"][key] for key in keys}}


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
