"""The stage from head checkpoints to tables: whose numbers they are, what is said with them, bad input."""

import csv
import hashlib
import json

import cv2
import numpy as np
import pytest
import torch
from fixtures import judged

from ops.apply.cameras import orbit
from ops.evaluate import heads, published
from ops.evaluate.distances import Moments, frechet
from ops.evaluate.features import load_features
from ops.evaluate.heads_output import differences, halved, sprite
from ops.evaluate.heads_views import true_azimuths
from ops.store.pictures import decode, encode_jpeg, encode_png
from ops.store.reader import ShardDataset
from ops.store.tar import ShardWriter
from tests.ops.apply.tinyheads import write_heads

PARAMS = """
evaluate_heads: {samples: 10, objects: 2, views: 8, side: 32, kd_subsets: 3, kd_size: 4, sprites: 1, device: cpu}
"""


def picture(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A disc before noise, and its mask."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 120, (40, 40, 3), dtype=np.uint8)
    mask = cv2.circle(np.zeros((40, 40), np.uint8), (20, 20), 12, 255, -1)
    image[mask > 0] = rng.integers(150, 250, 3)
    return image, mask


def write_shards(folder, count=24, camera=True):
    with ShardWriter(folder, per_shard=16) as writer:
        for number in range(count):
            image, mask = picture(number)
            label = orbit(number * 15.0 - 173)[0].tolist() if camera else None
            record = {"camera": label, "identity": number % 4, "source": "studio"}
            fields = {"jpg": encode_jpeg(image), "mask.png": encode_png(mask), "json": json.dumps(record).encode()}
            writer.add(f"{number:016x}", fields)
    return folder


@pytest.fixture(scope="module")
def ran(tmp_path_factory, weights):
    """One run of the stage on two variants."""
    root = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("LINEAMENT_WORKERS", "1")
        data = ShardDataset(write_shards(root / "shards")).hash
        first = torch.zeros(8, 32, 32, 3, dtype=torch.uint8)
        last = torch.from_numpy(np.stack([cv2.resize(picture(i)[0], (32, 32)) for i in range(8)]))
        kept = {
            f"snapshots/step-{step:07d}": {"images": images, "camera": torch.zeros(8, 25)}
            for step, images in ((0, first), (40, last))
        }
        write_heads(root / "checkpoints/spherehead", data=data, tensors=kept)
        write_heads(root / "checkpoints/eg3d", "eg3d", seed=1, data="of others")
        (root / "params.yaml").write_text(PARAMS)
        words = ["checkpoints", "shards", "truth", str(weights), "out", "--metrics", "m.json", "--preview", "p.png"]
        assert heads.main(words) == 0
        yield root


@pytest.fixture(scope="module")
def results(ran):
    return json.loads((ran / "out/heads.json").read_text())


def test_numbers_stand_with_what_they_are_of(results):
    assert list(results["variants"]) == ["eg3d", "spherehead"]
    about = results["protocol"]
    assert (about["samples"], about["real"], about["heads"], about["views"]) == (10, 24, 2, 8)
    assert about["backbone"] == "mobilenetv2"
    assert about["resize"] == "pil-bilinear-32"
    for found in results["variants"].values():
        assert found["fd"]["all"]["samples"] == [10, 24]
        assert found["fd"]["front"]["samples"][1] == 8
        assert found["artefacts"]["back_views"] == 2 * 3
        assert len(found["kd_by_azimuth"]) == 8
        assert sum(entry["kd"]["samples"][1] for entry in found["kd_by_azimuth"]) == 24
    assert "fid" not in json.dumps(results["variants"]).lower()


def test_the_curve_is_the_distance_of_kept_pictures(ran, results, weights):
    backbone = load_features(weights, 32)
    images = [cv2.resize(picture(i)[0], (32, 32)) for i in range(8)]
    data = ShardDataset(ran / "shards")
    real = [decode(data.read(i)["jpg"]) for i in range(24)]
    real = [cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA) for image in real]
    wanted = frechet(Moments.of([backbone.embed(images)]), Moments.of([backbone.embed(real)])).value
    curve = results["variants"]["spherehead"]["fd_curve"]
    assert [point["step"] for point in curve] == [0, 40]
    assert curve[1]["fd"] == pytest.approx(wanted, rel=1e-3)
    assert curve[0]["fd_low"] > 2 * curve[1]["fd_low"]
    assert curve[0]["samples"] == 8
    assert halved(results["variants"]["spherehead"])
    assert results["variants"]["eg3d"]["fd_curve"] == []


