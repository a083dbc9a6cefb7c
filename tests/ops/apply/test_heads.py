"""What can be made of a head generator: stills, videos, interpolations, mixtures, meshes; and what is refused."""

import hashlib
import json

import cv2
import numpy as np
import pytest
import torch
import trimesh

from models import camera
from ops import cli
from ops.apply import mesh as meshes
from ops.apply.cameras import key_of, orbit, path, turntable
from ops.apply.generators import load_generator
from ops.apply.heads import Heads
from ops.apply.interpolate import between, slerp
from ops.apply.mix import mixing_table
from ops.apply.pictures import Film, grid, normals, panels
from ops.runtime.errors import LineamentError
from ops.store.pictures import decode
from tests.ops.apply.tinyheads import solid, write_heads


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_heads(tmp_path_factory.mktemp("c") / "spherehead")


@pytest.fixture(scope="module")
def heads(folder):
    loaded = Heads(folder)
    solid(loaded.net)
    return loaded


def run(*words):
    return cli.main([str(word) for word in words])


def test_any_checkpoint_of_ours_loads_behind_one_interface(folder, tmp_path):
    for variant in ("eg3d", "panohead", "single_sphere"):
        images = load_generator(write_heads(tmp_path / variant, variant)).render([3, 4], [0.0, 90.0, 180.0])
        assert images.shape == (2, 3, 32, 32, 3)
    renderer = load_generator(folder)
    images = renderer.render([5, 9, 5], [0.0, 40.0])
    assert (images[0] == images[2]).all()
    assert (images[0] != images[1]).any()
    renderer.batch = 1
    assert np.abs(renderer.render([5], [0.0, 40.0])[0].astype(int) - images[0]).max() <= 1


# --- cameras ----------------------------------------------------------------------------------------------------------


def test_orbits_are_where_they_say():
    pose, _ = camera.unpack_label(orbit(90.0, 0.0, 3.0))
    assert torch.allclose(pose[0, :3, 3], torch.tensor([3.0, 0.0, 0.0]), atol=1e-5)
    labels = turntable(8)
    camera.check_label(labels)
    azimuth, _, radius = camera.spherical_angles(camera.unpack_label(labels)[0])
    assert torch.allclose(azimuth.rad2deg() % 360, torch.arange(8) * 45.0, atol=1e-3)
    assert torch.allclose(radius, torch.full((8,), 2.7), atol=1e-5)


def test_a_path_passes_its_keys_smoothly():
    labels = path([key_of("0:0"), key_of("10:170,20"), key_of("20:360,0,3")])
    azimuth, elevation, radius = camera.spherical_angles(camera.unpack_label(labels)[0])
    assert len(labels) == 21
    for frame, wanted in ((0, (0, 0, 2.7)), (10, (170, 20, 2.7)), (20, (0, 0, 3))):
        found = azimuth[frame].rad2deg() % 360, elevation[frame].rad2deg(), radius[frame]
        assert [round(float(v), 2) % 360 for v in found] == pytest.approx(wanted, abs=0.02)
    assert elevation.max().rad2deg() < 20.01  # nothing overshoots


@pytest.mark.parametrize("text", ["0", "a:1", "0:1,2,3,4", "-1:3", "0:1,2,0"])
def test_key_frames_are_read_strictly(text):
    with pytest.raises(LineamentError, match="key frame|radius"):
        key_of(text)
    with pytest.raises(LineamentError, match="each later"):
        path([key_of("0:0"), key_of("0:1")])


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_normals_of_a_ball_point_away_from_its_middle(heads):
    """From wherever it is seen: the middle pixel's normal points at the camera, the left one's to the left."""
    cache = heads.cache(heads.styles(heads.latent(0)))
    for azimuth in (0.0, 90.0):
        label = orbit(azimuth)
        output = cache.view(label, 32)
        n = normals(output, label)[0]
        assert n[:, 15:17, 15:17].mean(dim=(1, 2))[2] > 0.9
        solid_pixels = output.mask[0, 0] > 0.9
        columns = torch.where(solid_pixels[16])[0]
        assert n[0, 16, columns[2]] < -0.2 < 0.2 < n[0, 16, columns[-3]]
        rows = torch.where(solid_pixels[:, 16])[0]
        assert n[1, rows[2], 16] > 0.2 > -0.2 > n[1, rows[-3], 16]


