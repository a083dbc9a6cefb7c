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
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field

from models import camera as geometry
from ops.curate import review
from ops.curate.camera import CROP_FOCAL, angles, label_of
from ops.curate.crop import from_crop, outside_share, quad_side, square_quad
from ops.curate.labelling import Sample, finish, keep, label_shards, reject
from ops.curate.sheets import draw_polygon
from ops.perception.headpose import Head, look, rotation_angle
from ops.perception.trained import headpose
from ops.perception.whenet import turned_head
from ops.perception.yolo import head_boxes, square_of_box
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.runtime.weights import require
from ops.store import tables
from ops.store.tables import head_id, picture_of

VIEWS = ("front", "side", "back")
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


@dataclass(frozen=True)
class Square:
    """A head as both ways describe it: centre (2,) and side in pixels; lean in the picture and camera in degrees."""

    centre: np.ndarray
    side: float
    roll: float
    yaw: float
    pitch: float

    @property
    def quad(self) -> np.ndarray:
        """(4, 2) corners."""
        return square_quad(self.centre, self.side, np.deg2rad(self.roll))

    @property
    def down(self) -> np.ndarray:
        """(2,) unit vector from the crown to the chin in the picture."""
        lean = np.deg2rad(self.roll)
        return np.array([-np.sin(lean), np.cos(lean)])

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) camera-to-world in the picture, lean included."""
        yaw, pitch, roll = (torch.tensor(np.deg2rad(v)) for v in (self.yaw, self.pitch, -self.roll))
        return geometry.pose_on_sphere(yaw, pitch, roll=roll)[:3, :3].numpy()


@dataclass(frozen=True)
class Step:
    """The mean similarity from the network's squares to the true ones: a factor, and a shift down in sides.

    A mirrored picture must get the mirrored square, so there is no shift to the side and no turn.
    """

    scale: float = 1.0
    down: float = 0.0

    def __call__(self, square: Square) -> Square:
        shift = self.down * square.side * square.down
        return Square(square.centre + shift, square.side * self.scale, square.roll, square.yaw, square.pitch)


def mean_step(pairs: Iterable[tuple[Square, Square]]) -> Step:
    """The mean step from the first squares to the second, to a hundredth; none without pairs.

    Rounded, so that a few new pictures do not move the squares of all others, whose later labels then stand.
    """
    steps = [
        (np.log(true.side / seen.side), (true.centre - seen.centre) @ seen.down / seen.side) for seen, true in pairs
    ]
    if not steps:
        return Step()
    scale, down = np.mean(steps, axis=0)
    return Step(round(float(np.exp(scale)), 2), round(float(down), 2))


def square_of_face(quad: np.ndarray, camera: np.ndarray, distance: float) -> Square:
    """The head's square from a face's.

    Args:
        quad: (4, 2) FFHQ's square; camera: (25,) its label, at any distance; distance: the one measured.
    """
    pose, focal = camera[:16].reshape(4, 4).astype(np.float64), float(camera[16])
    eye = pose[:3, 3] / np.linalg.norm(pose[:3, 3])
    x, y, z = -distance * eye @ pose[:3, :3]
    centre = from_crop(np.array([x, y]) * focal / z + 0.5, quad)
    # Turn the camera straight to the head; what roll is left is how the head leans in FFHQ's square.
    towards = geometry.look_at(torch.from_numpy(eye), torch.zeros(3, dtype=torch.float64)).numpy()
    turned = pose.copy()
    turned[:3, :3] = _shortest(pose[:3, 2], -eye) @ pose[:3, :3]
    _, _, roll = angles(turned)
    yaw, pitch, _ = angles(towards)
    across = quad[3] - quad[0]
    lean = np.rad2deg(np.arctan2(across[1], across[0])) - roll
    return Square(centre, quad_side(quad) * geometry.FFHQ_RADIUS / z, float(lean), yaw, pitch)


def _shortest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(3, 3) the smallest rotation that takes unit vector a to b."""
    v, c = np.cross(a, b), float(a @ b)
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + k + k @ k / (1 + c)


def camera_of(square: Square, scale: float) -> np.ndarray:
    """(25,) label of a square's crop: on the sphere of 2.7, looking at the head's centre, upright (eq. 8 and 9)."""
    yaw, pitch = (torch.tensor(np.deg2rad(v), dtype=torch.float64) for v in (square.yaw, square.pitch))
    return label_of(geometry.pose_on_sphere(yaw, pitch).numpy(), "fixed", CROP_FOCAL / scale)


def view_of(yaw: float) -> str:
    """front, side or back: 90 degrees each for front and back (WildHead.DatProc), both sides are one."""
    return VIEWS[int(abs(yaw) > 45) + int(abs(yaw) > 135)]