def test_a_network_without_mask_has_no_alarm_of_masks(results):
    assert results["variants"]["eg3d"]["artefacts"]["by_detector"]["cover"] == 0


def test_what_differs_is_said(results):
    text = " ".join(results["differs"])
    for words in ("not FID", "10 samples against 24 real", "37 people", "without a mask", "No truth", "covariance"):
        assert words in text
    assert "other shards than those at hand: EG3D." in text
    assert results["variants"]["spherehead"]["same_data"]
    worse = {
        "fd_curve": [{"fd_low": 10}, {"fd_low": 6}],
        "same_data": True,
        "fd": {v: {} for v in ("all", "front", "back")},
    }
    assert any(
        "not fallen by half in training: PanoHead" in n
        for n in differences({**results, "variants": {"panohead": worse}})
    )


def test_tables_metrics_and_pictures(ran, results):
    with (ran / "out/ablation.csv").open() as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    metrics = json.loads((ran / "m.json").read_text())
    for name, row in rows.items():
        assert float(row["fd_all"]) == results["variants"][name]["fd"]["all"]["value"]
        assert metrics["variants"][name]["fd_mobilenetv2"]["all"] == float(row["fd_all"])
        assert row["paper_fid"] == str(published.SPHEREHEAD_ABLATION[name]["fid"])
    assert "seconds" not in json.dumps(metrics)
    for name in rows:
        low, score, high = judged(metrics, "heads", name)
        assert low < score < high, "what promotes heads is there"
    assert decode((ran / "out/turntable_eg3d.png").read_bytes()).shape == (32, 8 * 32, 3)
    assert decode((ran / "p.png").read_bytes()).shape[1] <= 1200
    assert b"<svg" in (ran / "out/curves.svg").read_bytes()


def digest(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_same_bytes_again_from_kept_facts_and_from_nothing(ran, weights, monkeypatch):
    monkeypatch.chdir(ran)
    monkeypatch.setenv("LINEAMENT_WORKERS", "1")
    first, words = digest(ran / "out"), ["checkpoints", "shards", "truth", str(weights), "out"]
    with monkeypatch.context() as patch:
        patch.setattr(heads, "read_real", lambda *a: pytest.fail("looked at again"))
        assert heads.main(words) == 0
    assert digest(ran / "out") == first
    for path in (ran / "data/.work").rglob("*.npz"):
        path.unlink()
    assert heads.main(words) == 0
    assert digest(ran / "out") == first


def test_identity_is_chance_for_strangers_and_certain_for_friends():
    rng = np.random.default_rng(0)
    front = rng.normal(size=(40, 8))
    assert heads.identity_of(front, front[:, None] + 0.01)["auc"] == 1
    assert heads.identity_of(front, rng.normal(size=(40, 2, 8)))["auc"] == pytest.approx(0.5, abs=0.06)


def test_sprites_are_heads_by_views():
    pictures = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.ones((1, 1, 4, 4, 3), np.uint8)
    sheet = sprite(pictures)
    assert sheet.shape == (8, 12, 3)
    assert sheet[5, 9, 0] == 5


def test_truth_is_found_by_id(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "studio").mkdir()
    pq.write_table(pa.table({"id": ["a", "b"], "azimuth": [12.5, None]}), tmp_path / "studio/truth.parquet")
    assert true_azimuths(tmp_path) == {"a": 12.5}


def test_bad_input_ends_in_a_clear_line(tmp_path, monkeypatch, capsys, weights):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINEAMENT_WORKERS", "1")
    (tmp_path / "params.yaml").write_text(PARAMS)

    def said(shards="shards"):
        code = heads.main(["checkpoints", shards, "truth", str(weights), "out"])
        assert code == 1
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    write_shards(tmp_path / "shards")
    assert "no checkpoint found" in said()
    folder = write_heads(tmp_path / "checkpoints/spherehead")
    assert "12 real pictures cannot calibrate" in said(str(write_shards(tmp_path / "few", 12)))
    assert "has no camera" in said(str(write_shards(tmp_path / "blind", camera=False)))
    (folder / "generator.safetensors").write_bytes(b"cut")
    assert "damaged" in said()
