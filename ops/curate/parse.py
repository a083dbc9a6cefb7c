"""Stage ``parse``: what each pixel of each head's crop shows, by vote, and which pixels are the person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from ops.curate import poses
from ops.curate.crop import crop_quad
from ops.curate.labelling import FILES, Sample, finish, keep, label_shards, reject
from ops.perception.facemesh import canonical_points
from ops.perception.onnx import IMAGENET, onnx_network
from ops.perception.selfie import person_mask
from ops.perception.voting import cleaned, likeliest, majority, shares
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.runtime.weights import require
from ops.store import pictures, tables
from ops.store.parsing import CLASSES, coloured
from ops.store.tar import Shard, shard_paths

_NUMBERS = ("mask_ratio", "parsing_ratio", "disagreement", "occlusion")
SCHEMA = tables.schema(*(pa.field(name, pa.float32()) for name in _NUMBERS), pa.field("shares", pa.list_(pa.float32())))
_BISENET = (  # the classes of zllrunning/face-parsing.PyTorch in its order
    "background skin left_brow right_brow left_eye right_eye glasses left_ear right_ear earring nose mouth upper_lip "
    "lower_lip neck necklace cloth hair hat"
)
# What does not belong before a face; hair does, as a fringe or a beard.
_STRANGE = [CLASSES.index(name) for name in ("background", "hat", "neck", "necklace", "cloth")]


class Voter(Params):
    """A parser that the user supplies as ONNX: (1, 3, side, side) in, (1, classes, side, side) scores out."""

    network: Path
    side: int = Field(512, ge=16)  # BiSeNet, zllrunning/face-parsing.PyTorch
    mean: tuple[float, float, float] = IMAGENET[0]
    deviation: tuple[float, float, float] = IMAGENET[1]
    classes: tuple[str, ...] = tuple(_BISENET.split())

    @field_validator("classes")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in CLASSES:
                raise ValueError(f"there is no class '{name}'; there are {', '.join(CLASSES)}")
        return value

    def vote(self, crop: np.ndarray) -> np.ndarray:
        """(C, side, side) scores of a crop, sorted into the project's 19 classes; those it does not know get least."""
        x = (pictures.resize(crop, self.side) / 255 - self.mean) / self.deviation
        (scores, *_) = onnx_network(self.network)(x.transpose(2, 0, 1)[None])
        if scores.shape[1] != len(self.classes):
            raise LineamentError(
                f"{self.network}: names {scores.shape[1]} classes, where parse.voters lists {len(self.classes)}."
            )
        sorted_scores = np.full((len(CLASSES), *scores.shape[2:]), scores.min() - 1, np.float32)
        for name, score in zip(self.classes, scores[0]):
            place = CLASSES.index(name)
            sorted_scores[place] = np.maximum(sorted_scores[place], score)
        return sorted_scores


class ParseParams(Params):
    resolution: int = Field(512, ge=16, description="side of the crops, masks and parsings")  # SphereHead: 512
    min_mask_ratio: float = Field(0.3, ge=0, le=1, description="share of person")  # SphereHead App. 0.B
    min_parsing_ratio: float = Field(0.3, ge=0, le=1, description="share of pixels with a class")  # SphereHead App. 0.B
    max_occlusion: float = Field(0.35, ge=0, le=1, description="share of the face that something covers")  # our choice
    max_disagreement: float = Field(0.35, ge=0, le=1, description="share of votes lost")  # unpublished: our choice
    smallest: float = Field(0.0008, ge=0, le=1, description="patches below this share are cleaned away")  # our choice
    voters: tuple[Voter, ...] = Field((), description="parsers besides the embedded one")  # SphereHead: three in all
    embedded: bool = Field(True, description="whether the embedded parser votes beside them")
    # On the studio's people the parser's person has an IoU of 0.95, 0.94 and 0.97 with the truth (front, side, back),
    # the selfie network's 0.96, 0.85 and 0.72: that one has learnt from people who look at their own camera.
    mask: Literal["parser", "selfie", "deeplabv3"] = Field("parser", description="who says which pixels are the person")
    mask_side: int = Field(512, ge=16, description="that deeplabv3, the user's, sees")  # SphereHead: pictures of 512


def votes_of(crop: np.ndarray, params: ParseParams, network: Path) -> list[np.ndarray]:
    """(H, W) uint8 classes by each parser, those that the user supplies first.

    The embedded parser has one vote beside others. Alone it votes thrice: for the crop, for its mirror image, and for
    the mean of both, so that the disagreement says how sure it is.
    """
    from ops.perception.parser import class_scores, named  # takes torch, which the stage itself has no use for
    from ops.perception.trained import parser

    votes = [likeliest(voter.vote(crop), len(crop)) for voter in params.voters]
    if params.embedded or not votes:
        scores = class_scores(crop, parser(network))
        mean = scores.mean(0, keepdims=True)
        votes += named(mean if votes else np.concatenate([mean, scores]), crop)
    return votes


