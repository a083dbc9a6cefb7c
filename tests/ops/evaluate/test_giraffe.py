"""The stage from checkpoints to tables: numbers, resume, honesty about what differs, bad input."""

import csv
import hashlib
import json
import shutil

import numpy as np
import pytest
from fixtures import judged, write_checkpoint, write_shards

from ops.apply.generators import GiraffeRenderer, load_generator
from ops.evaluate import giraffe, published, verification
from ops.evaluate.giraffe import EvaluateGiraffeParams, main
from ops.evaluate.giraffe_output import warnings
from ops.evaluate.identity import load_recogniser
from ops.store.pictures import decode
from ops.store.reader import ShardDataset

PARAMS = "evaluate_giraffe: {objects: 5, angles: [-60, 0, 30], block: 3, strip_objects: 2, device: cpu}\n"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """One run of the stage on two variants; the third has no checkpoint."""
    root = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("LINEAMENT_WORKERS", "1")
        shards = write_shards(root / "shards")
        data = ShardDataset(shards).hash
        write_checkpoint(root / "checkpoints/giraffe", "giraffe", data, seed=0)
        write_checkpoint(root / "checkpoints/aamnce", "aamnce", "of other shards", seed=1)
        (root / "params.yaml").write_text(PARAMS)
        assert main(["checkpoints", "shards", "out", "--metrics", "m.json", "--preview", "p.png"]) == 0
        yield root


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_areas_are_those_of_the_definition(ran):
    renderer = load_generator(ran / "checkpoints/giraffe")
    recogniser = load_recogniser("dlib_128d")
    images = renderer.render(range(5), [-60.0, 0.0, 30.0])
    found = {r["angle"]: r for r in rows(ran / "out/auc.csv") if r["variant"] == "giraffe"}
    assert list(found) == ["L30", "R60"]
    front = recogniser.embed(list(images[:, 1]))
    for column, name in ((0, "R60"), (2, "L30")):
        side = recogniser.embed(list(images[:, column]))
        distance = np.linalg.norm(front[:, None] - side[None], axis=-1)
        genuine, impostor = np.diag(distance), distance[~np.eye(5, dtype=bool)]
        expected = ((genuine[:, None] < impostor) + 0.5 * (genuine[:, None] == impostor)).mean()
        assert float(found[name]["auc"]) == pytest.approx(expected, abs=1e-5)
        assert (found[name]["genuine"], found[name]["impostor"]) == ("5", "20")
        assert float(found[name]["low"]) <= float(found[name]["auc"]) <= float(found[name]["high"])
        assert found[name]["paper"] == str(published.AAMNCE_AUC["giraffe"][name])


def test_json_csv_and_metrics_say_the_same(ran):
    results, metrics = (json.loads((ran / name).read_text()) for name in ("out/auc.json", "m.json"))
    for row in rows(ran / "out/auc.csv"):
        entry = results["variants"][row["variant"]]["angles"][row["angle"]]
        assert entry["auc"] == float(row["auc"]) == metrics["variants"][row["variant"]]["auc"][row["angle"]]
        assert entry["interval"] == [float(row["low"]), float(row["high"])]
    for variant in results["variants"]:
        low, score, high = judged(metrics, "giraffe", variant)
        assert low <= score <= high, "by which a new training is judged"
    assert results["protocol"]["recogniser"] == "dlib_128d"
    assert results["protocol"]["impostor_pairs"] == 20
    assert "seconds" not in (ran / "m.json").read_text()


def test_the_curve_has_the_area(ran):
    areas = {(r["variant"], r["angle"]): float(r["auc"]) for r in rows(ran / "out/auc.csv")}
    for (variant, angle), area in areas.items():
        curve = [r for r in rows(ran / "out/roc.csv") if (r["variant"], r["angle"]) == (variant, angle)]
        x, y = ([float(r[key]) for r in curve] for key in ("false_accept", "true_accept"))
        assert np.trapezoid(y, x) == pytest.approx(area, abs=1e-4)


def test_what_differs_is_said(ran):
    results = json.loads((ran / "out/auc.json").read_text())
    text = " ".join(results["differs"])
    for word in ("dlib_128d", "LightCNN", "5 objects", "96 pictures seen", "32 px", "left", "ignores the camera"):
        assert word in text
    assert "other shards than those at hand: aamnce." in text
    assert results["variants"]["giraffe"]["same_data"]
    assert not results["variants"]["aamnce"]["same_data"]
    assert list(results["not_available"]) == ["infonce"]


def test_pictures_are_there(ran):
    strips = decode((ran / "out/strips_giraffe.png").read_bytes())
    assert strips.shape == (26 + 2 * 130 - 2, 3 * 130 - 2, 3)
    for variant in ("giraffe", "aamnce"):
        assert decode((ran / f"out/roc_{variant}.png").read_bytes()).shape[2] == 3
        assert b"<svg" in (ran / f"out/roc_{variant}.svg").read_bytes()
    assert decode((ran / "p.png").read_bytes()).shape[1] <= 1200


