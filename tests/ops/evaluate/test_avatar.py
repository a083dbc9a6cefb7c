"""The stage from checkpoints to numbers; measures find what is put before them, and say when they see nothing."""

import json

import cv2
import numpy as np
import pytest
import torch
from fixtures import judged

from models.next3d import Next3DConfig, Next3DGenerator
from ops.apply.avatars import load_prior
from ops.apply.source import Frame
from ops.evaluate import avatar, avatar_measure, avatar_prior
from ops.evaluate.avatar_faces import Judge, gaze, see, summarise
from ops.evaluate.avatar_measure import find_encoders, load_methods, same_identity, unseen_psnr
from ops.evaluate.avatar_takes import Take, shard_takes, spread, studio_takes, untrained_clips
from ops.evaluate.features import load_features
from ops.evaluate.identity import load_recogniser
from ops.runtime.errors import LineamentError
from ops.store.clips import decode_clip
from ops.store.pictures import decode, encode_jpeg
from ops.store.reader import ShardDataset
from ops.store.tar import ShardWriter
from ops.train.checkpoint import Checkpoint, write_into
from ops.train.footage import Footage
from tests.conftest import ROOT
from tests.ops.apply import tinyavatars

PARAMS = """
evaluate_avatar: {samples: 8, identities: 2, motions: 2, clips: 2, clip_frames: 12, shard_clips: 1, tests: 2,
  frames: [1, 2], unseen: [30], reconstructed: 8, side: 32, kd_subsets: 2, device: cpu}
"""


@pytest.fixture(scope="module")
def takes(weights):
    """Two held-out people of the studio, tracked."""
    return studio_takes(2, 12, 64, weights, (-30.0, 30.0))


@pytest.fixture(scope="module")
def place(tmp_path_factory, takes):
    """A project with tiny networks, faces and a clip in shards."""
    root = tmp_path_factory.mktemp("evaluate")
    tinyavatars.write_project(root)
    config = Next3DConfig.model_validate(
        {**tinyavatars.CONFIG.model_dump(), "plane_axes": "orthogonal", "mouth_side": 16, "mouth_lowest": 4,
         "blend_lowest": 16}
    )  # fmt: skip
    torch.manual_seed(2)
    folder = root / "data/checkpoints/avatar/next3d"
    tinyavatars.write_generator(folder, variant="next3d", net=Next3DGenerator(config))
    tinyavatars.write_encoders(
        root / "data/checkpoints/image_encoders", root / "data/checkpoints/avatar/avatar", root / "data/priors",
        fusion=None,
    )  # fmt: skip
    with ShardWriter(root / "data/shards/faces", per_shard=8) as writer:
        for number, frame in enumerate([*takes[0].frames[:5], *takes[1].frames[:5]]):
            fit = {name: getattr(frame, name).tolist() for name in ("identity", "expression", "camera")}
            record = {"camera": fit["camera"], "fit": None if number == 3 else {**fit, "residual": frame.residual}}
            fields = {"jpg": encode_jpeg(frame.picture), "json": json.dumps(record).encode()}
            writer.add(f"{number:016x}", fields)
    with ShardWriter(root / "data/shards/clips", per_shard=8) as writer:
        frames = takes[0].frames
        label = {name: [getattr(f, name).tolist() for f in frames] for name in ("expression", "camera")}
        label |= {"frames": list(range(len(frames))), "residual": [f.residual for f in frames]}
        label["identity"] = frames[0].identity.tolist()
        fields = {f"f{n:04d}.jpg": encode_jpeg(f.picture) for n, f in enumerate(frames)}
        writer.add("c" * 16 + "-0000", {**fields, "json": json.dumps(label).encode()})
    summary = {"samples": 1, "resolution": 64, "hash": ShardDataset(root / "data/shards/clips").hash}
    (root / "data/shards/clips/dataset.json").write_text(json.dumps(summary))
    (root / "params.yaml").write_text(PARAMS)
    return root


@pytest.fixture(scope="module")
def judge(weights):
    return Judge(weights, load_features(weights, 32), load_recogniser("dlib_128d"))


@pytest.fixture(scope="module")
def methods(place):
    found = load_prior(place / "data/checkpoints/avatar/avatar", place / "data/priors")
    return load_methods(found, find_encoders(place / "data/checkpoints"))


