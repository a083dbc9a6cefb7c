"""Batches: exact epochs, resume anywhere, shares of ranks, mirroring, and data that cannot be used."""

import json

import numpy as np
import pytest
import simplejpeg
import torch
from tiny import SIDE, write_shards

from models.camera import check_label, mirror_label, spherical_angles, unpack_label
from ops.runtime.errors import LineamentError
from ops.store.pictures import decode, encode_jpeg
from ops.store.reader import Position
from ops.store.tar import ShardWriter
from ops.train.data import Batches, Pictures
from ops.train.ddp import Ranks


def take(batches, count):
    stream = iter(batches)
    return [next(stream) for _ in range(count)]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_every_epoch_shows_each_sample_once_and_in_another_order(shards):
    pictures = Pictures(shards, SIDE)
    indices = torch.cat([b["index"] for b in take(Batches(pictures, 5, seed=3), 6)]).view(3, 10)
    assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in indices)
    assert len({tuple(epoch.tolist()) for epoch in indices}) == 3


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("after", [1, 3, 7])  # batches of 4 of 10 samples: within, across and beyond an epoch's end
def test_resume_gives_the_very_batches_of_the_undisturbed_stream(shards, workers, after):
    def stream(start=None):
        return Batches(Pictures(shards, SIDE, cache_mb=1), 4, seed=1, mirror=True, start=start, workers=workers)

    whole = take(stream(), after + 3)
    first = stream()
    take(first, after)
    assert first.position == Position(*divmod(4 * after, 10)) or first.position.index == 10
    resumed = take(stream(first.position), 3)
    assert all(same(a, b) for a, b in zip(whole[after:], resumed))


def test_threads_and_cache_change_nothing(shards):
    plain = take(Batches(Pictures(shards, SIDE), 4, mirror=True), 6)
    fast = take(Batches(Pictures(shards, SIDE, cache_mb=1), 4, mirror=True, workers=2), 6)
    assert all(same(a, b) for a, b in zip(plain, fast))


def test_ranks_share_the_batch_of_a_lone_process(shards):
    alone = take(Batches(Pictures(shards, SIDE), 4, mirror=True), 5)
    parts = [take(Batches(Pictures(shards, SIDE), 4, mirror=True, ranks=Ranks(r, 2)), 5) for r in (0, 1)]
    for whole, left, right in zip(alone, *parts):
        assert len(left["index"]) == len(right["index"]) == 2
        together = {name: torch.cat([left[name], right[name]]) for name in whole}
        for name in whole:  # ranks take turns: 0, 1, 0, 1
            assert torch.equal(together[name][[0, 2, 1, 3]], whole[name])


def test_pixels_and_camera_are_those_of_the_shard(shards):
    pictures = Pictures(shards, SIDE)
    batch = take(Batches(pictures, 10), 1)[0]
    for index, image, camera in zip(batch["index"].tolist(), batch["image"], batch["camera"]):
        fields = pictures.dataset.read(index)
        assert torch.equal(
            ((image.permute(1, 2, 0) + 1) * 127.5).round().byte(), torch.from_numpy(decode(fields["jpg"]))
        )
        assert torch.equal(camera, torch.tensor(json.loads(fields["json"])["camera"]))
        assert -1 <= image.min() < image.max() <= 1


def test_mirroring_turns_half_the_pictures_with_their_cameras(shards):
    pictures = Pictures(shards, SIDE)
    plain = {i: (image, camera) for b in take(Batches(pictures, 10), 1) for i, image, camera in by_sample(b)}
    mirrored, ways = 0, set()
    for batch in take(Batches(pictures, 10, mirror=True), 8):
        check_label(batch["camera"])
        for flag, (i, image, camera) in zip(batch["mirrored"], by_sample(batch)):
            image0, camera0 = plain[i]
            assert torch.equal(image, image0.flip(-1) if flag else image0)
            assert torch.equal(camera, mirror_label(camera0) if flag else camera0)
            azimuth = spherical_angles(unpack_label(camera)[0])[0]
            assert azimuth == pytest.approx((-0.1 if flag else 0.1) * i, abs=1e-5)
            mirrored += int(flag)
            ways.add((i, bool(flag)))
    assert 20 < mirrored < 60
    assert len(ways) > 16, "a sample should be seen both ways as epochs go by"


