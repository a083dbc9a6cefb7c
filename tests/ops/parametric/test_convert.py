"""Readers of licensed models: small files of each format, written here, and what is wrong with wrong ones."""

import dataclasses
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.io import savemat

from models.parametric.base import BodyModel, FaceModel
from models.parametric.licensed import LinearBody
from ops.cli import main
from ops.parametric import convert as module
from ops.parametric.convert import KINDS, convert, load
from ops.runtime.errors import LineamentError

VERTICES = 40


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Files of the formats with few vertices: writing the real numbers takes megabytes."""
    shrunk = {name: dataclasses.replace(kind, vertices=VERTICES) for name, kind in KINDS.items()}
    monkeypatch.setattr(module, "KINDS", shrunk)


@pytest.fixture
def chumpy(monkeypatch):
    made = types.ModuleType("chumpy.ch")
    made.Ch = type("Ch", (), {"__module__": "chumpy.ch"})
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", made)

    def wrap(array):
        container = made.Ch()
        container.x = array
        return container

    return wrap


def skinned(kind: str, shapes: int) -> dict[str, np.ndarray]:
    """A random family member, regular enough to be posed."""
    g, joints = np.random.default_rng(0), len(KINDS[kind].joints)
    weights = g.random((VERTICES, joints)) ** 4
    regressor = g.random((joints, VERTICES)) ** 4
    parents = np.array([0, *(max(0, i - 1 - i % 3) for i in range(1, joints))], np.uint32)
    parents[0] = np.uint32(2**32 - 1)
    return {
        "v_template": g.normal(size=(VERTICES, 3)) * 0.3,
        "shapedirs": g.normal(size=(VERTICES, 3, shapes)) * 0.01,
        "posedirs": g.normal(size=(VERTICES, 3, 9 * (joints - 1))) * 0.001,
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.stack([parents, np.arange(joints, dtype=np.uint32)]),
        "f": g.integers(0, VERTICES, (60, 3)).astype(np.uint32),
    }


def write_smpl(path: Path, chumpy, arrays: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """As SMPL 1.0 and FLAME 2020 are published: chumpy around some arrays, the regressor sparse."""
    arrays = arrays or skinned("smpl", 10)
    wrapped = {name: chumpy(a) if name in ("v_template", "shapedirs", "weights") else a for name, a in arrays.items()}
    wrapped["J_regressor"] = sparse.csc_matrix(arrays["J_regressor"])
    path.write_bytes(pickle.dumps({**wrapped, "bs_style": "lbs", "bs_type": "lrotmin"}, protocol=2))
    return arrays


def bfm() -> dict[str, np.ndarray]:
    g = np.random.default_rng(1)
    return {
        "meanshape": g.normal(size=(1, 3 * VERTICES)),
        "idBase": g.normal(size=(3 * VERTICES, 80)),
        "exBase": g.normal(size=(3 * VERTICES, 64)),
        "meantex": g.random((1, 3 * VERTICES)) * 255,
        "texBase": g.normal(size=(3 * VERTICES, 80)),
        "tri": g.integers(1, VERTICES + 1, (60, 3)),
        "keypoints": g.integers(1, VERTICES + 1, (1, 68)),
        "point_buf": g.integers(1, 61, (VERTICES, 8)),
    }


def faceverse() -> dict[str, np.ndarray]:
    g = np.random.default_rng(2)
    return {
        "meanshape": g.normal(size=(1, 3 * VERTICES)) * 8,
        "idBase": g.normal(size=(3 * VERTICES, 150)),
        "exBase": g.normal(size=(3 * VERTICES, 171)),
        "meantex": g.random((1, 3 * VERTICES)) * 255,
        "texBase": g.normal(size=(3 * VERTICES, 251)),
        "tri": np.concatenate([np.arange(39).reshape(13, 3), g.integers(0, VERTICES, (47, 3))]),
        "keypoints": g.integers(0, VERTICES - 1, 478),
        "ver_inds": np.array([0, 8, 16]),
        "uv": g.random((50, 3)),
        "tri_uv": g.integers(0, 50, (60, 3)),
    }


def test_smpl_poses_as_its_paper_says(tmp_path, chumpy):
    """Against the formulas of the SMPL paper, written out joint by joint in numpy."""
    source = write_smpl(tmp_path / "SMPL_NEUTRAL.pkl", chumpy)
    convert(tmp_path / "SMPL_NEUTRAL.pkl", "smpl", tmp_path / "smpl")
    model = load(tmp_path / "smpl")
    assert isinstance(model, BodyModel)
    assert model.joint_names[11] == "neck"
    assert len(model.joint_names) == 23
    g = np.random.default_rng(3)
    beta, pose = g.normal(size=10), g.normal(size=(23, 3)) * 0.3

    from scipy.spatial.transform import Rotation

    turns = np.concatenate([np.eye(3)[None], Rotation.from_rotvec(pose).as_matrix()])
    shaped = source["v_template"] + source["shapedirs"] @ beta
    joints = source["J_regressor"] @ shaped
    bent = shaped + source["posedirs"] @ (turns[1:] - np.eye(3)).ravel()
    parents = source["kintree_table"][0]
    world = [np.eye(4)]
    world[0][:3, 3] = joints[0]
    for joint in range(1, 24):
        local = np.eye(4)
        local[:3, :3], local[:3, 3] = turns[joint], joints[joint] - joints[parents[joint]]
        world.append(world[parents[joint]] @ local)
    expected = np.zeros_like(bent)
    for joint in range(24):
        moved = (bent - joints[joint]) @ world[joint][:3, :3].T + world[joint][:3, 3]
        expected += source["weights"][:, joint, None] * moved
    found = model.posed(torch.tensor(beta[None]).float(), torch.tensor(pose[None]).float())[0].numpy()
    shift = found - 2.7 * expected
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=2e-5)
    np.testing.assert_allclose(shift[0], 2.7 * (model.mean[0].numpy() / 2.7 - source["v_template"][0]), atol=2e-5)


def test_flame_has_a_face_and_a_jaw(tmp_path, chumpy):
    source = write_smpl(tmp_path / "generic_model.pkl", chumpy, skinned("flame", 400))
    convert(tmp_path / "generic_model.pkl", "flame", tmp_path / "flame")
    model = load(tmp_path / "flame")
    assert isinstance(model, FaceModel)
    assert isinstance(model, BodyModel)
    assert (model.identity_size, model.expression_size) == (300, 100)
    assert model.joint_names == ("neck", "jaw", "left_eye", "right_eye")
    expression = torch.zeros(2, 100)
    expression[1, 3] = 1.0
    moved = model.vertices(torch.zeros(2, 300), expression)
    np.testing.assert_allclose((moved[1] - moved[0]).numpy(), 2.7 * source["shapedirs"][:, :, 303], atol=1e-6)
    pose = torch.zeros(2, 4, 3)
    pose[1, 1, 0] = 0.3
    assert (model.posed(torch.zeros(2, 300), pose)[1] - model.posed(torch.zeros(2, 300), pose)[0]).abs().max() > 0.01
    # Expressions move the joints through the regressor, as shapes do.
    joints = model.joints(torch.zeros(2, 300), expression)
    expected = 2.7 * source["J_regressor"] @ source["shapedirs"][:, :, 303]
    np.testing.assert_allclose((joints[1] - joints[0]).numpy(), expected[1:], atol=1e-5)


@pytest.mark.parametrize("shapes", [20, 400])
def test_smplx_from_npz(tmp_path, shapes):
    arrays = skinned("smplx", shapes)
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **arrays, part2num=np.array({"head": 1}, dtype=object))
    convert(tmp_path / "SMPLX_NEUTRAL.npz", "smplx", tmp_path / "smplx")
    model = load(tmp_path / "smplx")
    assert isinstance(model, LinearBody)
    assert model.expression_size == {20: 10, 400: 100}[shapes]
    assert len(model.joint_names) == 54
    assert model.posed(torch.zeros(1, model.shape_size), torch.zeros(1, 54, 3)).shape == (1, VERTICES, 3)


def test_bfm_of_deep3dfacerecon(tmp_path):
    source = bfm()
    savemat(tmp_path / "BFM_model_front.mat", source)
    convert(tmp_path / "BFM_model_front.mat", "bfm", tmp_path / "bfm")
    model = load(tmp_path / "bfm")
    assert isinstance(model, FaceModel)
    assert (model.identity_size, model.expression_size) == (80, 64)
    g = np.random.default_rng(4)
    identity, expression = g.normal(size=80), g.normal(size=64)
    wanted = (source["meanshape"][0] + source["idBase"] @ identity + source["exBase"] @ expression).reshape(
        -1, 3
    ) * 0.27
    found = model.vertices(*(torch.tensor(code[None]).float() for code in (identity, expression)))[0].numpy()
    np.testing.assert_allclose(found - found[0], wanted - wanted[0], atol=1e-4)
    assert model.landmarks68.tolist() == (source["keypoints"][0] - 1).tolist()
    assert model.triangles.tolist() == (source["tri"] - 1).tolist()
    np.testing.assert_allclose(model.get_buffer("albedo").numpy().ravel(), source["meantex"][0] / 255, atol=1e-6)
    middle = model.mean[model.landmarks68[36:48], 1].mean() * 0.9 + model.mean[model.landmarks68[48:], 1].mean() * 0.1
    assert abs(float(middle)) < 1e-5


def test_faceverse_turns_its_eyes(tmp_path):
    source = faceverse()
    np.save(tmp_path / "faceverse_v3.npy", np.array(source, dtype=object))
    convert(tmp_path / "faceverse_v3.npy", "faceverse", tmp_path / "faceverse")
    model = load(tmp_path / "faceverse")
    assert isinstance(model, FaceModel)
    assert (model.identity_size, model.expression_size) == (150, 171)
    assert not np.isclose(model.mean[:, 1].std(), 0)
    up = -source["meanshape"].reshape(-1, 3)[:, 1] * 0.027
    np.testing.assert_allclose((model.mean[:, 1] - model.mean[0, 1]).numpy(), up - up[0], atol=1e-5)
    code, gaze = torch.zeros(1, 150), torch.zeros(1, 2, 2)
    gaze[0, 1, 1] = 0.2  # the second eye to the left
    still, moved = model.vertices(code), model.vertices(code, gaze=gaze)
    eyeballs = model.get_buffer("eyeballs")
    torch.testing.assert_close(still[:, eyeballs != 2], moved[:, eyeballs != 2])
    second = eyeballs == 2
    torch.testing.assert_close(moved[:, second, 1], still[:, second, 1])
    front = (still[0, second, 2] - still[0, second, 2].mean()).argmax()
    assert (moved - still)[0, second][front, 0] > 0  # +x is the subject's left
    points = model.facemesh
    assert len(points.triangle) == 468
    on = points.on(still, model.triangles)[0]
    torch.testing.assert_close(on[points.valid], still[0, source["keypoints"][:468]][points.valid])
    assert points.valid.float().mean() > 0.9
    with pytest.raises(ValueError, match="gaze must be"):
        model.vertices(code, gaze=torch.zeros(1, 4))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda a: a.pop("weights"), "has no 'weights'"),
        (lambda a: a.update(weights=a["weights"][:-1]), "'weights' has shape"),
        (lambda a: a.update(weights=a["weights"] * 2), "do not sum to one"),
        (lambda a: a.update(v_template=a["v_template"][:-1]), "has 39 vertices where such a model has 40"),
        (lambda a: a.update(f=a["f"] + 30), "'f' points outside"),
        (lambda a: a["v_template"].__setitem__((0, 0), np.nan), "not finite"),
        (lambda a: a.update(shapedirs="none"), "no array of numbers"),
        (lambda a: a.update(kintree_table=a["kintree_table"][:, :5]), "'kintree_table' has shape"),
        (lambda a: a.update(kintree_table=a["kintree_table"][:, ::-1]), "before its parent"),
        (lambda a: a.update(posedirs=a["posedirs"][..., :-1]), "'posedirs' has shape"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, change, complaint):
    arrays = skinned("smpl", 10)
    change(arrays)
    path = tmp_path / "wrong.pkl"
    path.write_bytes(pickle.dumps(arrays, protocol=2))
    with pytest.raises(LineamentError, match=complaint) as error:
        convert(path, "smpl", tmp_path / "out")
    assert "wrong.pkl" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_wrong_and_damaged_files(tmp_path, chumpy, capsys):
    write_smpl(tmp_path / "smpl.pkl", chumpy)
    with pytest.raises(LineamentError, match="where such a model has 5|'J_regressor' has shape|shapes; known"):
        convert(tmp_path / "smpl.pkl", "flame", tmp_path / "out")
    with pytest.raises(LineamentError, match="has no 'meanshape'.*'bfm'"):
        convert(tmp_path / "smpl.pkl", "bfm", tmp_path / "out")
    with pytest.raises(LineamentError, match="there is no such file"):
        convert(tmp_path / "none.pkl", "smpl", tmp_path / "out")
    (tmp_path / "text.txt").write_text("no model")
    with pytest.raises(LineamentError, match="not a model's file"):
        convert(tmp_path / "text.txt", "smpl", tmp_path / "out")
    savemat(tmp_path / "bfm.mat", bfm())
    np.save(tmp_path / "fv.npy", np.array(faceverse(), dtype=object))
    np.savez(tmp_path / "x.npz", **skinned("smplx", 20))
    for name, kind in (("smpl.pkl", "smpl"), ("bfm.mat", "bfm"), ("fv.npy", "faceverse"), ("x.npz", "smplx")):
        data = (tmp_path / name).read_bytes()
        for length in (0, 20, len(data) // 2):
            (tmp_path / name).write_bytes(data[:length])
            with pytest.raises(LineamentError, match=name):
                convert(tmp_path / name, kind, tmp_path / "out")
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    assert main(["model", "convert", str(tmp_path / "numbers.npy"), "--kind", "faceverse", str(tmp_path / "out")]) == 1
    assert "holds a ndarray where" in capsys.readouterr().err


def test_hidden_calls_are_refused_in_every_kind_of_file(tmp_path):
    import os

    class Call:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'touched'}",)

    arrays = {**skinned("smplx", 20), "extra": Call()}
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(arrays))
    np.save(tmp_path / "bad.npy", np.array(arrays, dtype=object))
    np.savez(tmp_path / "bad.npz", **{**arrays, "extra": np.array(Call(), dtype=object)})
    for name in ("bad.pkl", "bad.npy", "bad.npz"):
        with pytest.raises(LineamentError, match="posix.system"):
            convert(tmp_path / name, "smplx", tmp_path / "out")
    assert not (tmp_path / "touched").exists()


def test_a_converted_model_is_verified(tmp_path, chumpy, capsys):
    write_smpl(tmp_path / "s.pkl", chumpy)
    assert main(["model", "convert", str(tmp_path / "s.pkl"), "--kind", "smpl", str(tmp_path / "smpl")]) == 0
    assert "not needed any more" in capsys.readouterr().out
    file = tmp_path / "smpl" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(LineamentError, match="damaged.*lineament model convert"):
        load(tmp_path / "smpl")
    with pytest.raises(LineamentError, match="lineament model convert"):
        load(tmp_path / "nowhere")


def test_the_published_numbers_of_vertices():
    assert {name: kind.vertices for name, kind in KINDS.items()} == {
        "smpl": 6890,
        "smplx": 10475,
        "flame": 5023,
        "bfm": 35709,
        "faceverse": None,
    }
    assert [len(kind.joints) for kind in KINDS.values()] == [24, 55, 5, 0, 0]