def test_the_stage_measures_generators_and_encoders(place, weights, monkeypatch):
    monkeypatch.chdir(place)
    words = ["data/checkpoints", "data/shards", "data/priors", str(weights), "data/evaluation/avatar"]
    assert avatar.main([*words, "--metrics", "m.json", "--preview", "p.png"]) == 0
    found = json.loads((place / "data/evaluation/avatar/avatar.json").read_text())
    assert list(found["generators"]) == ["avatar", "next3d"]
    assert found["generators"]["avatar"]["distances"]["fd_mobilenetv2"]["samples"] == [8, 8]
    assert found["generators"]["avatar"]["faces"]["n"] == 4
    assert list(found["encoders"]) == ["recurrent", "image_encoders", "latent_only"]
    recurrent = found["encoders"]["recurrent"]
    assert recurrent["same"]["psnr"]["n"] == 6, "two frames of each of three clips"
    assert set(recurrent["by_frames"]["ordered"]) == {"1", "2"}
    assert set(recurrent["by_frames"]["unordered"]) == {"2"}
    assert recurrent["truth"]["unseen_psnr"]["2"]["n"] == 2, "the clip of the shards has no truth"
    assert len(found["protocol"]["takes"]) == 3, "of encoders that learnt on pictures alone no clip is excluded"
    gain, ordered = recurrent["by_frames"]["ordered"]["2"]["psnr_gain"], recurrent["by_frames"]["ordered"]
    assert gain["mean"] == pytest.approx(ordered["2"]["psnr"]["mean"] - ordered["1"]["psnr"]["mean"], abs=0.01)
    assert gain["n"] == 6
    unseen = recurrent["truth"]["unseen_psnr"]
    apart = unseen["2"]["mean"] - unseen["1"]["mean"]
    assert recurrent["truth"]["unseen_gain"]["2"]["mean"] == pytest.approx(apart, abs=0.01)
    assert recurrent["same"]["faces"]["n"] == 6
    for name in ("heads_avatar", "heads_next3d", "reenactment", "frames"):
        assert decode((place / f"data/evaluation/avatar/{name}.png").read_bytes()).ndim == 3
    film = list(decode_clip((place / "data/evaluation/avatar/reenactment.mp4").read_bytes()))
    assert len(film) == found["protocol"]["takes"][0]["frames"]
    assert {frame.shape for frame in film} == {(avatar.FILMED, 3 * avatar.FILMED, 3)}
    assert np.abs(film[0][:, : avatar.FILMED].astype(float) - film[-1][:, : avatar.FILMED]).mean() > 1, "it moves"
    metrics = json.loads((place / "m.json").read_text())
    assert "seconds" not in json.dumps(metrics)
    for system, variant in (("avatar", "avatar"), ("avatar", "next3d"), ("recurrent", None)):
        low, score, high = judged(metrics, system, variant)
        assert low < score < high, "by which a new training is judged"
    assert metrics["encoders"]["recurrent"]["few_shot"]["frames"] == 2
    assert metrics["generators"]["next3d"]["parameters"] > metrics["generators"]["avatar"]["parameters"]


