"""The priors: draws have the data's moments, keep what goes together together, and bad fits are told."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch

from models import camera as geometry
from ops.fit.priors import gather, main
from ops.runtime.errors import LineamentError
from ops.store import tables
from ops.train.priors import CODES, Priors

WIDTHS = {"identity": 0.8, "expression": 0.2, "shape": 0.8, "pose": 0.4}
SIZES = {"identity": 80, "expression": 52, "shape": 10, "pose": 18}


def crowd(m: int = 400, scale: float = 1.2) -> dict[str, torch.Tensor]:
    """Data with a pattern: the first identity code goes with the head's turn and with the camera's azimuth."""
    g = torch.Generator().manual_seed(0)
    cause = torch.randn(m, generator=g)
    data = {name: scale * torch.randn(m, size, generator=g) for name, size in SIZES.items()}
    data["expression"] = (0.4 + 0.05 * data["expression"]).clamp(0, 1)
    data["identity"][:, 0] = scale * cause
    data["pose"] = 0.1 * data["pose"].unflatten(1, (6, 3))
    data["pose"][:, 1, 1] = 0.3 * cause
    azimuth = 0.3 * cause
    face = geometry.pose_on_sphere(azimuth, torch.zeros(m))
    head = torch.eye(4).repeat(m, 1, 1)
    head[:, 1, 3] = 0.05 * cause
    k = geometry.intrinsics(2.8).expand(m, 3, 3)
    return {**data, "camera_face": geometry.pack_label(face, k), "camera": geometry.pack_label(head @ face, k)}


def azimuth_of(camera: torch.Tensor) -> torch.Tensor:
    place = geometry.unpack_label(camera)[0][:, :3, 3]
    return torch.atan2(place[:, 0], place[:, 2])


def draw(priors: Priors, n: int, seed: int = 0):
    return priors.sample(n, torch.Generator().manual_seed(seed))


def test_draws_have_the_datas_moments():
    data = crowd()
    drawn = draw(Priors(data, WIDTHS, 2.0), 20000)
    for name in CODES:
        values, original = getattr(drawn, name), data[name]
        assert values.shape[1:] == original.shape[1:]
        scale = original.std(0)
        assert ((values.mean(0) - original.mean(0)).abs() / scale).max() < 0.05, name
        assert (values.std(0) / scale - 1).abs().max() < 0.08, name
    assert drawn.expression.min() >= 0
    assert drawn.expression.max() <= 1


def test_what_goes_together_stays_together():
    data = crowd()
    drawn = draw(Priors(data, WIDTHS, 1.0), 5000)

    def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(torch.corrcoef(torch.stack([a, b]))[0, 1])

    assert correlation(data["identity"][:, 0], data["pose"][:, 1, 1]) > 0.99
    assert correlation(drawn.identity[:, 0], drawn.pose[:, 1, 1]) > 0.9
    assert correlation(drawn.pose[:, 1, 1], azimuth_of(drawn.camera_face)) > 0.85
    assert abs(correlation(drawn.identity[:, 1], drawn.pose[:, 1, 1])) < 0.2


def test_without_smoothing_draws_are_the_data():
    data = crowd(50)
    drawn = draw(Priors(data, dict.fromkeys(CODES, 0.0), 0.0), 30)
    distance = torch.cdist(drawn.pose.flatten(1), data["pose"].flatten(1))
    of = distance.argmin(1)
    torch.testing.assert_close(drawn.pose, data["pose"][of])
    torch.testing.assert_close(drawn.camera_face, data["camera_face"][of])
    torch.testing.assert_close(drawn.camera, data["camera"][of], atol=1e-4, rtol=0)
    torch.testing.assert_close(drawn.expression, data["expression"][of])


def test_smoothed_draws_are_new_people():
    data = crowd()
    drawn = draw(Priors(data, WIDTHS, 2.0), 500)
    assert torch.cdist(drawn.identity, data["identity"]).min(1).values.min() > 3


def test_the_variance_that_fits_lack_is_given_back():
    """Codes pulled to the mean have a spread of 0.3; people's is 1."""
    data = crowd(scale=0.3)
    drawn = draw(Priors(data, WIDTHS, 2.0), 20000)
    assert (drawn.identity.std(0) - 1).abs().max() < 0.04
    assert (drawn.shape.std(0) - 1).abs().max() < 0.04
    assert (drawn.pose.std(0) / data["pose"].std(0) - 1).abs().max() < 0.08  # no such scale is known of poses