def see(samples: Iterator[Sample], params: HeadsParams, network: Path) -> Iterable[dict[str, Any]]:
    """One row a head, as the network sees it: those of the stage ``detect``, or all that the user's boxes are about."""
    for key, some in groupby(samples, key=lambda sample: picture_of(sample.id)):
        heads = list(some)
        image = heads[0].decode()
        if params.boxes == "yolo":
            boxes = [box for box, _ in head_boxes(image, require("yolo_head"))]
            for sample, box, count in _boxed(key, heads, boxes, params):
                if box is None:
                    yield reject(sample, "no_head", faces=count)
                else:
                    yield _seen(sample, image, count, square_quad(*square_of_box(box)), network, params)
            continue
        for sample in heads:
            row, start = sample.row, None
            if row["faces"]:
                low, high = _corners(row)
                start = square_quad((low + high) / 2, float((high - low).max()) * FACE_TO_WINDOW)
            yield _seen(sample, image, row["faces"], start, network, params)


def _boxed(
    key: str, heads: list[Sample], boxes: list[np.ndarray], params: HeadsParams
) -> Iterator[tuple[Sample, np.ndarray | None, int]]:
    """Samples with the boxes that are theirs and the number of heads that count; None where there is none.

    A face takes the largest box about its middle. Of a picture with one sample the largest box is that sample's. What
    boxes are left are heads without a face, and get new numbers, if all are wanted.
    """
    areas = [float(np.prod(box[2:] - box[:2])) for box in boxes]
    left = [box for box, area in zip(boxes, areas) if area >= params.several_share * areas[0]]
    count = len(left)
    for sample in heads:
        box = next((box for box in left if len(heads) == 1 or _inside(sample.row, box)), None)
        left = [other for other in left if other is not box]
        yield sample, box, count
    if params.several == "all":
        for number, box in enumerate(left, start=len(heads) + 1):
            yield replace(heads[0], id=head_id(key, number)), box, count


def _corners(row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row["x0"], row["y0"]]), np.array([row["x1"], row["y1"]])


def _inside(row: dict[str, Any], box: np.ndarray) -> bool:
    middle = np.mean(_corners(row), axis=0)
    return bool((box[:2] <= middle).all() and (middle <= box[2:]).all())


def _seen(
    sample: Sample, image: np.ndarray, heads: int, start: np.ndarray | None, network: Path, params: HeadsParams
) -> dict[str, Any]:
    head = look(image, headpose(network), start)
    if params.angles == "whenet":
        head = turned_head(image, head, require("whenet"))
    return keep(
        sample,
        **{f"seen_{name}": float(value) for name, value in _numbers(head).items()},
        presence=head.presence,
        flip_error=head.flip_error,
        faces=heads,
        width=sample.row["width"],
        height=sample.row["height"],
        box=[*(head.centre - head.side / 2), *(head.centre + head.side / 2)],
    )


FACE_TO_WINDOW = 2.5  # BlazeFace's box holds the face alone; unpublished: our choice


def _numbers(head: Head) -> dict[str, float]:
    x, y = head.centre
    return {"x": x, "y": y, "side": head.side, "roll": head.roll, "yaw": head.azimuth, "pitch": head.elevation}


def decide(
    seen: pa.Table,
    faces: dict[str, Square],
    ratios: dict[str, float],
    params: HeadsParams,
    rivals: Container[str] | None = None,
    step: Step | None = None,
) -> pa.Table:
    """Choose the way for each picture, correct the network's squares, and apply the limits.

    Args:
        seen: what see() said; faces: squares of the pictures with a front camera; ratios: each one's by FFHQ's square.
        rivals: pictures in which more than one head counts; by the column ``faces`` if not given.
        step: the mean step of all pictures; of these if not given.
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
        reason = _why_not(columns, ratios.get(key, 1.0), params)
        result.append({"id": key, **columns, "kept": reason is None, "reason": reason})
    return pa.Table.from_pylist(result, schema=SCHEMA)


def _square(row: dict[str, Any]) -> Square:
    centre = np.array([row["seen_x"], row["seen_y"]])
    return Square(centre, *(row[f"seen_{name}"] for name in ("side", "roll", "yaw", "pitch")))


def _by_hand(one: review.Decision) -> dict[str, Any]:
    """What a pose corrected by hand changes besides the camera; how the head leans in the picture it leaves alone."""
    return {"yaw": one.yaw, "pitch": one.pitch, "view": view_of(one.yaw)}


def _why_not(row: dict[str, Any], ratio: float, params: HeadsParams) -> str | None:
    by_network = row["method"] == "network"
    checks = {
        "no_head": by_network and row["presence"] < params.min_presence,
        "several_heads": params.several == "reject" and row["faces"] > 1,
        "flip_inconsistent": by_network and row["flip_error"] > params.max_flip_error,
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
        "ops.perception.headpose",
        "ops.perception.whenet",
        "ops.perception.yolo",
        "ops.curate.crop",
        "models.headpose",
        "models.features",
        "models.camera",
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
    )
    front = _Front(cameras, aligned)
    step = mean_step(pair for part in seen for pair in _pairs(part, front.squares(part)[0]))
    rivals = None
    if s.params.boxes == "embedded":  # the stage detect has judged already whether small faces count
        said = tables.read(detected, tables.NAMES)
        rivals = set(said.column("id").filter(pc.equal(said.column("reason"), "several_faces")).to_pylist())
    decisions = review.read()

    def decided(part: pa.Table) -> pa.Table:
        return review.apply(decide(part, *front.squares(part), s.params, rivals, step), decisions, _by_hand)

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