def digest(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_same_bytes_again_from_kept_blocks_or_from_nothing_and_with_two_workers(ran, monkeypatch):
    monkeypatch.chdir(ran)
    monkeypatch.setenv("LINEAMENT_WORKERS", "1")
    first = digest(ran / "out")
    monkeypatch.setattr(GiraffeRenderer, "render", lambda *a: pytest.fail("drawn again"))
    assert main(["checkpoints", "shards", "out"]) == 0
    assert digest(ran / "out") == first
    monkeypatch.undo()
    monkeypatch.chdir(ran)
    monkeypatch.setenv("LINEAMENT_WORKERS", "2")
    shutil.rmtree(ran / "data")
    assert main(["checkpoints", "shards", "out"]) == 0
    assert digest(ran / "out") == first


def test_a_generator_that_ignores_the_camera_is_found_out():
    """Perfect area, but no change between views: the number that goes with it says so."""
    p = EvaluateGiraffeParams(objects=4, angles=(0.0, 60.0))
    rng = np.random.default_rng(0)
    embeddings = np.repeat(rng.normal(size=(4, 1, 8)), 2, axis=1).astype(np.float32)
    thumbs = np.repeat(rng.integers(0, 256, (4, 1, 8, 8, 3), dtype=np.uint8), 2, axis=1)
    m = giraffe.measure("x", {}, embeddings, thumbs, thumbs, p, load_recogniser("dlib_128d"))
    assert m.mean_auc == 1
    assert m.angles["L60"]["change"] == 0 < m.between
    (said,) = warnings(m)
    assert "hardly turns its objects: a side view differs from the front by 0.0 grey levels" in said


def test_objects_that_are_one_and_views_that_turn():
    p = EvaluateGiraffeParams(objects=4, angles=(0.0, 60.0))
    embeddings = np.random.default_rng(0).normal(size=(4, 2, 8)).astype(np.float32)
    recogniser = load_recogniser("dlib_128d")
    thumbs = np.random.default_rng(0).integers(0, 256, (4, 2, 8, 8, 3), dtype=np.uint8)
    assert warnings(giraffe.measure("x", {}, embeddings, thumbs, thumbs, p, recogniser)) == []
    thumbs[:] = thumbs[:1]
    (said,) = warnings(giraffe.measure("x", {}, embeddings, thumbs, thumbs, p, recogniser))
    assert "nearly the same picture for every object (they differ by 0.0 grey levels)" in said


def test_columns_are_matched_with_their_angles():
    """The side view whose embeddings are shuffled is the one with a poor area, wherever it stands in the list."""
    p = EvaluateGiraffeParams(objects=30, angles=(-15.0, 45.0, 0.0))
    rng = np.random.default_rng(0)
    e = np.repeat(rng.normal(size=(30, 1, 8)), 3, axis=1).astype(np.float32)
    e[:, 1] = np.roll(e[:, 1], 1, axis=0)
    thumbs = np.zeros((30, 3, 2, 2, 3), np.uint8)
    m = giraffe.measure("x", {}, e, thumbs, thumbs, p, load_recogniser("dlib_128d"))
    assert list(m.angles) == ["L45", "R15"]
    assert m.angles["R15"]["by_pair"].value == 1
    assert m.angles["L45"]["by_pair"].value < 0.7
    assert isinstance(m.angles["L45"]["curve"], verification.Roc)


def run(root, monkeypatch, capsys, params=PARAMS, checkpoints="checkpoints"):
    monkeypatch.chdir(root)
    (root / "params.yaml").write_text(params)
    code = main([checkpoints, "shards", "out"])
    return code, capsys.readouterr().err


def test_bad_input_ends_in_a_clear_line(tmp_path, monkeypatch, capsys):
    write_shards(tmp_path / "shards")
    code, said = run(tmp_path, monkeypatch, capsys)
    assert code == 1
    assert "no checkpoint found" in said

    folder = write_checkpoint(tmp_path / "checkpoints/giraffe", "giraffe")
    weights = folder / "generator.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    code, said = run(tmp_path, monkeypatch, capsys)
    assert code == 1
    assert "generator.safetensors: damaged" in said
    weights.write_bytes(whole)

    for params, words in (
        ("evaluate_giraffe: {angles: [15, 30]}", "hold 0"),
        ("evaluate_giraffe: {recogniser: arcface}", "lightcnn29"),
        ("evaluate_giraffe: {recogniser: lightcnn29}", "weights"),
        ("evaluate_giraffe: {recogniser: lightcnn29, weights: none.pth}", "none.pth: no such file"),
        ("evaluate_giraffe: {objekts: 3}", "nearest valid key is 'objects'"),
    ):
        code, said = run(tmp_path, monkeypatch, capsys, params)
        assert code == 1
        assert words in said
    assert not (tmp_path / "out").exists()


def test_weights_that_diverged_are_refused(tmp_path, monkeypatch, capsys):
    import torch

    from ops.train import checkpoint
    from ops.train.checkpoint import Checkpoint
    from ops.train.export import read_config, read_weights

    write_shards(tmp_path / "shards")
    folder = write_checkpoint(tmp_path / "checkpoints/giraffe", "giraffe")
    tensors = dict(read_weights(folder))
    tensors[sorted(tensors)[0]].fill_(torch.nan)
    record = {k: v for k, v in read_config(folder).items() if k not in ("files", "format")}
    checkpoint.write_into(folder, "config.json", Checkpoint({"generator": tensors}, record))
    code, said = run(tmp_path, monkeypatch, capsys)
    assert code == 1
    assert "not finite" in said