def test_without_encoders_it_says_why(place, weights, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    only = tmp_path / "checkpoints"
    (only / "avatar").mkdir(parents=True)
    (only / "avatar/avatar").symlink_to(place / "data/checkpoints/avatar/avatar")
    assert avatar.main([str(only), "data/shards", "data/priors", str(weights), str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out/avatar.json").read_text())
    assert found["encoders"] == {}
    assert "train_recurrent" in found["why_not"]


def test_without_a_generator_it_refuses(place, weights, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(place)
    assert avatar.main([str(tmp_path), "data/shards", "data/priors", str(weights), str(tmp_path / "out")]) == 1
    assert "dvc repro train_avatar" in capsys.readouterr().err


def test_faces_without_a_fit_do_not_drive(place, tmp_path):
    faces = avatar_prior.read_faces(ShardDataset(place / "data/shards/faces"), 100, 64)
    assert len(faces.frames) == 9
    assert f"{3:016x}" not in [frame.name for frame in faces.frames]
    with ShardWriter(tmp_path / "faces", per_shard=8) as writer:
        writer.add("0" * 16, {"jpg": encode_jpeg(np.zeros((8, 8, 3), np.uint8)), "json": b'{"fit": null}'})
    with pytest.raises(LineamentError, match="no face there has a fit"):
        avatar_prior.read_faces(ShardDataset(tmp_path / "faces"), 4, 64)


def test_an_avatar_that_shows_the_truth_is_perfect(takes, judge, methods, monkeypatch):
    """A drawing replaced by the true frame has no error at all, and one by another frame has some."""
    monkeypatch.setattr(avatar_measure, "drawn", lambda made, frames: [f.picture for f in frames])
    found = same_identity(methods[1], takes, judge, 4)
    assert found["akd"]["mean"] == 0
    assert found["gaze"]["mean"] == 0
    assert found["l1"]["mean"] == 0
    assert found["csim_dlib_128d"]["mean"] == pytest.approx(1)
    assert found["faces"]["mean"] > 0.7, "so small a face is found where it is enlarged"
    first = {id(f): take.frames[0].picture for take in takes for f in take.frames}
    monkeypatch.setattr(avatar_measure, "drawn", lambda made, frames: [first[id(f)] for f in frames])
    still = same_identity(methods[1], takes, judge, 4)
    assert still["akd"]["mean"] > 0
    assert still["l1"]["mean"] > 0


def test_where_there_is_no_face_nothing_is_invented(takes, judge, methods, monkeypatch):
    grey = np.full((64, 64, 3), 128, np.uint8)
    monkeypatch.setattr(avatar_measure, "drawn", lambda made, frames: [grey] * len(frames))
    found = same_identity(methods[1], takes, judge, 2)
    assert found["akd"] == {"n": 0, "mean": None, "interval": None, "median": None, "p90": None}
    assert found["faces"]["mean"] == 0
    assert found["faces"]["n"] == 4
    assert np.isnan(avatar_measure.units_apart(grey, np.zeros(52), judge))


def test_unseen_views_are_compared_over_the_head_alone(takes, methods):
    take = takes[0]
    made = methods[0].build(take.frames[:1])
    before = unseen_psnr(made, take)
    assert len(before) == 2
    other = take.unseen.pictures.copy()
    other[take.unseen.masks < 128] = 0
    from dataclasses import replace

    assert unseen_psnr(made, replace(take, unseen=replace(take.unseen, pictures=other))) == before


def test_more_frames_are_used(takes, methods):
    """Each method but the latent alone changes with a second frame; the latent does not."""
    for method in methods:
        one, two = (method.build(takes[0].frames[:n]).canonical.textures for n in (1, 2))
        assert all(torch.equal(a, b) for a, b in zip(one, two)) == method.latent_only, method.name


def test_build_and_judge_share_no_frame():
    take = Take("x", [Frame(str(n)) for n in range(9)])
    build, judged = take.split()
    assert (build, judged) == (list(range(6)), [6, 7, 8])
    assert spread(build, 3) == [0, 2, 5]
    assert spread(build, 99) == build


def test_held_out_people_are_fitted_near_their_truth(takes):
    for take in takes:
        assert len(take.frames) == len(take.expressions) >= 8
        apart = np.abs(np.stack([f.expression for f in take.frames]) - take.expressions).mean()
        assert apart < 0.09
    distance = np.linalg.norm(takes[0].frames[0].who - takes[1].frames[0].who)
    assert distance > 2 * np.linalg.norm(takes[0].frames[0].who - takes[0].frames[5].who)


def test_clips_of_shards_come_back(place, takes):
    (take,) = shard_takes(place / "data/shards/clips", [0], 4, 64)
    assert [f.name.rsplit("#")[-1] for f in take.frames] == ["0", "4", "7", "11"]
    np.testing.assert_array_equal(take.frames[1].expression, takes[0].frames[4].expression)
    assert shard_takes(place / "data/shards/clips", [], 4, 64) == []


def test_no_clip_is_judged_by_that_was_trained_on(tmp_path):
    with ShardWriter(tmp_path / "clips", per_shard=8) as writer:
        label = {"identity": [0.0], "expression": [[0.0]], "camera": [[0.0] * 25]}
        for number in range(5):
            writer.add(f"{number:016x}-0000", {"f0000.jpg": b"", "json": json.dumps(label).encode()})
    summary = {"samples": 5, "resolution": 16, "hash": ShardDataset(tmp_path / "clips").hash}
    (tmp_path / "clips/dataset.json").write_text(json.dumps(summary))
    footage, held_out = Footage(tmp_path / "clips", 16).split(0.4)
    assert held_out.numbers == [3, 4]
    encoders = {}
    for name, facts in {
        "recurrent": {"clips": footage.hash},
        "image_encoders": {},
        "other": {"clips": "others"},
    }.items():
        encoders[name] = tmp_path / name
        encoders[name].mkdir()
        record = {"params": {"objective": {"held_out": 0.4}}, **facts}
        write_into(encoders[name], "config.json", Checkpoint({}, record))
    assert untrained_clips(tmp_path / "clips", {"a": encoders["image_encoders"]}) == [0, 1, 2, 3, 4]
    assert untrained_clips(tmp_path / "clips", {n: encoders[n] for n in ("recurrent", "image_encoders")}) == [3, 4]
    assert untrained_clips(tmp_path / "clips", encoders) == []


def eyes(image, points, shift):
    """The photo with both eyes painted anew: white, with a dark disc moved sideways by a share of the eye's width."""
    from ops.evaluate.avatar_faces import EYES

    painted = image.copy()
    for outline in EYES:
        ring = points[list(outline)]
        shape = np.zeros(image.shape[:2], np.uint8)
        cv2.fillPoly(shape, [np.rint(ring).astype(np.int32)], 1)
        painted[shape > 0] = 235
        width = np.ptp(ring[:, 0])
        centre = np.rint(ring.mean(0) + np.array([shift * width, 0])).astype(int)
        disc = cv2.circle(np.zeros_like(shape), centre.tolist(), round(width * 0.2), 1, -1)
        painted[(disc > 0) & (shape > 0)] = 30
    return painted


def test_gaze_follows_the_dark_of_the_eyes(astronaut, weights):
    seen = see(astronaut, weights)
    points = seen.points * len(astronaut)
    turns = [gaze(eyes(astronaut, points, shift), points) for shift in (-0.2, -0.1, 0, 0.1, 0.2)]
    np.testing.assert_allclose(np.diff(turns), 0.1, atol=0.05)
    shut = points.copy()
    shut[:, 1] = points[33, 1]
    assert gaze(astronaut, shut) is None


def test_summaries_count_what_was_there():
    rows = [{"akd": [0.1, np.nan], "psnr": [20.0, 22.0]}, {"akd": [np.nan, 0.3], "psnr": [30.0, 32.0]}]
    found = summarise(rows)
    assert found["akd"]["n"] == 2
    assert found["akd"]["mean"] == pytest.approx(0.2)
    assert found["faces"]["mean"] == 0.5
    assert found["psnr"]["interval"] == [21.0, 31.0], "clips are drawn whole"


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("invertavatar_table1", {"akd", "csim_dlib_128d", "fd_mobilenetv2", "parameters"}),
        ("invertavatar_table2", {"psnr", "l1", "akd", "cross_akd", "cross_csim_dlib_128d"}),
        ("invertavatar_table3", {"psnr_2", "akd_4", "csim_dlib_128d_4"}),
        ("invertavatar_table4", {"psnr", "csim_dlib_128d", "fd_mobilenetv2"}),
        ("invertavatar_figure6", {"perceptual_mobilenetv2_ordered_1", "perceptual_mobilenetv2_unordered_2"}),
    ],
)
def test_the_papers_tables_are_measured(place, weights, monkeypatch, takes, name, metrics):
    """Every row whose checkpoint is there, and only those; the others say what is not trained."""
    from ops.evaluate import avatar_tables
    from ops.evaluate.commands import evaluate
    from ops.evaluate.protocol import load_protocols, state_of

    protocol = load_protocols(ROOT / "protocols")[name]
    monkeypatch.chdir(place)
    monkeypatch.setattr(avatar_tables, "_takes", lambda *a: takes)
    assert state_of(protocol).word in ("ready", "fallback")
    found = evaluate(name, protocol, samples=8, shards=place / "data/shards/faces", weights=weights)
    rows = found["rows"]
    assert metrics <= set(next(iter(rows.values())))
    assert set(rows) | set(found["not_measured"]) == set(protocol.variants)
    if name == "invertavatar_table4":
        assert rows["full"]["psnr"]["value"] != rows["without both encoders"]["psnr"]["value"]
        assert next(iter(found["not_measured"].values())).endswith("inverter/image_encoders_posed")