def test_cameras_are_cameras_and_turn_together():
    data = crowd()
    drawn = draw(Priors(data, WIDTHS, 5.0), 300)
    for camera in (drawn.camera, drawn.camera_face):
        geometry.check_label(camera)
    torch.testing.assert_close(
        geometry.unpack_label(drawn.camera_face)[0][:, :3, 3].norm(dim=-1), torch.full((300,), 2.7), atol=1e-3, rtol=0
    )
    body, face = (geometry.unpack_label(c)[0] for c in (drawn.camera, drawn.camera_face))
    head = body @ torch.linalg.inv(face)
    torch.testing.assert_close(head[:, :3, :3], torch.eye(3).expand(300, 3, 3), atol=1e-4, rtol=0)
    assert head[:, 1, 3].abs().max() > 0.05


def test_a_seed_gives_the_same_draw_after_saving(tmp_path):
    priors = Priors(crowd(), WIDTHS, 2.0)
    priors.save(tmp_path)
    again = Priors.load(tmp_path)
    for first, second in zip(draw(priors, 5), draw(again, 5), strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(draw(priors, 5).identity, draw(priors, 5, seed=1).identity)
    file = tmp_path / "priors.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(LineamentError, match="damaged.*dvc repro priors"):
        Priors.load(tmp_path)
    with pytest.raises(LineamentError, match="dvc repro priors"):
        Priors.load(tmp_path / "nowhere")


def test_training_draws_without_anny_warp_or_dagster():
    code = "import sys, ops.train.priors; print(sorted({'anny', 'warp', 'dagster', 'dvc'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def write_tables(folder, m: int = 120, **changes) -> None:
    """A source's tables as the fits write them; ``changes`` replaces columns of single rows: {row: {name: value}}."""
    data = crowd(m)
    faces, bodies, cameras = [], [], []
    for number in range(m):
        key = {"id": f"{number:016x}", "kept": True, "reason": None}
        rest = {name: data[name][number].flatten().tolist() for name in data}
        faces.append({**key, "identity": rest["identity"], "expression": rest["expression"]})
        bodies.append({**key, "shape": rest["shape"], "pose": rest["pose"], "camera": rest["camera"]})
        cameras.append({**key, "camera": rest["camera_face"]})
    for name, rows in (("fit_face", faces), ("fit_body", bodies), ("camera", cameras)):
        for number, columns in changes.get(name, {}).items():
            rows[number].update(columns)
        tables.write(folder / f"{name}.parquet", pa.Table.from_pylist(rows), name)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    source = {"kind": "folder", "path": "photos", "licence": "CC0-1.0"}
    (tmp_path / "params.yaml").write_text(json.dumps({"sources": {"mine": source}, "priors": {}}))
    return tmp_path


def test_the_stage_counts_what_it_leaves_out(project, capsys):
    fallen = {"kept": False, "reason": "not_converged"}
    nan = {"identity": [float("nan")] * 80}
    write_tables(project / "labels/mine", fit_face={3: fallen, 4: nan}, fit_body={5: fallen, 6: {"pose": None}})
    assert main(["labels", "priors", "--metrics", "m.json", "--preview", "p.png"]) == 0
    metrics = json.loads((project / "m.json").read_text())
    assert (metrics["in"], metrics["kept"]) == (120, 116)
    assert metrics["reasons"] == {"no_face_fit": 1, "no_body_fit": 1, "not_finite": 2}
    assert len(Priors.load(project / "priors")) == 116
    first = (project / "priors/priors.safetensors").read_bytes()
    assert main(["labels", "priors"]) == 0
    assert (project / "priors/priors.safetensors").read_bytes() == first


def test_too_few_missing_and_wrong_fits_are_errors(project, capsys):
    write_tables(project / "labels/mine", m=20, fit_face={1: {"kept": False, "reason": "large_residual"}})
    assert main(["labels", "priors"]) == 1
    error = capsys.readouterr().err
    assert "only 19 pictures have both fits" in error
    assert "1 no_face_fit" in error
    assert not (project / "priors").exists()
    short = {"shape": [0.0] * 9}
    write_tables(project / "labels/mine", m=20, fit_body={2: short})
    with pytest.raises(LineamentError, match="shape has 9 numbers where 10"):
        gather(project / "labels", {"mine": None})
    (project / "labels/mine/fit_body.parquet").unlink()
    with pytest.raises(LineamentError, match="fit_body.parquet: no such table"):
        gather(project / "labels", {"mine": None})


def test_a_picture_of_two_sources_counts_once(project):
    write_tables(project / "labels/a", m=10)
    write_tables(project / "labels/b", m=12)
    tensors, lost = gather(project / "labels", {"a": None, "b": None})
    assert len(tensors["identity"]) == 12
    assert lost == {"in_another_source": 10}
    assert np.isfinite(tensors["camera"].numpy()).all()