def by_sample(batch):
    return zip(batch["index"].tolist(), batch["image"], batch["camera"])


def test_masks_come_with_the_picture_and_turn_with_it(tmp_path):
    pictures = Pictures(write_shards(tmp_path / "s", masks=True), SIDE, masks=True)
    for batch in take(Batches(pictures, 10, mirror=True), 2):
        assert batch["mask"].shape == (10, 1, SIDE, SIDE)
        for index, mask, flag in zip(batch["index"].tolist(), batch["mask"], batch["mirrored"]):
            stored = torch.tensor(decode(pictures.dataset.read(index)["mask.png"])[..., 0]).float() / 255
            assert torch.equal(mask[0], stored.flip(-1) if flag else stored)


def test_parsing_comes_with_the_picture_and_a_mirrored_left_eye_is_a_right_one(tmp_path):
    pictures = Pictures(write_shards(tmp_path / "s", heads=True), SIDE, parsing=True)
    sides = {4: 5, 5: 4, 6: 7, 7: 6, 8: 9, 9: 8}  # eyes, brows, ears of ops.store.parsing.CLASSES
    seen = set()
    for batch in take(Batches(pictures, 10, mirror=True), 3):
        assert batch["parsing"].shape == (10, SIDE, SIDE)
        assert batch["parsing"].dtype == torch.uint8
        for index, parsing, flag in zip(batch["index"].tolist(), batch["parsing"], batch["mirrored"].tolist()):
            stored = torch.tensor(decode(pictures.dataset.read(index)["parsing.png"])[..., 0])
            turned = stored.clone().apply_(lambda c: sides.get(c, c)).flip(-1)
            assert torch.equal(parsing, turned if flag else stored)
            seen.add(flag)
    assert seen == {False, True}


def test_larger_parsing_keeps_its_classes(tmp_path):
    pictures = Pictures(write_shards(tmp_path / "s", side=16, heads=True), 8, parsing=True)
    whole = decode(pictures.dataset.read(0)["parsing.png"])[..., 0]
    assert np.array_equal(pictures.read(0).parsing, whole[::2, ::2])


def test_pools_repeat_rare_views_and_choose_frontal_ones(tmp_path):
    pictures = Pictures(write_shards(tmp_path / "s", heads=True), SIDE)
    assert pictures.pool("").tolist() == list(range(10))
    assert pictures.pool("all").tolist() == [*range(10), 9, 9]
    assert pictures.pool("front").tolist() == [0, 1, 9, 9, 9]
    batch = take(Batches(pictures, 5, pool="front"), 1)[0]
    assert sorted(batch["index"].tolist()) == [0, 1, 9, 9, 9]
    epoch = torch.cat([b["index"] for b in take(Batches(pictures, 4, pool="all", seed=5), 3)])
    assert sorted(epoch.tolist()) == [*range(10), 9, 9]
    with pytest.raises(LineamentError, match="5 samples in the pool 'front', fewer than a batch of 6"):
        Batches(pictures, 6, pool="front")
    with pytest.raises(LineamentError, match="no pool of samples 'best'; choose one of all, front"):
        pictures.pool("best")


def test_records_without_what_a_pool_needs_are_named(tmp_path):
    pictures = Pictures(write_shards(tmp_path / "s"), SIDE)
    with pytest.raises(LineamentError, match=r"000000.tar: sample 0+ cannot .*: its record lacks 'duplicates'"):
        pictures.pool("all")
    with pytest.raises(LineamentError, match="lacks 'view'"):
        pictures.pool("front")
    with pytest.raises(LineamentError, match="it has no parsing, and parsing is asked for"):
        Pictures(tmp_path / "s", SIDE, parsing=True).read(0)


