"""The stage as a command, and faces that are hard: eyes closed, a profile, tables that do not belong together."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from ops.curate import align, camera, landmarks
from ops.curate.align import ffhq_quad
from ops.curate.camera import CROP_FOCAL
from ops.curate.crop import to_crop
from ops.curate.detect import DetectParams, find_faces
from ops.curate.landmarks import find_landmarks
from ops.fit import energy, face
from ops.fit.energy import FRONT, State
from ops.fit.face import FitFaceParams
from ops.fit.solver import fit
from ops.fit.target import target
from ops.store import tables
from ops.store.pictures import encode_png
from ops.store.tar import ShardWriter

KEYS = ("a" * 16, "b" * 16)


@pytest.fixture
def project(astronaut, weights, tmp_path, monkeypatch):
    """Two pictures that the steps before kept: a face, and one whose landmarks are elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINEAMENT_WORKERS", "1")
    with ShardWriter(tmp_path / "raw", 8) as writer:
        for key in KEYS:
            writer.add(key, {"png": encode_png(astronaut), "json": b"{}"})
    found = find_faces(astronaut, weights, DetectParams())[0]
    points, _ = find_landmarks(astronaut, found.box, found.points, weights, 1)
    quad = ffhq_quad(points)
    pose, residual = camera.solve_camera(to_crop(points[:, :2], quad))
    yaw, pitch, roll = camera.angles(pose)
    away = points + np.random.default_rng(0).normal(0, 60, points.shape)
    both = {"kept": [True, True], "reason": [None, None], "id": list(KEYS)}
    label = camera.label_of(pose, "fixed").tolist()
    numbers = {"yaw": yaw, "pitch": pitch, "roll": roll, "residual": residual, "distance": np.linalg.norm(pose[:3, 3])}
    write("camera", camera.SCHEMA, camera=[label] * 2, **{k: [v] * 2 for k, v in numbers.items()}, **both)
    write("align", align.SCHEMA, quad=[quad.ravel().tolist()] * 2, crop_size=[200.0] * 2, **both)
    seen = [points.ravel().tolist(), away.ravel().tolist()]
    write("landmarks", landmarks.SCHEMA, points=seen, score=[1.0] * 2, **both)
    (tmp_path / "params.yaml").write_text("fit_face: {}\n")
    return tmp_path


def write(name, schema, **columns):
    tables.write(
        Path(f"{name}.parquet"), pa.table({field.name: columns[field.name] for field in schema}, schema=schema), name
    )


def run(*more):
    return face.main(["raw", "camera.parquet", "align.parquet", "landmarks.parquet", "fit.parquet", *more])


def test_the_command_writes_a_row_a_face_the_same_each_time(project):
    assert run("--preview", "p.png", "--metrics", "m.json") == 0
    first = (project / "fit.parquet").read_bytes()
    rows = tables.read(project / "fit.parquet").to_pylist()
    assert [(row["id"], row["kept"], row["reason"]) for row in rows] == [
        (KEYS[0], True, None),
        (KEYS[1], False, "large_residual"),
    ]
    assert [len(rows[1][name]) for name in ("identity", "expression", "pose", "camera")] == [80, 52, 6, 25]
    assert (project / "p.png").stat().st_size > 1000
    shutil.rmtree(project / "data")
    assert run() == 0
    assert (project / "fit.parquet").read_bytes() == first


def test_tables_that_do_not_belong_together_are_an_error(project, capsys):
    short = tables.read(project / "landmarks.parquet").slice(0, 1)
    tables.write(project / "landmarks.parquet", short, "landmarks")
    assert run() == 1
    assert f"has no row for {KEYS[1]}" in capsys.readouterr().err
    (project / "camera.parquet").unlink()
    assert run() == 1
    assert "camera.parquet: no such table" in capsys.readouterr().err
    assert not (project / "fit.parquet").exists()


def fitted(expression, turn):
    """A made face with this expression and turn, found again from its landmarks and a pose 15 degrees off."""
    goal, params = target(), FitFaceParams(correlated=16)  # no network's errors here, which are alike all over a face
    front = torch.tensor(FRONT, dtype=torch.float64)
    rotation = torch.linalg.matrix_exp(energy.skew(torch.tensor([turn], dtype=torch.float64))) @ front
    place = torch.tensor([[0.05, 0.0, 2.8]], dtype=torch.float64)
    truth = State(torch.zeros(1, 80, dtype=torch.float64), expression, rotation, place)
    seen = energy.project(goal.face, truth, CROP_FOCAL)[0]
    start = torch.linalg.matrix_exp(energy.skew(torch.tensor([[0.0, 0.26, 0.0]], dtype=torch.float64))) @ rotation
    found = fit(goal.face, seen, start, place * 1.1, CROP_FOCAL, params.terms, weights=goal.weights[None])
    turned = found.state.rotation[0] @ rotation[0].T
    return found, float(torch.rad2deg(torch.acos(((turned.trace() - 1) / 2).clamp(-1, 1))))


def test_closed_eyes_are_an_expression():
    names = target().model.expression_names
    blink = [name.startswith("eyeBlink") for name in names]
    expression = torch.tensor([[float(shut) for shut in blink]], dtype=torch.float64)
    found, angle = fitted(expression, [0.0, 0.1, 0.0])
    assert found.converged[0]
    assert angle < 1
    shut = torch.tensor(blink)
    fits = found.state.expression[0]
    assert fits[shut].min() > 0.25  # few landmarks lie on the lids, so the prior weighs
    assert fits[shut].min() > 2 * fits[~shut].max()


@pytest.mark.parametrize("yaw", [-1.4, 1.2])
def test_a_profile_is_fitted_by_the_side_that_is_seen(yaw):
    found, angle = fitted(torch.zeros(1, 52, dtype=torch.float64), [0.0, yaw, 0.0])
    assert found.converged[0]
    assert angle < 2
    assert 0.2 < float((found.weights[0] > 0).double().mean()) < 0.95