def test_panels_show_what_the_network_has(heads, tmp_path):
    output = next(heads.views(heads.styles(heads.latent(0)), orbit(0.0)))
    assert panels(output, orbit(0.0), ["picture", "depth", "normals", "parsing"], 48).shape == (1, 48, 192, 3)
    plain = Heads(write_heads(tmp_path / "eg3d", "eg3d"))
    output = next(plain.views(plain.styles(plain.latent(0)), orbit(0.0)))
    assert panels(output, orbit(0.0), ["picture", "parsing"], 48).shape == (1, 48, 48, 3)


def test_grid_places_pictures_row_by_row():
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    sheet = grid(images, 2)
    assert sheet.shape == (10, 10, 3)
    assert sheet[0, 6, 0] == 1
    assert sheet[6, 0, 0] == 2
    assert sheet[6, 6, 0] == 255


def test_a_film_is_whole_or_absent(tmp_path):
    goal = tmp_path / "a.mp4"
    with pytest.raises(RuntimeError), Film(goal) as film:
        film.add(np.zeros((32, 32, 3), np.uint8))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(LineamentError, match=r"ends in \.mp4"):
        Film(tmp_path / "a.avi")
    with Film(goal) as film:
        for level in (0, 200):
            film.add(np.full((33, 32, 3), level, np.uint8))
    stream = cv2.VideoCapture(str(goal))
    assert stream.get(cv2.CAP_PROP_FRAME_COUNT) == 2
    assert [stream.read()[1].mean() for _ in range(2)] == pytest.approx([0, 200], abs=6)


# --- interpolation and mixing -----------------------------------------------------------------------------------------


def test_slerp_keeps_to_the_shell():
    a, b = torch.randn(2, 1, 64)
    assert torch.allclose(slerp(a, b, 0.0), a, atol=1e-5)
    assert torch.allclose(slerp(a, b, 1.0), b, atol=1e-5)
    assert slerp(a, b, 0.5).norm() > 0.9 * min(a.norm(), b.norm()) > torch.lerp(a, b, 0.5).norm()
    assert torch.allclose(slerp(a, a, 0.3), a)


@pytest.mark.parametrize("space", ["z", "w"])
def test_interpolation_begins_and_ends_at_its_seeds(heads, space):
    styles = between(heads, [3, 4, 5], 2, space, 0.7)
    assert len(styles) == 5
    for place, seed in ((0, 3), (2, 4), (4, 5)):
        assert torch.allclose(styles[place], heads.styles(heads.latent(seed)), atol=1e-5)
    middle = heads.styles(heads.latent(3)).lerp(heads.styles(heads.latent(4)), 0.5)
    assert torch.allclose(styles[1], middle, atol=1e-6) == (space == "w")
    with pytest.raises(LineamentError, match="two seeds"):
        between(heads, [3], 2, space, 0.7)


def test_mixtures_take_their_styles_from_both(heads):
    table = mixing_table(heads, [1, 2], [3, 2], 4, 1.0)
    assert table.shape == (3, 3, 32, 32, 3)
    assert (table[0, 0] == 255).all()
    assert (table[2, 2] == table[2, 0]).all()  # a head mixed with itself
    assert (table[1, 1] != table[1, 2]).any()
    assert (table[1, 1] != table[2, 1]).any()
    with pytest.raises(LineamentError, match="between 1 and"):
        mixing_table(heads, [1], [2], heads.net.w_count, 1.0)


# --- meshes -----------------------------------------------------------------------------------------------------------


def test_the_mesh_of_a_ball_is_a_ball(heads, tmp_path):
    cache = heads.cache(heads.styles(heads.latent(0)), occupancy=False)
    density = meshes.density_volume(cache, 48)
    made = meshes.surface(cache, density, 0.0)
    assert made.is_watertight
    radii = np.linalg.norm(made.vertices, axis=1)
    assert radii.mean() == pytest.approx(0.25, abs=0.02)  # make_solid: half of half the box
    assert radii.std() < 0.02
    assert made.volume == pytest.approx(4 / 3 * np.pi * radii.mean() ** 3, rel=0.05)
    assert np.abs(made.center_mass).max() < 0.01
    with pytest.raises(LineamentError, match="nowhere reaches 1e\\+06"):
        meshes.surface(cache, density, 1e6)
    for ending in ("ply", "obj", "glb"):
        meshes.save_mesh(made, tmp_path / f"a.{ending}")
        again = trimesh.load_mesh(tmp_path / f"a.{ending}", process=False)
        assert len(again.faces) == len(made.faces)
        assert np.abs(again.bounds - made.bounds).max() < 1e-4
        assert len(np.unique(np.asarray(again.visual.vertex_colors), axis=0)) > 10