def test_a_set_without_frontal_pictures_has_no_frontal_pool(tmp_path):
    with ShardWriter(tmp_path) as writer:
        record = {"camera": [*np.eye(4).ravel(), 4, 0, 0.5, 0, 4, 0.5, 0, 0, 1], "view": "back", "duplicates": 1}
        picture = encode_jpeg(np.zeros((8, 8, 3), np.uint8))
        writer.add("a", {"jpg": picture, "json": json.dumps(record).encode()})
    with pytest.raises(LineamentError, match="no sample has the view 'front'"):
        Pictures(tmp_path, 8).pool("front")


def test_a_camera_is_read_without_its_picture(tmp_path):
    folder = write_shards(tmp_path / "s", heads=True)
    pictures = Pictures(folder, SIDE)
    pictures._decode_picture = None
    assert np.array_equal(pictures.camera(3), Pictures(folder, SIDE).read(3).camera)


def test_larger_pictures_are_reduced_by_area(tmp_path):
    smooth = np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None].repeat(64, 0).repeat(3, 2)
    with ShardWriter(tmp_path) as writer:
        camera = json.dumps({"camera": [*np.eye(4).ravel(), 4, 0, 0.5, 0, 4, 0.5, 0, 0, 1]}).encode()
        writer.add("a", {"jpg": encode_jpeg(smooth), "json": camera})
    for side in (8, 16, 24):
        image = Pictures(tmp_path, side).read(0).image.astype(float)
        edges = np.linspace(0, 255, side + 1)
        assert image.shape == (side, side, 3)
        assert np.abs(image - ((edges[1:] + edges[:-1]) / 2)[None, :, None]).max() < 4


def test_the_cache_keeps_to_its_bound(tmp_path):
    folder = write_shards(tmp_path / "s", samples=20, side=256)  # 197 kB a sample
    pictures = Pictures(folder, 256, cache_mb=2)
    for number in range(20):
        pictures.read(number)
    kept = sum(sample.size for sample in pictures._kept.values())
    assert 1_800_000 < kept <= 2_000_000


def test_fewer_samples_than_a_batch_is_an_error_in_words(shards):
    with pytest.raises(LineamentError, match=r"10 samples, fewer than a batch of 12 takes \(2 processes x 6\)"):
        Batches(Pictures(shards, SIDE), 12, ranks=Ranks(0, 2))
    with pytest.raises(LineamentError, match="not divisible"):
        Batches(Pictures(shards, SIDE), 5, ranks=Ranks(0, 2))


def break_camera(fields):
    camera = json.loads(fields["json"])["camera"]
    camera[0] += 0.5
    return {**fields, "json": json.dumps({"camera": camera}).encode()}


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda f: {**f, "jpg": f["jpg"][:-20]}, "cannot be used"),
        (lambda f: {**f, "jpg": b""}, "cannot be used"),
        (lambda f: {k: v for k, v in f.items() if k != "jpg"}, "has no 'jpg'"),
        (lambda f: {**f, "json": b"{}"}, "lacks 'camera'"),
        (lambda f: {**f, "json": b"{"}, "cannot be used"),
        (lambda f: {**f, "json": b'{"camera": [1, 2]}'}, "2 values, not 25"),
        (break_camera, "no rotation"),
        (lambda f: {**f, "jpg": encode_jpeg(np.zeros((8, 16, 3), np.uint8))}, "16 x 8 pixels, not square"),
        (lambda f: {**f, "jpg": encode_jpeg(np.zeros((4, 4, 3), np.uint8))}, "set the shards' resolution"),
        (lambda f: f, "no mask, and masks are asked for"),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_cannot_be_used_is_named(tmp_path, shards, broken, words, workers):
    source = Pictures(shards, SIDE).dataset
    with ShardWriter(tmp_path) as writer:
        for number in range(10):
            fields = source.read(number)
            writer.add(source.key(number), broken(fields) if number == 6 else fields)
    masks = "masks are asked" in words
    with pytest.raises(LineamentError, match=words) as error:
        take(Batches(Pictures(tmp_path, SIDE, masks=masks), 5, workers=workers), 2)
    assert "000000.tar: sample 000000" in str(error.value)
    assert masks or f"sample {6:016x}" in str(error.value)


