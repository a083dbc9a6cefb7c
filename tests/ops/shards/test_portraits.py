"""Portraits stand in their cuts as their cameras say; what is cut off is left out; bad tables are named."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

from models import camera as geometry
from models.parametric.person import load_person
from models.portrait_body import HEAD, UNITS
from models.portrait_cameras import PORTRAIT_VIEW, follow
from ops.curate.camera import CROP_FOCAL
from ops.curate.crop import to_crop
from ops.shards import portraits
from ops.shards.enlarge import EnlargeParams
from ops.shards.portraits import cut, main, place
from ops.store import pictures, tables
from ops.store.reader import ShardDataset
from ops.store.tar import ShardWriter

CROP = np.array([[400.0, 300.0], [400.0, 500.0], [600.0, 500.0], [600.0, 300.0]])  # 200 pixels of an upright face


def turned_crop(degrees):
    a = np.deg2rad(degrees)
    return (CROP - 500) @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) + 500


def label(azimuth=0.3, elevation=0.1, roll=0.0):
    pose = geometry.pose_on_sphere(torch.tensor(azimuth), torch.tensor(elevation), roll=roll).double()
    return geometry.pack_label(pose, geometry.intrinsics(CROP_FOCAL).double()).numpy()


def motion(*angles):
    pose = torch.zeros(1, 6, 3)
    pose[0, 1] = torch.tensor(angles)
    return load_person().joint_transforms(torch.zeros(1, 10), pose)[0, HEAD].double()


@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (0.1, 0.4, -0.1)])
@pytest.mark.parametrize("lean", [0.0, 20.0])
def test_points_of_the_body_fall_where_the_portrait_camera_sees_them(turn, lean):
    """The picture's own camera and the portrait camera agree near the pivot, up to what perspective differs."""
    camera, crop, head = label(roll=0.2), turned_crop(lean), motion(*turn)
    about_body = follow(torch.from_numpy(camera)[None], head[None])
    found = place(about_body[0].numpy(), crop, head.numpy())
    pivot = torch.tensor(PORTRAIT_VIEW.pivot, dtype=torch.float64) / UNITS
    around = pivot + torch.tensor([[0, 0, 0], [0.3, 0, 0], [0, 0.3, 0], [-0.25, -0.3, 0.0]], dtype=torch.float64)
    in_crop, _ = geometry.project(about_body, around[None])
    pixels = in_crop[0].numpy() @ np.stack([crop[3] - crop[0], crop[1] - crop[0]]) + crop[0]
    in_cut = to_crop(pixels, found.quad)
    seen, _ = geometry.project(torch.from_numpy(found.camera)[None], around[None] * UNITS)
    np.testing.assert_allclose(in_cut[0], [0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(in_cut, seen[0].numpy(), atol=0.02)
    for c in (found.camera, found.camera_face):
        geometry.check_label(torch.from_numpy(c))


def test_the_cut_is_a_square_upright_with_the_body():
    quad = place(label(0.0, 0.0), CROP, np.eye(4)).quad
    across, down = quad[3] - quad[0], quad[1] - quad[0]
    assert across[1] == pytest.approx(0, abs=1e-6)
    assert down[0] == pytest.approx(0, abs=1e-6)
    assert across[0] == pytest.approx(down[1])
    assert across[0] == pytest.approx(200 * 0.3985 / (UNITS * 0.778), rel=0.15)  # farther from the camera than the head


def test_enlarging_keeps_size_and_mean():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    quad = np.array([[8.0, 8.0], [8.0, 40.0], [40.0, 40.0], [40.0, 8.0]])
    for how in ("lanczos", "linear"):
        large = cut(image, quad, 96, EnlargeParams(method=how))
        assert large.shape == (96, 96, 3)
        assert large.mean() == pytest.approx(image[8:40, 8:40].mean(), abs=2)
    np.testing.assert_array_equal(cut(image, quad, 32, EnlargeParams()), image[8:40, 8:40])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Two people in wide pictures, one whose shoulders are cut off, one whose body was not fitted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINEAMENT_WORKERS", "1")
    monkeypatch.setattr(portraits, "person_mask", lambda image, weights, side: np.full((side, side), 255, np.uint8))
    keys = [f"{n:016x}" for n in range(4)]
    with ShardWriter(tmp_path / "raw/mine", per_shard=8) as writer:
        for number, key in enumerate(keys):
            side = 320 if number == 2 else 900
            image = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
            writer.add(key, {"jpg": pictures.encode_jpeg(image), "json": b'{"licence": "CC0-1.0"}'})
    crops = [CROP - 150, CROP - 150, CROP - 250, CROP - 150]
    write("align", keys, quad=[crop.ravel().tolist() for crop in crops])
    cameras = [label().tolist()] * 4
    write("fit_face", keys, identity=[[0.0] * 80] * 4, expression=[[0.1] * 52] * 4, camera=cameras)
    write(
        "fit_body", keys, camera=cameras, shape=[[0.0] * 10] * 4, pose=[[0.0] * 18] * 4, kept=[True, True, True, False]
    )
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump(
            {
                "sources": {"mine": {"kind": "folder", "path": "."}},
                "shards_portraits": {"resolution": 32, "face_resolution": 16},
            }
        )
    )
    return keys


def write(name, keys, kept=None, **columns):
    kept = kept or [True] * len(keys)
    reasons = pa.array([None if k else "not_converged" for k in kept], pa.string())
    table = pa.table({"id": keys, **columns, "kept": kept, "reason": reasons})
    tables.write(name_of(name), table, stage=name)


def name_of(name):
    path = Path("labels/mine") / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_the_stage_joins_fits_and_leaves_out_what_is_cut_off(run):
    assert main(["raw", "labels", "weights", "out", "--metrics", "m.json", "--preview", "p.png"]) == 0
    data = ShardDataset(Path("out"))
    assert len(data) == 2
    fields = data.read(0)
    record = json.loads(fields["json"])
    assert pictures.decode(fields["jpg"]).shape == (32, 32, 3)
    assert pictures.decode(fields["face.jpg"]).shape == (16, 16, 3)
    assert np.array(record["pose"]).shape == (6, 3)
    assert len(record["camera"]) == len(record["camera_face"]) == 25
    reasons = json.loads(Path("m.json").read_text())["reasons"]
    assert reasons["cut_off"] == 1
    assert reasons["no_body"] == 1


def test_too_few_portraits_are_an_error_that_says_why(run, capsys):
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["shards_portraits"]["min_samples"] = 3
    Path("params.yaml").write_text(yaml.safe_dump(values))
    assert main(["raw", "labels", "weights", "out"]) == 1
    assert "1 of 3 pictures do not show head and shoulders whole" in capsys.readouterr().err


def test_faces_are_hidden_in_both_pictures_where_that_is_asked_for(run, monkeypatch):
    monkeypatch.setattr("ops.curate.anonymise.find_faces", lambda *_: [])
    assert main(["raw", "labels", "weights", "plain"]) == 0
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["shards_portraits"]["anonymise"] = {"method": "blur", "cells": 2}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    assert main(["raw", "labels", "weights", "hidden"]) == 0
    plain, hidden = (ShardDataset(Path(name)).read(0) for name in ("plain", "hidden"))
    for field in ("jpg", "face.jpg"):
        before, after = (pictures.decode(fields[field]).astype(int) for fields in (plain, hidden))
        changed = (np.abs(before - after).max(2) > 8).mean()
        assert changed > (0.01 if field == "jpg" else 0.15)
    portrait = pictures.decode(hidden["jpg"]).astype(int) - pictures.decode(plain["jpg"])
    assert np.abs(portrait[-4:]).mean() < 6  # the shoulders stay, but for what JPEG does to noise
