"""Stage ``shards_portraits``: head and shoulders without background, with all that a portrait generator is asked for.

As SHHQ-HS was made (AniPortraitGAN, Section 4): from the fitted body a square about head and shoulders is cut so that
every portrait stands as its camera says; the person is put before white; the face crop of the same picture goes along.
What is not in the picture cannot be cut: where too much of the square lies outside, the sample is left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from models import camera as geometry
from models.portrait_body import HEAD, UNITS, camera_to_head_frame, face_camera, portrait_label, to_head_frame
from models.portrait_cameras import FACE_VIEW, PORTRAIT_VIEW
from ops.crawl.sources import load_sources
from ops.curate.anonymise import AnonymiseParams, anonymous
from ops.curate.crop import crop_quad, from_crop, outside_share, quad_side
from ops.curate.sheets import contact_sheet
from ops.perception.selfie import person_mask
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.runtime.shardwork import Piece, digest, run_pieces
from ops.runtime.stage import Stage, stage
from ops.shards.crops import CODE, read_picture, read_provenance
from ops.shards.enlarge import EnlargeParams, enlarged
from ops.store import pictures
from ops.store.inorder import InOrder
from ops.store.reader import ShardDataset
from ops.store.seen import Seen
from ops.store.tar import Shard, ShardWriter, TarWriter, shard_paths

SHOWN = 24
_FACE, _BODY = ("identity", "expression"), ("shape", "pose", "camera")  # what the fits say
LOOK = 256  # side at which the person is told from the background; the network's own resolution


class PortraitShardsParams(Params):
    resolution: int = Field(512, ge=16, description="side of the portraits in pixels")  # Section 4
    face_resolution: int = Field(256, ge=16, description="side of the face crops in pixels")  # Section 3.6
    enlarge: EnlargeParams = EnlargeParams()
    max_outside: float = Field(0.06, ge=0, le=1, description="share of the square outside the picture")  # our choice
    background: int = Field(255, ge=0, le=255, description="grey level behind the person")  # public code: white
    per_shard: int = Field(256, ge=1)  # unpublished: our choice
    quality: int = Field(95, ge=1, le=100)  # unpublished: our choice
    anonymise: AnonymiseParams = AnonymiseParams()
    min_samples: int = Field(1, ge=1, description="fewer are an error")  # unpublished: our choice


@dataclass(frozen=True)
class Portrait:
    """``quad`` (4, 2) pixels of the picture; ``camera`` and ``camera_face`` (25,), head frame."""

    quad: np.ndarray
    camera: np.ndarray
    camera_face: np.ndarray


def place(body_camera: np.ndarray, crop: np.ndarray, head: np.ndarray) -> Portrait:
    """Cut and cameras of one fitted person.

    The portrait camera looks from where the fitted camera stands, at the portrait view's distance and upright with the
    body; in the picture that is a square about the projected pivot, turned with the body's up direction, as wide as the
    view is at the pivot's depth.

    Args:
        body_camera: (25,) fitted camera of the face crop in the body's frame, world units.
        crop: (4, 2) the face crop's corners in the picture.
        head: (4, 4) motion of the head by the fitted pose, world units.
    """
    about_body = torch.from_numpy(body_camera).double()[None]
    motion = torch.from_numpy(head).double()[None]
    _, intrinsic = geometry.unpack_label(about_body)
    portrait = portrait_label(camera_to_head_frame(about_body))
    pivot = torch.tensor(PORTRAIT_VIEW.pivot, dtype=torch.float64) / UNITS
    above = pivot + torch.tensor([0.0, 0.05, 0.0], dtype=torch.float64)
    seen, depth = geometry.project(about_body, torch.stack([pivot, above])[None])
    middle, top = from_crop(seen[0].numpy(), crop)
    focal = float(intrinsic[0, 0, 0]) * quad_side(crop)
    width = 2 * PORTRAIT_VIEW.radius * np.tan(np.radians(PORTRAIT_VIEW.fov) / 2) / UNITS
    side = focal * width / float(depth[0, 0])
    up = (top - middle) / max(float(np.hypot(*(top - middle))), 1e-9)
    right = np.array([-up[1], up[0]])
    corners = [middle + side / 2 * (x * right + y * up) for x, y in ((-1, 1), (-1, -1), (1, -1), (1, 1))]
    face = face_camera(portrait, to_head_frame(motion), FACE_VIEW)
    return Portrait(np.stack(corners), portrait[0].numpy(), face[0].numpy())


@stage("shards_portraits", PortraitShardsParams)
def main(s: Stage[PortraitShardsParams], raw: Path, labels: Path, weights: Path, out: Path) -> None:
    """Cut head-and-shoulder portraits of all sources, before white, with codes, pose and cameras."""
    p, lost = s.params, Counter[str]()
    told: Counter[str] = Counter()
    sources = {source: shard_paths(raw / source) for source in load_sources(s.params_file)}
    pieces = (
        piece for source, paths in sources.items() for piece in _pieces_of(source, paths, labels / source, told, lost)
    )
    total = sum(map(len, sources.values()))
    code = [*CODE, "ops.shards.enlarge", "ops.perception.selfie", "models.portrait_body"]
    parts = run_pieces(s, pieces, partial(_cut_shard, p, weights), code=code, suffix=".tar", total=total)
    taken, count, asked = Seen(), 0, told["asked"]
    with publish(out, folder=True) as folder:
        with ShardWriter(folder, p.per_shard) as writer:
            for part in parts:
                for key, fields in Shard(part).samples():
                    if key in taken:
                        lost["in_another_source"] += 1
                        continue
                    taken.add(key)
                    writer.add(key, fields)
                    count += 1
        lost["cut_off"] += asked - count - lost["in_another_source"]
        if count < p.min_samples:
            raise LineamentError(
                f"only {count} portraits are left, where shards_portraits.min_samples asks for {p.min_samples}: "
                f"{lost['cut_off']} of {asked} pictures do not show head and shoulders whole. Add wider pictures."
            )
        summary = {"samples": count, "resolution": p.resolution, "hash": ShardDataset(folder).hash}
        (folder / "dataset.json").write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    s.metrics({"in": asked, "kept": count, "rejected": asked - count, "reasons": dict(sorted(lost.items()))})
    s.preview(_sheet(out))


def _pieces_of(source: str, paths: list[Path], labels: Path, told: Counter[str], lost: Counter[str]) -> Iterator[Piece]:
    """One piece a raw shard: the people whose face and body were both fitted."""
    faces = InOrder(labels / "fit_face.parquet", _FACE, kept=True)
    bodies = InOrder(labels / "fit_body.parquet", _BODY, kept=True)
    quads = InOrder(labels / "align.parquet", ["quad"])
    for path in paths:
        shard, rows = Shard(path), []
        found, fitted, squares = (table.rows(shard.keys) for table in (faces, bodies, quads))
        for key, face in found.items():
            if key in fitted:
                known = {name: face[name] for name in _FACE} | {name: fitted[key][name] for name in _BODY}
                rows.append({"id": key, "quad": squares[key]["quad"], **known})
            else:
                lost["no_body"] += 1
        if rows:
            told["asked"] += len(rows)
            yield Piece(f"{source}-{path.stem}", digest(source, shard.sha256, rows), (source, path, rows))
    for table in (faces, bodies, quads):
        table.end()


def _cut_shard(
    params: PortraitShardsParams, weights: Path, payload: tuple[str, Path, list[dict[str, Any]]], out: Path
) -> None:
    from models.parametric.person import load_person

    source, path, rows = payload
    shard, people = Shard(path), load_person()
    size = params.resolution
    with TarWriter(out) as writer:
        for row in rows:
            key = row["id"]
            image = read_picture(shard, key)
            shape, pose = torch.tensor(row["shape"])[None], torch.tensor(row["pose"]).view(1, 6, 3)
            transforms = people.joint_transforms(shape, pose)  # the mean head's joints, as bodies are fitted
            quad = np.asarray(row["quad"], np.float64).reshape(4, 2)
            found = place(np.asarray(row["camera"], np.float64), quad, transforms[0, HEAD].double().numpy())
            if outside_share(found.quad, image.shape[1], image.shape[0]) > params.max_outside:
                continue
            mask = person_mask(crop_quad(image, found.quad, LOOK), weights, size)
            portrait = anonymous(cut(image, found.quad, size, params.enlarge), found.camera, params.anonymise, key)
            face_mask = person_mask(crop_quad(image, quad, LOOK), weights, params.face_resolution)
            face = cut(image, quad, params.face_resolution, params.enlarge)
            face = anonymous(face, found.camera_face, params.anonymise, key)
            label = {
                "camera": found.camera.tolist(),
                "camera_face": found.camera_face.tolist(),
                **{name: row[name] for name in ("identity", "expression", "shape")},
                "pose": pose[0].tolist(),
                "source": source,
                "licence": read_provenance(shard, key)["licence"],
                "duplicates": 1,
            }
            writer.add(
                key,
                {
                    "jpg": pictures.encode_jpeg(before_grey(portrait, mask, params.background), params.quality),
                    "face.jpg": pictures.encode_jpeg(before_grey(face, face_mask, params.background), params.quality),
                    "mask.png": pictures.encode_png(mask),
                    "json": json.dumps(label, sort_keys=True).encode(),
                },
            )


def cut(image: np.ndarray, quad: np.ndarray, size: int, enlarge: EnlargeParams) -> np.ndarray:
    """The square of a picture at a size; where pixels are too few, they are cut out as they are, then enlarged."""
    own = max(1, round(quad_side(quad)))
    if own >= size:
        return crop_quad(image, quad, size)
    return enlarged(crop_quad(image, quad, own), size, enlarge)


def before_grey(image: np.ndarray, mask: np.ndarray, grey: int) -> np.ndarray:
    """(H, W, 3) pixels where the mask (H, W) says person, one grey elsewhere."""
    share = mask[..., None].astype(np.float32) / 255
    return np.rint(image * share + grey * (1 - share)).astype(np.uint8)


def _sheet(folder: Path) -> np.ndarray:
    """Some portraits, each with its face crop."""
    data = ShardDataset(folder)
    images, captions = [], []
    for number in np.linspace(0, len(data) - 1, min(SHOWN, len(data))).astype(int):
        fields = data.read(int(number))
        images += [pictures.decode(fields["jpg"]), pictures.decode(fields["face.jpg"])]
        captions += ["", ""]
    return contact_sheet(images, captions)


if __name__ == "__main__":
    raise SystemExit(main())
