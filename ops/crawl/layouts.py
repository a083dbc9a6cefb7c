"""The ``dataset`` source: public data sets as their owners ship them, with their own masks, landmarks and cameras.

A layout walks one data set's folders and offers each picture with what its owner says of it. That goes beside the
picture in its raw shard (``official.json``, ``official.mask.png``, ``official.parsing.png``), in the owner's own
conventions: no labelling step reads it, but labels can be compared with it. Layouts of videos are in
ops.crawl.videosets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ops.crawl.raw import RawPicture
from ops.runtime.errors import LineamentError
from ops.store.eg3d import Archive
from ops.store.pictures import decode_grey, encode_png, picture_problem, upright_size

FARTHEST = 1e5  # pixels from a picture's corner, where a polygon's may lie
# CelebAMask-HQ's part files, in the order in which its owners paint them; classes 1 to 18
CELEBA_PARTS = (
    "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip", "l_lip", "hair",
    "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip


def official_json(**values: Any) -> dict[str, bytes]:
    """What the owner says, without what is unknown."""
    known = {name: value for name, value in values.items() if value is not None}
    return {"official.json": json.dumps(known, sort_keys=True).encode()} if known else {}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a data set; an empty one when there is no file.

    Raises:
        LineamentError: it is there and cannot be read, or holds something else.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LineamentError(f"{path}: not valid JSON ({error}). Download it again.") from None
    if not isinstance(found, dict):
        raise LineamentError(f"{path}: holds no JSON object, as its owners' file does. Download it again.")
    return found


def table(value: Any) -> dict[str, Any]:
    """A value of a JSON object where it is an object itself; elsewhere an empty one."""
    return value if isinstance(value, dict) else {}


def numbers(words: Sequence[str]) -> list[float] | None:
    """Words of a text file as finite numbers; None where one of them is none."""
    try:
        found = [float(word) for word in words]
    except ValueError:
        return None
    return found if np.isfinite(found).all() else None


def files(folder: Path, *patterns: str) -> list[Path]:
    """The files below a folder that match, in a fixed order, links left out.

    Raises:
        LineamentError: there are none.
    """
    found = sorted(p for pattern in patterns for p in folder.glob(pattern) if p.is_file() and not p.is_symlink())
    if not found:
        raise LineamentError(f"{folder}: there is no {' or '.join(patterns)} in it. Is the layout right?")
    return found


def celeba_hq(root: Path) -> Iterator[RawPicture]:
    """CelebAMask-HQ: ``CelebA-HQ-img/N.jpg``, part masks, the mapping to CelebA, identities where they are added."""
    identities = {row[0]: row[1] for row in _rows(root / "identity_CelebA.txt", 2)}
    origins = {row[0]: row[2] for row in _rows(root / "CelebA-HQ-to-CelebA-mapping.txt", 3)}
    poses = {row[0]: numbers(row[1:4]) for row in _rows(root / "CelebAMask-HQ-pose-anno.txt", 4)}
    paths = files(root / "CelebA-HQ-img", "*.jpg", "*.png")
    for path in sorted(paths, key=lambda p: (len(p.stem), p.stem)):
        origin = origins.get(path.stem)
        official = official_json(
            celeba=origin,
            identity=identities.get(origin or ""),
            yaw_pitch_roll=poses.get(path.name),
            classes=["background", *CELEBA_PARTS],
        )
        parsing = _celeba_parsing(root / "CelebAMask-HQ-mask-anno", path.stem)
        if parsing is not None:
            official["official.parsing.png"] = encode_png(parsing)
        yield _picture(root, path, {"page": "https://github.com/switchablenorms/CelebAMask-HQ"}, official)


def _celeba_parsing(folder: Path, stem: str) -> np.ndarray | None:
    if not folder.is_dir() or not stem.isdecimal():
        return None
    parsing: np.ndarray | None = None
    for number, part in enumerate(CELEBA_PARTS, start=1):
        path = folder / str(int(stem) // 2000) / f"{int(stem):05d}_{part}.png"  # its owners put 2000 in a folder
        if path.is_file():
            mask = decode_grey(path.read_bytes())
            parsing = np.zeros(mask.shape, np.uint8) if parsing is None else parsing
            parsing[mask > 127] = number
    return parsing


def ffhq(root: Path) -> Iterator[RawPicture]:
    """FFHQ: ``images1024x1024``, or ``in-the-wild-images`` where only those are; licence and author of each."""
    entries = read_json(root / "ffhq-dataset-v2.json")
    aligned = (root / "images1024x1024").is_dir()
    folder, section = ("images1024x1024", "image") if aligned else ("in-the-wild-images", "in_the_wild")
    for path in files(root / folder, "*.png", "*/*.png"):
        entry = table(entries.get(str(int(path.stem)))) if path.stem.isdecimal() else {}
        said, where = table(entry.get("metadata")), table(entry.get(section))
        names = {"license": "licence", "license_url": "licence_url", "photo_url": "page", "author": "author"}
        known = {ours: said[theirs] for theirs, ours in names.items() if said.get(theirs)}
        known |= {"title": said["photo_title"]} if said.get("photo_title") else {}
        official = official_json(landmarks68=where.get("face_landmarks"), quad=where.get("face_quad"))
        yield _picture(root, path, known, official)


def lpff(root: Path) -> Iterator[RawPicture]:
    """LPFF: ``raw`` or else ``realign2400``, with landmarks, cameras of the EG3D crop, licence and author."""
    folder = "raw" if (root / "raw").is_dir() else "realign2400"
    landmarks = read_json(root / f"{folder}_lm.json")
    cameras = read_json(root / "camera_parameters.json")
    infos = read_json(root / "info.json")
    faces: dict[str, list[str]] = {}
    for key in {*landmarks, *cameras, *infos}:
        raw = table(infos.get(key)).get("raw_image_name")
        faces.setdefault(str(raw or key.rpartition("_")[0]) if folder == "raw" else key, []).append(key)
    for path in files(root / folder, "*.png", "*.jpg", "*.jpeg"):
        keys = sorted(faces.get(path.stem, []))
        info = infos.get(keys[0]) if keys else None
        said = table(info.get("image_info")) if isinstance(info, dict) else {"high_resolution_download_url": info}
        licence = table(said.get("license"))
        known = {
            "url": said.get("high_resolution_download_url"),
            "page": said.get("photo_url"),
            "author": said.get("username"),
            "licence": licence.get("name"),
            "licence_url": licence.get("url"),
        }
        official = official_json(
            faces=[{"key": k, "landmarks68": landmarks.get(k), "camera_eg3d": cameras.get(k)} for k in keys] or None
        )
        yield _picture(root, path, {name: value for name, value in known.items() if value}, official)


def k_hairstyle(root: Path) -> Iterator[RawPicture]:
    """K-Hairstyle: pictures below an ``images`` folder; beside it ``labels`` with a JSON of the same path each.

    The JSON is kept as it is; its hair polygon becomes a mask, and ``source`` the identity.
    """
    for path in files(root, "**/images/**/*.jpg", "**/images/**/*.png"):
        parts = list(path.relative_to(root).parts)
        place = max(i for i, part in enumerate(parts[:-1]) if part == "images")
        label = root.joinpath(*parts[:place], "labels", *parts[place + 1 : -1], f"{path.stem}.json")
        said = read_json(label)
        official = official_json(annotation=said or None, identity=said.get("source"))
        polygons = [_polygon(said[name]) for name in sorted(said) if name.startswith("polygon")]
        if any(len(p) for p in polygons) and picture_problem(path.read_bytes()) is None:
            width, height = upright_size(path.read_bytes())
            mask = np.zeros((height, width), np.uint8)
            cv2.fillPoly(mask, [p for p in polygons if len(p)], 255)
            official["official.mask.png"] = encode_png(mask)
        yield _picture(root, path, {"page": "https://psh01087.github.io/K-Hairstyle/"}, official)


def _polygon(value: Any) -> np.ndarray:
    """(P, 2) int32 from a list, or JSON text, of {x, y} or [x, y]; empty where it is neither, or beyond any picture."""
    try:
        points = json.loads(value) if isinstance(value, str) else value
        pairs = [(p["x"], p["y"]) if isinstance(p, dict) else (p[0], p[1]) for p in points or ()]
        found = np.array(pairs, np.float64).reshape(-1, 2)
        return found.round().astype(np.int32) if (abs(found) < FARTHEST).all() else np.empty((0, 2), np.int32)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError):
        return np.empty((0, 2), np.int32)


def shhq(root: Path) -> Iterator[RawPicture]:
    """SHHQ: ``no_segment`` with the pictures, ``segments`` with the persons, key points of the body where added."""
    lists = sorted(p for p in root.glob("*.txt") if "keypoint" in p.name.lower())
    points = {row[0]: numbers(row[1:]) for path in lists for row in _rows(path, 51) if len(row) == 51}
    for path in files(root / "no_segment", "*.png", "*.jpg"):
        found = points.get(path.name) or points.get(path.stem)
        body = np.reshape(found, (25, 2)).tolist() if found else None
        official = official_json(body25=body)
        mask = root / "segments" / f"{path.stem}.png"
        if mask.is_file():
            official["official.mask.png"] = mask.read_bytes()
        yield _picture(root, path, {"page": "https://github.com/stylegan-human/StyleGAN-Human"}, official)


def eg3d(root: Path) -> Iterator[RawPicture]:
    """EG3D's and PanoHead's zip (or folder) with ``dataset.json``, and the ``_seg`` zip beside it."""
    archive = Archive(root)
    for name in archive.names:
        data, camera, mask = archive.read(name), archive.labels.get(name), archive.mask(name)
        official = official_json(camera=camera) | ({"official.mask.png": mask} if mask is not None else {})
        yield RawPicture(name, data, {}, official=official)


def _rows(path: Path, least: int) -> list[list[str]]:
    """The words of each line of a text file that has so many; none where there is no file. Headings name no picture."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [words for line in lines if len(words := line.split()) >= least]


def _picture(root: Path, path: Path, known: dict[str, Any], official: dict[str, bytes]) -> RawPicture:
    told = {name: value for name, value in known.items() if isinstance(value, str) and value.isprintable()}
    return RawPicture(path.relative_to(root).as_posix(), path.read_bytes(), told, official=official)


PICTURE_SETS: dict[str, Callable[[Path], Iterator[RawPicture]]] = {
    "celeba_hq": celeba_hq,
    "ffhq": ffhq,
    "lpff": lpff,
    "k_hairstyle": k_hairstyle,
    "shhq": shhq,
    "eg3d": eg3d,
}
