"""Stage ``heads``: the square around each head and its camera, from whatever side it is seen.

Two ways lead there. Where the face path found a camera (``camera``), the head's centre and distance follow from it:
a view from the front. All others are seen by the network of ``train_headpose`` alone (``ops.perception.headpose``).
The mean step from the network's square to the true one, over all front pictures of the source, corrects the others
(SphereHead App. 0.B). All squares are centred on the head's middle and upright with the head, and large enough that a
camera with the focal length of all crops stands at 2.7, as eq. 9 has it: FFHQ's own square follows the face, which
stands a quarter of a side off the head's middle when it is turned by 45 degrees.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from ops.curate import review
from ops.curate.crop import outside_share, quad_side
from ops.curate.labelling import Sample, finish, label_shards
from ops.curate.poses import rotation_angle
from ops.curate.sheets import draw_polygon
from ops.curate.squares import VIEWS, Square, Step, camera_of, mean_step, square_of_face, view_of
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.store import tables

_NUMBERS = ("crop_size", "yaw", "pitch", "roll", "presence", "flip_error", "disagreement", "outside")
SCHEMA = tables.schema(
    pa.field("box", pa.list_(pa.float32())),
    pa.field("quad", pa.list_(pa.float32())),
    pa.field("camera", pa.list_(pa.float32())),
    *(pa.field(name, pa.float32()) for name in _NUMBERS),
    pa.field("view", pa.string()),
    pa.field("method", pa.string()),
    pa.field("faces", pa.int32()),
)
_SEEN = ("x", "y", "side", "roll", "yaw", "pitch")
SEEN = pa.schema(
    [*SCHEMA, *(pa.field(f"seen_{name}", pa.float64()) for name in _SEEN)]
    + [pa.field(name, pa.int32()) for name in ("width", "height")]
)


class HeadsParams(Params):
    min_presence: float = Field(0.5, ge=0, le=1, description="probability that there is a head")  # our choice
    # SphereHead vets back views by flipping and by hand; the limit is unpublished: our choice
    max_flip_error: float = Field(30.0, description="degrees between a label and that of the mirrored picture")
    max_disagreement: float = Field(
        45.0, description="degrees between landmarks and network"
    )  # unpublished: our choice
    # The network, which has seen the studio alone, finds heads in parasols too, mostly turned to the front. Of the
    # studio's heads whose face nothing finds it sees none within 90 degrees of the front. Unpublished: our choice
    shows_face: float = Field(60.0, ge=0, description="degrees of azimuth within which a head must show a face")
    scale_min: float = Field(0.7, gt=0, description="square by FFHQ's square, front views")  # WildHead.DatProc
    scale_max: float = Field(1.3, gt=0)  # WildHead.DatProc
    max_pitch: float = Field(80.0, description="degrees")  # SphereHead App. 0.B
    max_roll: float = Field(50.0, description="degrees the head leans in the picture")  # SphereHead App. 0.B
    min_crop: float = Field(64.0, description="side of the square in pixels")  # unpublished: our choice
    max_outside: float = Field(0.35, ge=0, le=1, description="share outside the picture")  # unpublished: our choice
    # SphereHead App. 0.B uses a YOLO head network; a picture without a box falls there
    boxes: Literal["embedded", "yolo"] = Field("embedded", description="yolo: the user's network, `lineament weights`")
    # SphereHead App. 0.B has WHENet say how heads are turned that show no face
    angles: Literal["embedded", "whenet"] = Field("embedded", description="whenet: the user's, `lineament weights`")
    # As for faces in ops.curate.detect, whose word it is unless boxes are the user's. Unpublished: our choice
    several: Literal["reject", "largest", "all"] = Field("reject", description="of several heads, keep these")
    several_share: float = Field(0.4, description="a second head counts from this share of the largest's area")  # ours
    scale: float = Field(1.0, gt=0, description="of the square; the focal length shrinks with it")  # eq. 8 and FFHQ


def see(samples: Iterator[Sample], params: HeadsParams, network: Path) -> Iterable[dict[str, Any]]:
    """One row a head, as the network sees it."""
    from ops.curate.seeing import heads_of  # takes torch, which what comes after has no use for

    yield from heads_of(samples, params, network)


def decide(
    seen: pa.Table,
    faces: dict[str, Square],
    ratios: dict[str, float],
    params: HeadsParams,
    rivals: Container[str] | None = None,
    step: Step | None = None,
    faceless: Container[str] = (),
) -> pa.Table:
    """Choose the way for each picture, correct the network's squares, and apply the limits.

    Args:
        seen: what see() said; faces: squares of the pictures with a front camera; ratios: each one's by FFHQ's square.
        rivals: pictures in which more than one head counts; by the column ``faces`` if not given.
        step: the mean step of all pictures; of these if not given.
        faceless: pictures in which no face was found.
    """
    rows = seen.to_pylist()
    squares = {row["id"]: _square(row) for row in rows if row["kept"]}
    step = step or mean_step((squares[key], faces[key]) for key in squares if key in faces)
    result = []
    for row in rows:
        key = row["id"]
        if not row["kept"]:
            result.append({name: row[name] for name in SCHEMA.names})
            continue
        face = faces.get(key)
        square = face or step(squares[key])
        square = Square(square.centre, square.side * params.scale, square.roll, square.yaw, square.pitch)
        apart = None if face is None else rotation_angle(face.rotation, squares[key].rotation)
        columns = {name: row[name] for name in ("box", "presence", "flip_error", "faces")}
        if rivals is not None and key not in rivals:
            columns["faces"] = min(columns["faces"], 1)
        columns |= {
            "quad": square.quad.ravel().tolist(),
            "camera": camera_of(square, params.scale).tolist(),
            "crop_size": square.side,
            "yaw": square.yaw,
            "pitch": square.pitch,
            "roll": square.roll,
            "disagreement": apart,
            "outside": outside_share(square.quad, row["width"], row["height"]),
            "view": view_of(square.yaw),
            "method": "network" if face is None else "landmarks",
        }
        reason = _why_not(columns, ratios.get(key, 1.0), key in faceless, params)
        result.append({"id": key, **columns, "kept": reason is None, "reason": reason})
    return pa.Table.from_pylist(result, schema=SCHEMA)


def _square(row: dict[str, Any]) -> Square:
    centre = np.array([row["seen_x"], row["seen_y"]])
    return Square(centre, *(row[f"seen_{name}"] for name in ("side", "roll", "yaw", "pitch")))


def _by_hand(one: review.Decision) -> dict[str, Any]:
    """What a pose corrected by hand changes besides the camera; how the head leans in the picture it leaves alone."""
    return {"yaw": one.yaw, "pitch": one.pitch, "view": view_of(one.yaw)}


def _why_not(row: dict[str, Any], ratio: float, faceless: bool, params: HeadsParams) -> str | None:
    by_network = row["method"] == "network"
    checks = {
        "no_head": by_network and row["presence"] < params.min_presence,
        "several_heads": params.several == "reject" and row["faces"] > 1,
        "flip_inconsistent": by_network and row["flip_error"] > params.max_flip_error,
        "face_unseen": by_network and faceless and abs(row["yaw"]) < params.shows_face,
        "labels_disagree": not by_network and row["disagreement"] > params.max_disagreement,
        "scale_out_of_range": not params.scale_min <= ratio <= params.scale_max,
        "tilted_too_far": abs(row["pitch"]) > params.max_pitch,
        "rolled_too_far": abs(row["roll"]) > params.max_roll,
        "crop_too_small": row["crop_size"] < params.min_crop,
        "too_far_outside": row["outside"] > params.max_outside,
    }
    return next((reason for reason, holds in checks.items() if holds), None)


@stage("heads", HeadsParams)
def main(
    s: Stage[HeadsParams],
    raw: Path,
    screened: Path,
    detected: Path,
    aligned: Path,
    cameras: Path,
    network: Path,
    out: Path,
) -> None:
    """Place the square around each head and find its camera, from whatever side it is seen."""
    code = [
        "ops.curate.seeing",
        "ops.curate.poses",
        "ops.perception.headpose",
        "ops.perception.whenet",
        "ops.perception.yolo",
        "ops.curate.crop",
        "models.headpose",
        "models.features",
        "models.trunk",
    ]
    seen = label_shards(
        s,
        raw,
        detected,
        partial(see, network=network),
        SEEN,
        joined=[screened],
        rejected_too=True,
        expands=True,
        weights=network,
        code=code,
        loads=["ops.curate.seeing"],
    )
    front = _Front(cameras, aligned)
    step = mean_step(pair for part in seen for pair in _pairs(part, front.squares(part)[0]))
    rivals, faceless = None, set[str]()
    if s.params.boxes == "embedded":  # the stage detect has judged already whether small faces count
        said = tables.read(detected, tables.NAMES)
        rivals, faceless = (
            set(said.column("id").filter(pc.equal(said.column("reason"), reason)).to_pylist())
            for reason in ("several_faces", "no_face")
        )
    decisions = review.read()

    def decided(part: pa.Table) -> pa.Table:
        return review.apply(decide(part, *front.squares(part), s.params, rivals, step, faceless), decisions, _by_hand)

    finish(
        s,
        seen.map(decided),
        raw,
        out,
        lambda image, row: draw_polygon(image, np.array(row["quad"]).reshape(4, 2)),
        lambda row: f"{row['yaw']:+.0f} {row['method']}",
    )
    kept = tables.kept(tables.read(out, [*tables.NAMES, "view", "method", "flip_error"]))
    errors = tables.read(out, [*tables.NAMES, "flip_error"]).column("flip_error").drop_null().to_numpy()
    s.metrics(
        {
            "views": {view: pc.sum(pc.equal(kept.column("view"), view)).as_py() or 0 for view in VIEWS},
            "methods": {
                way: pc.sum(pc.equal(kept.column("method"), way)).as_py() or 0 for way in ("landmarks", "network")
            },
            "median_flip_error": round(float(np.median(errors)), 3) if len(errors) else None,
        }
    )


class _Front:
    """The squares of the heads whose camera the face path found, read for some heads at a time."""

    def __init__(self, cameras: Path, aligned: Path) -> None:
        self._paths = (cameras, aligned)
        self._ids = [tables.ids(path) for path in self._paths]

    def squares(self, part: pa.Table) -> tuple[dict[str, Square], dict[str, float]]:
        """Squares, and their sides by those of FFHQ's squares, by id, of those of a table that have one."""
        ids = part.column("id").combine_chunks()
        numbers = [tables.places(ids, known, exactly=True) for known in self._ids]
        there = numbers[0] >= 0
        found, ratios = {}, {}
        rows = [tables.take(path, some[there]) for path, some in zip(self._paths, numbers)]
        for camera, aligned in zip(*rows, strict=True):
            if camera["kept"]:
                quad = np.array(aligned["quad"]).reshape(4, 2)
                square = square_of_face(quad, np.array(camera["camera"]), camera["distance"])
                found[camera["id"]], ratios[camera["id"]] = square, square.side / quad_side(quad)
        return found, ratios


def _pairs(seen: pa.Table, faces: dict[str, Square]) -> Iterator[tuple[Square, Square]]:
    """The network's square and the true one of each head that has both."""
    for row in seen.to_pylist():
        if row["kept"] and row["id"] in faces:
            yield _square(row), faces[row["id"]]


if __name__ == "__main__":
    raise SystemExit(main())
