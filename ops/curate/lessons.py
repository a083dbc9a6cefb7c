"""Stage ``lessons``: small rendered pictures with their exact truth, for the networks that label heads to learn on.

The people in them are numbered from a million on, so no crawl of the studio ever shows them, whatever its seed: what
labels a crawl has never seen the truth of what it labels. Some people are held out, to measure on.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from models.camera import FFHQ_RADIUS
from ops.crawl.studio import code
from ops.curate.camera import CROP_FOCAL
from ops.curate.sheets import contact_sheet
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.runtime.shardwork import Piece, digest, run_pieces
from ops.runtime.stage import Stage, stage
from ops.store import parsing, pictures
from ops.store.tar import Shard, ShardWriter, TarWriter, shard_paths
from ops.studio import rubbish
from ops.studio.avatar import Avatar
from ops.studio.crawl import Studio
from ops.studio.params import StudioParams
from ops.studio.people import stream
from ops.studio.render import photograph
from ops.studio.scene import View, draw_view

FIRST = 1_000_000  # people of crawls have smaller numbers
SQUARE = FFHQ_RADIUS / CROP_FOCAL  # world units across a head's crop, at the head
TRAIN, HELD_OUT = "train", "held_out"
FACES_TRAIN, FACES_HELD_OUT = "faces_train", "faces_held_out"
FACE_NUMBERS = 1_000_000  # where the numbers of the views of faces begin
NOBODY = -1  # identity of pictures without a person


class LessonsParams(Params):
    people: int = Field(400, ge=2)  # unpublished: our choice, as all here
    held_out: int = Field(40, ge=1, description="of the people, to measure on")
    views: int = Field(40, ge=1, description="pictures of each person, evenly round the head")
    size: int = Field(320, ge=64, description="side of the pictures in pixels")
    seed: int = Field(0, ge=0)
    extent_min: float = Field(0.85, gt=0.5, description="world units across a picture, at the head")
    extent_max: float = Field(1.9, gt=0.5)
    elevation_spread: float = Field(14.0, ge=0, description="degrees, standard deviation")
    roll_spread: float = Field(8.0, ge=0, description="degrees, standard deviation")
    faces: int = Field(20, ge=0, description="further pictures of each person, about the front, with codes")
    face_spread: float = Field(30.0, gt=0, description="degrees, standard deviation of their azimuth")
    sceneries: float = Field(0.05, ge=0, le=1, description="pictures without a person, as a share of the others")
    per_shard: int = Field(512, ge=1)


@stage("lessons", LessonsParams)
def main(s: Stage[LessonsParams], out: Path) -> None:
    """Render pictures of heads from all sides, with parsing and pose, and of faces with their codes, to learn on."""
    p = s.params
    studio = StudioParams(
        people=p.people,
        views=p.views,
        size=p.size,
        seed=p.seed,
        azimuth_front_share=0,
        elevation_spread=p.elevation_spread,
        roll_spread=p.roll_spread,
        extent_min=p.extent_min,
        extent_max=p.extent_max,
    )
    pieces = [Piece(f"{n:06d}", digest(n, studio.model_dump(mode="json")), (studio, p, n)) for n in range(p.people)]
    parts = run_pieces(s, pieces, render, code=code(), suffix=".tar", unit="person")
    counts: dict[str, int] = {}
    with publish(out, folder=True) as folder:
        for names, chosen in (
            ((HELD_OUT, FACES_HELD_OUT), parts[: p.held_out]),
            ((TRAIN, FACES_TRAIN), parts[p.held_out :]),
        ):
            for name, of_faces in zip(names, (False, True)):
                counts[name] = 0
                with ShardWriter(folder / name, p.per_shard) as writer:
                    for part in chosen:
                        for key, fields in Shard(part).samples():
                            if key.startswith("f") == of_faces:
                                writer.add(key, fields)
                                counts[name] += 1
    s.metrics({"people": p.people, "held_out_people": p.held_out, "pictures": counts})
    s.preview(_sheet(out / TRAIN))


def render(payload: tuple[StudioParams, LessonsParams, int], out: Path) -> None:
    """All pictures of one person, now and then one without anybody, and then the person's face."""
    studio_params, params, number = payload
    studio = _studio(studio_params)
    rng = stream(params.seed, 40, number)
    with TarWriter(out) as tar:
        for view_number in range(params.views):
            view, shot = studio.shot(FIRST + number, view_number)
            truth = _truth(number, view, studio.avatar(FIRST + number))
            picture = rubbish.sensor_noise(shot.picture, rng)
            tar.add(f"p{number:05d}v{view_number:03d}", _fields(picture, shot.parsing, truth))
        for extra in range(int(rng.poisson(params.sceneries * params.views))):
            picture = rubbish.scenery(rng, params.size)
            nothing = np.zeros(picture.shape[:2], np.uint8)
            tar.add(f"p{number:05d}s{extra:03d}", _fields(picture, nothing, {"identity": NOBODY}))
        for face in range(params.faces):
            view = draw_view(_about_the_front(studio_params, params), studio.model, FIRST + number, FACE_NUMBERS + face)
            avatar = studio.avatar(FIRST + number)
            shot = photograph(studio.model, avatar, view)
            picture = rubbish.sensor_noise(shot.picture, stream(params.seed, 41, number, face))
            tar.add(f"f{number:05d}v{face:03d}", _fields(picture, shot.parsing, _truth(number, view, avatar)))