def test_a_mesh_touching_the_box_is_closed_and_the_volume_has_its_axes(heads, tmp_path):
    cache = heads.cache(heads.styles(heads.latent(0)), occupancy=False)
    axis = np.arange(8)
    density = (axis[:, None, None] < 2) * np.ones((8, 8, 8), np.float32)
    made = meshes.surface(cache, density, 0.5)
    assert made.is_watertight
    assert made.bounds[:, 0] == pytest.approx([-0.4375 - 0.125 / 3, -0.25], abs=1e-6)  # x comes first
    meshes.save_volume(density, 1.0, tmp_path / "d.npz")
    with np.load(tmp_path / "d.npz", allow_pickle=False) as stored:
        assert np.array_equal(stored["density"], density)
        assert stored["origin"][0] == pytest.approx(-0.4375)
        assert stored["spacing"] == pytest.approx(0.125)


# --- the commands -----------------------------------------------------------------------------------------------------


def test_commands(folder, tmp_path):
    assert run("sample", folder, tmp_path / "s", "--seeds", "0,1", "--azimuths", "0", "-90") == 0
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == [
        "grid.png", "seed0000_azimuth+000.png", "seed0000_azimuth-090.png", "seed0001_azimuth+000.png",
        "seed0001_azimuth-090.png",
    ]  # fmt: skip
    assert decode((tmp_path / "s/grid.png").read_bytes()).shape == (66, 66, 3)
    assert run("video", folder, tmp_path / "v.mp4", "--frames", 3, "--side", 32) == 0
    whole = "--precision", "float32"
    assert (
        run("video", folder, tmp_path / "k.mp4", "--keys", "0:0", "3:90", "--side", 32, "--show", "picture", *whole)
        == 0
    )
    assert cv2.VideoCapture(str(tmp_path / "k.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 4
    assert run("interpolate", folder, tmp_path / "i.png", "--steps", 3) == 0
    assert decode((tmp_path / "i.png").read_bytes()).shape == (32, 4 * 34 - 2, 3)
    assert run("interpolate", folder, tmp_path / "i.mp4", "--steps", 2, "--space", "z", "--turn") == 0
    assert run("mix", folder, tmp_path / "m.png", "--rows", "0", "--columns", "1,2") == 0
    assert run("mesh", folder, tmp_path / "m.ply", tmp_path / "m.npz", "--resolution", 16, "--level", -1e3) == 0
    assert run("mesh", folder, tmp_path / "m.npz", "--resolution", 16) == 0


def test_bad_checkpoints_are_refused(folder, tmp_path, capsys):
    def refused(where):
        code = run("sample", where, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert code == 1
        return capsys.readouterr().err

    assert "no such checkpoint" in refused(tmp_path / "nothing")
    other = write_heads(tmp_path / "other", system="giraffe")
    assert "system 'giraffe', where one of 'heads' is wanted" in refused(other)
    cut = write_heads(tmp_path / "cut")
    weights = cut / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    assert "damaged" in refused(cut)
    pickled = write_heads(tmp_path / "pickled")
    torch.save({"a": torch.zeros(1)}, pickled / "generator.safetensors")
    data = (pickled / "generator.safetensors").read_bytes()
    record = json.loads((pickled / "config.json").read_text())
    record["files"]["generator.safetensors"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (pickled / "config.json").write_text(json.dumps(record))
    assert "pickle" in refused(pickled)
    wrong = write_heads(tmp_path / "wrong")
    record = json.loads((wrong / "config.json").read_text())
    record["params"]["model"]["plane_channels"] = 4
    (wrong / "config.json").write_text(json.dumps(record))
    assert "another architecture" in refused(wrong)
    record["params"]["model"]["variant"], record["params"]["model"]["parsing"] = "eg3d", True
    (wrong / "config.json").write_text(json.dumps(record))
    assert "has no parsing" in refused(wrong)


def test_weights_that_diverged_are_refused(tmp_path, capsys):
    folder = write_heads(tmp_path / "x")
    heads = Heads(folder)
    heads.net.superresolution.block1.to_image.bias.data.fill_(torch.nan)
    with pytest.raises(LineamentError, match="not finite"):
        heads.render([0], [0.0])
