"""Training shards to the zips that EG3D, PanoHead and SphereHead read, and back without loss.

``NAME.zip`` holds the pictures and ``dataset.json`` with 25 values each; ``NAME_seg.zip`` the masks, as PanoHead wants
them; ``NAME_parsing.zip`` the parsing. ``lineament.json`` in the first zip holds what those formats have no place for,
so that a set of ours comes back byte for byte; other sets become shards too, with what they say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ops.crawl.raw import sample_id
from ops.curate.camera import angles
from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish
from ops.store.eg3d import LABELS, Archive, Members, labels_json, seg_path, write_zip
from ops.store.pictures import decode, picture_problem, sniff
from ops.store.reader import ShardDataset
from ops.store.tar import ShardWriter, TarWriter

OURS = "lineament.json"
SUMMARY = "dataset.json"
PER_SHARD = 256


def side_path(path: Path, field: str) -> Path:
    """Where a field other than picture and label lies: ``NAME_seg.zip`` for mask.png, ``NAME_parsing.zip`` …"""
    return seg_path(path) if field == "mask.png" else path.with_name(f"{path.stem}_{field.split('.')[0]}.zip")


def export(shards: Path, out: Path, repeat: bool = False) -> int:
    """Write a folder of training shards as zips.

    Args:
        shards: training shards: a picture, ``json`` with a camera, and others, a sample.
        out: ``NAME.zip``.
        repeat: write each picture as often as its ``duplicates`` say, as the balanced sets of the field are.

    Returns:
        the number of pictures written.

    Raises:
        LineamentError: a sample has no camera or no picture, or ``out`` is no .zip.
    """
    if out.suffix != ".zip":
        raise LineamentError(f"{out}: the name of the zip should end in .zip.")
    data = ShardDataset(shards)
    summary = shards / SUMMARY
    ours: dict[str, Any] = {"version": 1, "shards": {}, "samples": {}}
    ours["summary"] = summary.read_text() if summary.is_file() else None
    labels: dict[str, list[float]] = {}
    with ExitStack() as stack:
        writers: dict[Path, Any] = {}

        def put(path: Path, name: str, content: bytes) -> None:
            if path not in writers:
                writers[path] = stack.enter_context(write_zip(stack.enter_context(publish(path))))
            writers[path](name, content)

        number = 0
        for shard in data.shards:
            ours["shards"][shard.path.stem] = shard.keys
            for key, fields in shard.samples():
                picture = next((f for f in fields if f in ("jpg", "png", "webp")), None)
                camera = json.loads(fields.get("json", b"{}")).get("camera")
                if picture is None or camera is None:
                    raise LineamentError(
                        f"{shard.path}: sample {key} lacks a {'picture' if picture is None else 'camera'}."
                    )
                copies = int(json.loads(fields["json"]).get("duplicates", 1)) if repeat else 1
                stem = f"{number // 1000:05d}/img{number:08d}"
                ours["samples"][key] = {"stem": stem, "fields": list(fields), "json": fields["json"].decode()}
                for name in [stem] + [f"{stem}_{copy}" for copy in range(1, copies)]:
                    labels[f"{name}.{picture}"] = camera
                    put(out, f"{name}.{picture}", fields[picture])
                    for field in fields:
                        if field not in (picture, "json"):
                            put(side_path(out, field), f"{name}.{field.split('.')[-1]}", fields[field])
                number += 1
        put(out, LABELS, labels_json(labels, {}))
        put(out, OURS, json.dumps(ours).encode())
    return len(labels)


def import_(path: Path, out: Path, licence: str = "unknown") -> int:
    """Training shards from a zip or folder with ``dataset.json``.

    Args:
        path: ``NAME.zip`` or a folder, ours or another's; masks in ``NAME_seg.zip`` are taken along.
        out: folder of the new shards.
        licence: of another's pictures.

    Returns:
        the number of samples.

    Raises:
        LineamentError: unsafe or damaged members, a broken ``dataset.json``, a picture that is none.
    """
    archive = Archive(path)
    with publish(out, folder=True) as folder:
        if OURS in archive.files.sizes:
            _restore(path, archive, folder)
        else:
            with ShardWriter(folder, PER_SHARD) as writer:
                seen: set[str] = set()
                for key, fields in _foreign(archive, path.stem, licence):
                    if key not in seen:  # balanced sets hold a picture several times
                        seen.add(key)
                        writer.add(key, fields)
        data = ShardDataset(folder)
        if not (folder / SUMMARY).is_file():
            first = data.read(0)
            side = decode(next(data for field, data in first.items() if field != "json")).shape[0]
            summary = {"samples": len(data), "resolution": side, "hash": data.hash}
            (folder / SUMMARY).write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
        return len(data)


def _restore(path: Path, archive: Archive, folder: Path) -> None:
    """Our own shards, as they were."""
    try:
        ours = json.loads(archive.files.read(OURS, 4 * 2**30))
        summary, shards, samples = ours["summary"], ours["shards"], ours["samples"]
        sides = {field for sample in samples.values() for field in sample["fields"][1:] if field != "json"}
        zips = {field: Members.open(side_path(path, field)) for field in sorted(sides)}
        for name, keys in shards.items():
            if not name.isdigit():
                raise LineamentError(f"{path}: {OURS}: '{name}' cannot be a shard's name.")
            with TarWriter(folder / f"{name}.tar") as writer:
                for key in keys:
                    sample = samples[key]
                    fields: dict[str, bytes] = {}
                    for number, field in enumerate(sample["fields"]):
                        if field == "json":
                            fields[field] = sample["json"].encode()
                        elif number == 0:
                            fields[field] = archive.read(f"{sample['stem']}.{field}")
                        else:
                            member = f"{sample['stem']}.{field.split('.')[-1]}"
                            fields[field] = zips[field].read(member, 512 * 2**20)
                    writer.add(key, fields)
        if summary is not None:
            (folder / SUMMARY).write_text(summary)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise LineamentError(f"{path}: {OURS} is broken ({error!r}). Export the set again.") from None


def _foreign(archive: Archive, source: str, licence: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    for name in archive.names:
        data, mask = archive.read(name), archive.mask(name)
        problem = picture_problem(data)
        if problem is not None:
            raise LineamentError(f"{archive.path}: '{name}' is no usable picture: {problem}.")
        label: dict[str, Any] = {"source": source, "licence": licence, "name": name, "duplicates": 1}
        if name in archive.labels:
            pose = np.array(archive.labels[name][:16], np.float64).reshape(4, 4)
            yaw, pitch, roll = angles(pose)
            label |= {"camera": archive.labels[name], "yaw": yaw, "pitch": pitch, "roll": roll}
        fields = {sniff(data): data} | ({"mask.png": mask} if mask is not None else {})
        yield sample_id(data), {**fields, "json": json.dumps(label, sort_keys=True).encode()}