def occlusion(classes: np.ndarray, camera: np.ndarray) -> float:
    """The share of the mean face's outline, seen by a camera (25,), where the parsing sees no face."""
    side = classes.shape[0]
    places = poses.project(camera, canonical_points())
    outline = cv2.convexHull((places * side).astype(np.float32)).astype(np.int32)
    face = cv2.fillConvexPoly(np.zeros(classes.shape, np.uint8), outline, 1).astype(bool)
    return float(np.isin(classes[face], _STRANGE).mean()) if face.any() else 1.0


def label(samples: Iterator[Sample], params: ParseParams, weights: Path, network: Path) -> Iterable[dict[str, object]]:
    """One row, one parsing and one mask a head."""
    for sample in samples:
        row = sample.row
        crop = crop_quad(sample.decode(), np.array(row["quad"]).reshape(4, 2), params.resolution)
        classes, disagreement = majority(votes_of(crop, params, network))
        classes = cleaned(classes, params.smallest)
        mask = np.where(classes > 0, 255, 0).astype(np.uint8)
        if params.mask == "selfie":
            mask = person_mask(crop, weights, params.resolution)
        elif params.mask == "deeplabv3":
            from ops.perception import deeplab

            mask = deeplab.person_mask(crop, require("deeplabv3"), params.mask_side, params.resolution)
        columns = {
            "mask_ratio": float(mask.mean() / 255),
            "parsing_ratio": float((classes > 0).mean()),
            "disagreement": disagreement,
            "occlusion": occlusion(classes, np.array(row["camera"])) if row["view"] == "front" else None,
            "shares": shares(classes).tolist(),
        }
        reason = _why_not(columns, params)
        columns[FILES] = {"png": pictures.encode_png(classes), "mask.png": pictures.encode_png(mask)}
        yield keep(sample, **columns) if reason is None else reject(sample, reason, **columns)


def _why_not(row: dict[str, object], params: ParseParams) -> str | None:
    checks = {
        "little_person": row["mask_ratio"] < params.min_mask_ratio,  # type: ignore[operator]
        "little_parsed": row["parsing_ratio"] < params.min_parsing_ratio,  # type: ignore[operator]
        "occluded": (row["occlusion"] or 0) > params.max_occlusion,  # type: ignore[operator]
        "parsers_disagree": row["disagreement"] > params.max_disagreement,  # type: ignore[operator]
    }
    return next((reason for reason, holds in checks.items() if holds), None)


@stage("parse", ParseParams)
def main(
    s: Stage[ParseParams], raw: Path, heads: Path, weights: Path, network: Path, parsings: Path, out: Path
) -> None:
    """Name what each pixel of each head shows, and which pixels are the person."""
    code = [
        "ops.curate.crop",
        "ops.curate.poses",
        "ops.perception.parser",
        "ops.perception.guided",
        "ops.perception.voting",
        "ops.perception.selfie",
        "ops.perception.deeplab",
        "models.parser",
    ]
    table = label_shards(
        s,
        raw,
        heads,
        partial(label, weights=weights, network=network),
        SCHEMA,
        files=parsings,
        weights=network,
        code=code,
        loads=["ops.perception.parser", "ops.perception.trained"],
    )
    found = {key: shard for shard in map(Shard, shard_paths(parsings)) for key in shard.keys}

    def draw(image: np.ndarray, row: dict[str, object]) -> np.ndarray:
        key = str(row["id"])
        crop = pictures.resize(crop_quad(image, np.array(row["quad"]).reshape(4, 2), 256), 256)
        classes = pictures.decode_grey(found[key].read(key, "png"))
        classes = cv2.resize(classes, (256, 256), interpolation=cv2.INTER_NEAREST)
        return np.rint(0.4 * crop + 0.6 * coloured(classes)).astype(np.uint8)

    finish(s, table, raw, out, draw, lambda row: f"{100 * row['parsing_ratio']:.0f} %", [heads])
    kept = tables.kept(tables.read(out, [*tables.NAMES, *_NUMBERS]))
    if len(kept):
        middle = {f"median_{n}": round(float(np.nanmedian(_column(kept, n))), 4) for n in _NUMBERS}
        s.metrics(middle)


def _column(table: pa.Table, name: str) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in table.column(name).to_pylist()])


if __name__ == "__main__":
    raise SystemExit(main())