def test_decoding_agrees_with_the_plain_decoder(shards):
    data = Pictures(shards, SIDE).dataset.read(0)["jpg"]
    assert np.array_equal(simplejpeg.decode_jpeg(data), Pictures(shards, SIDE).read(0).image)


# --- fitted faces -----------------------------------------------------------------------------------------------------


UNITS = [1, 0, 2]  # of a mirrored face: the first two change places


def write_fits(folder, units=3):
    """Ten samples, of which number 3 and 7 have no fitted face."""
    rng = np.random.default_rng(0)
    plain = write_shards(folder / "plain")
    source = Pictures(plain, SIDE).dataset
    with ShardWriter(folder / "fitted", per_shard=4) as writer:
        for number in range(10):
            fields = dict(source.read(number))
            record = json.loads(fields["json"])
            turned = mirror_label(torch.tensor(record["camera"])).tolist()  # another camera than the picture's own
            fit = {"identity": [number, 0.5], "expression": rng.random(units).tolist(), "camera": turned}
            record["fit"] = None if number in (3, 7) else {**fit, "residual": 1.0}
            writer.add(f"{number:016x}", {**fields, "json": json.dumps(record).encode()})
    return folder / "fitted"


def test_fitted_faces_come_with_their_codes_and_the_fits_camera(tmp_path):
    folder = write_fits(tmp_path)
    plain, fitted = Pictures(folder, SIDE), Pictures(folder, SIDE, fits=UNITS)
    assert fitted.pool("").tolist() == [0, 1, 2, 4, 5, 6, 8, 9]
    (batch,) = take(Batches(fitted, 8), 1)
    assert sorted(batch["index"].tolist()) == [0, 1, 2, 4, 5, 6, 8, 9]
    assert torch.equal(batch["identity"][:, 0], batch["index"].float())
    for camera, number in zip(batch["camera"], batch["index"].tolist()):
        torch.testing.assert_close(camera, mirror_label(torch.from_numpy(plain.camera(number))))
    assert {"identity", "expression"}.isdisjoint(take(Batches(plain, 2), 1)[0])


def test_a_mirrored_face_swaps_the_units_of_its_sides(tmp_path):
    fitted = Pictures(write_fits(tmp_path), SIDE, fits=UNITS)
    straight = {int(n): e for b in take(Batches(fitted, 8), 1) for n, e in zip(b["index"], b["expression"])}
    batches = take(Batches(fitted, 8, mirror=True), 4)
    seen = {True: 0, False: 0}
    for batch in batches:
        for number, expression, mirrored in zip(batch["index"].tolist(), batch["expression"], batch["mirrored"]):
            wanted = straight[number][UNITS] if mirrored else straight[number]
            assert torch.equal(expression, wanted)
            seen[bool(mirrored)] += 1
    assert min(seen.values()) > 4


def test_shards_without_fits_are_named(tmp_path):
    bare = write_shards(tmp_path / "bare")
    with pytest.raises(LineamentError, match=r"sample 0{16} cannot be used for training: its record lacks 'fit'"):
        Batches(Pictures(bare, SIDE, fits=UNITS), 2)
    folder = write_fits(tmp_path, units=4)
    with pytest.raises(LineamentError, match="its fit has 4 expression units, where the face model has 3"):
        take(Batches(Pictures(folder, SIDE, fits=UNITS), 2), 1)
    with pytest.raises(LineamentError, match="it has no fitted face"):
        Pictures(folder, SIDE, fits=UNITS).read(3)
    lost = Pictures(folder, SIDE).dataset
    with ShardWriter(tmp_path / "lost", per_shard=4) as writer:
        writer.add("0" * 16, lost.read(3))
    with pytest.raises(LineamentError, match="not one sample has a fitted face"):
        Batches(Pictures(tmp_path / "lost", SIDE, fits=UNITS), 1)