def _about_the_front(studio: StudioParams, params: LessonsParams) -> StudioParams:
    return studio.model_copy(update={"azimuth_front_share": 1.0, "azimuth_front_spread": params.face_spread})


def _truth(number: int, view: View, avatar: Avatar) -> dict[str, Any]:
    """What is known of a head: who it is, its codes, its place and turn."""
    return {
        "identity": number,
        "codes": {"identity": avatar.identity_code.tolist(), "expression": view.expression.tolist()},
        "azimuth": view.azimuth,
        "elevation": view.elevation,
        **head_square(view.camera, np.deg2rad(view.roll)),
    }


def head_square(camera: np.ndarray, roll: float) -> dict[str, float]:
    """Where the square around a head lies in a picture, from the picture's camera.

    The square is what a camera sees that looks at the head's centre from where this one is, with the focal length of
    all crops, from the distance of all crops (SphereHead eq. 8 and 9 with FFHQ's square).

    Args:
        camera: (25,) label of the whole picture.
        roll: of that camera, radians clockwise about its viewing axis.

    Returns:
        ``x``, ``y`` of the centre, ``side``, all in units of the picture's side; ``roll``: how far the head leans
        clockwise in the picture, degrees.
    """
    pose, focal = camera[:16].reshape(4, 4).astype(np.float64), float(camera[16])
    local = -pose[:3, 3] @ pose[:3, :3]
    x, y = focal * local[:2] / local[2] + 0.5
    return {"x": float(x), "y": float(y), "side": SQUARE * focal / float(local[2]), "roll": -float(np.rad2deg(roll))}


def _fields(picture: np.ndarray, classes: np.ndarray, truth: dict[str, Any]) -> dict[str, bytes]:
    return {
        "jpg": pictures.encode_jpeg(picture, 90),
        "parsing.png": pictures.encode_png(classes),
        "json": json.dumps(truth, sort_keys=True).encode(),
    }


@lru_cache(maxsize=1)
def _studio(params: StudioParams) -> Studio:
    return Studio(params)


def _sheet(folder: Path, shown: int = 16) -> np.ndarray:
    samples = [sample for path in shard_paths(folder) for sample in Shard(path).samples()]
    images, captions = [], []
    for number in np.linspace(0, len(samples) - 1, min(shown, len(samples))).astype(int):
        fields = samples[number][1]
        truth = json.loads(fields["json"])
        images += [pictures.decode(fields["jpg"]), parsing.coloured(pictures.decode_grey(fields["parsing.png"]))]
        captions += [f"{truth['azimuth']:+.0f}" if truth["identity"] != NOBODY else "nobody", ""]
    return contact_sheet(images, captions)


if __name__ == "__main__":
    raise SystemExit(main())
