"""The studio's pictures: the same for every way of asking, and true to their truth."""

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from models.camera import check_label, intrinsics, pack_label, pose_on_sphere, project, spherical_angles, unpack_label
from models.parametric.person import load_person
from ops.store.parsing import CLASSES
from ops.studio.avatar import make_avatar
from ops.studio.crawl import RubbishShares, Studio, StudioParams, picture_count, plan, render_pictures
from ops.studio.params import RUBBISH
from ops.studio.render import photograph, pose_face
from ops.studio.scene import draw_view, gaze_units
from ops.studio.truth import gaze_directions, truth_of

SHARES = dict.fromkeys(RUBBISH, 0.2)
PARAMS = StudioParams(people=2, views=5, size=128, seed=3, rubbish=RubbishShares(**SHARES), png_share=0, webp_share=0)
FRONT = StudioParams(
    people=2, views=3, size=256, seed=5, azimuth_front_share=1, azimuth_front_spread=15, extent_max=1.2
)


@pytest.fixture(scope="module")
def front():
    items = [i for i, item in enumerate(plan(FRONT)) if item.kind == "portrait"]
    return list(render_pictures(FRONT, items))


@pytest.fixture(scope="module")
def pictures():
    return list(render_pictures(PARAMS, range(picture_count(PARAMS))))


def kinds(pictures, kind):
    return [p for p in pictures if p.truth["kind"] == kind]


def opened(picture) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(picture.data))).convert("RGB"))


def test_plan_counts_and_keeps_people_together():
    items = plan(PARAMS)
    assert picture_count(PARAMS) == len(items) == 10 + 2 * len(RUBBISH)
    assert sum(i.kind == "portrait" for i in items) == 10
    assert all(sum(i.kind == kind for i in items) == 2 for kind in RUBBISH)
    assert [i.identity for i in items] == sorted(i.identity for i in items)
    assert len(plan(StudioParams(people=7, views=3, rubbish=RubbishShares(**dict.fromkeys(RUBBISH, 0.0))))) == 21


def test_any_order_and_any_process_gives_the_same_bytes(pictures):
    some = [len(pictures) - 1, 0, 7, 3, 12]
    for index, picture in zip(some, render_pictures(PARAMS, some), strict=True):
        assert picture.data == pictures[index].data
        assert picture.name == pictures[index].name
        for name, value in picture.truth.items():
            np.testing.assert_array_equal(value, pictures[index].truth[name])


def test_seeds_differ_and_indices_are_checked(pictures):
    other = next(render_pictures(PARAMS.model_copy(update={"seed": 4}), [0]))
    assert other.data != pictures[0].data
    with pytest.raises(IndexError, match=r"0\.\.29"):
        next(render_pictures(PARAMS, [30]))


def test_cameras_are_proper_and_angles_are_theirs(pictures):
    for picture in kinds(pictures, "portrait"):
        truth = picture.truth
        label = torch.from_numpy(truth["camera"])
        check_label(label)
        pose, intrinsic = unpack_label(label.double())
        azimuth, elevation, radius = spherical_angles(pose)
        assert np.rad2deg(azimuth.item()) == pytest.approx(truth["azimuth"], abs=1e-3)
        assert np.rad2deg(elevation.item()) == pytest.approx(truth["elevation"], abs=1e-3)
        assert 2 < radius.item() < 6.1
        assert intrinsic[0, 2] == intrinsic[1, 2] == 0.5
        uv, _ = project(label[None], torch.from_numpy(truth["landmarks68"])[None])
        np.testing.assert_allclose(uv[0].numpy() * 128, truth["landmarks68_2d"], atol=1e-2)


def test_landmarks_lie_on_the_rendered_surface(front):
    """The depth picture has the depth of the landmark where the landmark is."""
    hits = []
    for picture in front:
        truth = picture.truth
        _, depth = project(torch.from_numpy(truth["camera"])[None], torch.from_numpy(truth["landmarks68"])[None])
        for point, expected in zip(truth["landmarks68_2d"][27:60], depth[0, 27:60].tolist(), strict=True):
            x, y = np.clip(point.astype(int), 0, 255)
            near = truth["depth"][max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            hits.append(np.abs(near[np.isfinite(near)] - expected).min(initial=9.0) < 0.02)
    assert np.mean(hits) > 0.95


def test_features_are_seen_at_their_landmarks(front):
    parts = {"left_eye": range(42, 48), "right_eye": range(36, 42), "upper_lip": (49, 50, 52, 53)}
    checked = 0
    for picture in front:
        truth = picture.truth
        points, parsing = truth["landmarks68_2d"], truth["parsing"]
        for name, indices in parts.items():
            where = np.argwhere(parsing == CLASSES.index(name))
            if len(where) < 25:
                continue  # closed eyes, lips under a moustache
            checked += 1
            off = np.linalg.norm(where.mean(0)[::-1] - points[list(indices)].mean(0))
            assert off < 0.10 * np.linalg.norm(points[36] - points[45]), name
    assert checked > 10


def test_irises_are_darker_than_the_white_beside_them(front):
    """The paint itself, not its label: a dark spot inside each open eye's outline."""
    darker = []
    for picture in front:
        image = opened(picture).astype(float).sum(-1)
        for name in ("left_eye", "right_eye"):
            eye = image[picture.truth["parsing"] == CLASSES.index(name)]
            if len(eye) > 40:
                darker.append(np.percentile(eye, 10) < 0.6 * np.percentile(eye, 90))
    assert len(darker) > 5
    assert np.mean(darker) > 0.9


def test_mask_parsing_and_depth_agree(pictures):
    for picture in kinds(pictures, "portrait"):
        mask, parsing, depth = (picture.truth[name] for name in ("mask", "parsing", "depth"))
        assert mask.shape == parsing.shape == depth.shape == (128, 128)
        assert set(np.unique(mask)) <= {0, 64, 128, 192, 255}
        np.testing.assert_array_equal(mask > 0, np.isfinite(depth))
        np.testing.assert_array_equal(parsing > 0, mask >= 128)
        assert 0.15 < (mask > 127).mean() < 0.9
        # One person without holes: what is not the person is one region that reaches the border.
        count, labels = cv2.connectedComponents((mask == 0).astype(np.uint8))
        border = np.unique(np.concatenate([labels[0], labels[:, 0], labels[:, -1]]))
        hidden = sum((labels == k).sum() for k in range(1, count) if k not in border)
        assert hidden < 0.01 * mask.size  # the gap between tresses and neck is all there may be


def test_mask_is_the_alpha_of_the_picture():
    """Over another background exactly the pixels outside the mask change."""
    studio = Studio(PARAMS)
    view = draw_view(PARAMS, studio.model, 1, 0)
    white, black = (photograph(studio.model, studio.avatar(1), view, np.full((128, 128, 3), v)) for v in (0.9, 0.001))
    changed = (white.picture.astype(int) - black.picture).max(-1)
    assert (changed[white.mask == 255] == 0).all()
    assert (changed[white.mask == 0] > 150).all()
    assert (changed[(white.mask > 0) & (white.mask < 255)] > 0).mean() > 0.95


def test_duplicates_and_what_is_nearly_so(pictures):
    portraits = {(i.identity, i.view): p for i, p in zip(plan(PARAMS), pictures, strict=True) if i.kind == "portrait"}
    for item, picture in zip(plan(PARAMS), pictures, strict=True):
        if item.kind == "duplicate":
            assert picture.data == portraits[item.identity, item.view].data
        if item.kind == "near_duplicate":
            original = portraits[item.identity, item.view]
            assert picture.data != original.data
            a = cv2.resize(opened(original), (32, 32), interpolation=cv2.INTER_AREA).astype(int)
            b = cv2.resize(opened(picture), (32, 32), interpolation=cv2.INTER_AREA).astype(int)
            assert np.abs(a - b).mean() < 4


def test_rubbish_is_what_it_says(pictures):
    for picture in kinds(pictures, "truncated"):
        with pytest.raises(OSError, match="truncated"):
            Image.open(io.BytesIO(picture.data)).load()
    for picture in kinds(pictures, "wrong_extension"):
        assert picture.data[:3] == b"\xff\xd8\xff"
        assert not picture.name.endswith("jpg")
    for picture in kinds(pictures, "tiny"):
        side = len(opened(picture))
        assert side < 120
        assert picture.truth["mask"].shape == (side, side)
        assert picture.truth["landmarks68_2d"].max() < 2 * side
    for picture in kinds(pictures, "grey"):
        assert np.ptp(opened(picture).astype(int), axis=2).max() < 6
    for picture in kinds(pictures, "no_person"):
        assert picture.truth["identity"] == -1
        assert picture.truth["camera"] is None
    for picture in kinds(pictures, "several"):
        assert picture.truth["mask"] is None

    def sharpness(p):
        return cv2.Laplacian(cv2.cvtColor(opened(p), cv2.COLOR_RGB2GRAY), cv2.CV_64F).var()

    sharp = np.median([sharpness(p) for p in kinds(pictures, "portrait")])
    assert max(sharpness(p) for p in kinds(pictures, "blurred")) < 0.25 * sharp


def test_rotated_pictures_are_upright_once_their_tag_is_honoured(pictures):
    for picture in kinds(pictures, "exif_rotated"):
        mask = picture.truth["mask"] > 200
        upright = opened(picture).astype(float)
        raw = np.asarray(Image.open(io.BytesIO(picture.data)))
        assert Image.open(io.BytesIO(picture.data)).getexif()[0x0112] in (3, 6, 8)
        item = next(i for i, p in enumerate(pictures) if p is picture)
        source = plan(PARAMS)[item]
        studio = Studio(PARAMS)
        _, shot = studio.shot(source.identity, source.view)
        assert np.abs(upright - shot.picture)[mask].mean() < 6
        assert np.abs(raw.astype(float) - shot.picture)[mask].mean() > 12


def test_formats_are_mixed():
    params = PARAMS.model_copy(update={"png_share": 0.5, "webp_share": 0.5})
    seen = {p.data[:4] for p in render_pictures(params, range(4))}
    assert seen <= {b"\x89PNG", b"RIFF"}
    assert len(seen) == 2


def test_people_know_their_codes_and_where_facemesh_would_look(front):
    person = load_person()
    for picture in front:
        truth = picture.truth
        assert truth["identity_code"].shape == (80,)
        rest = person.vertices(
            *(torch.from_numpy(truth[name])[None] for name in ("identity_code", "expression", "shape_code"))
        )
        eyes = person.landmarks68[36:48]
        off = rest[0, eyes].numpy() - truth["landmarks68"][36:48]
        assert np.linalg.norm(off, axis=1).mean() / 2.7 < 0.004  # metres: what 80 components leave out
        assert np.linalg.norm(truth["facemesh"][1] - truth["landmarks68"][30]) < 0.06  # tip of the nose
        uv, _ = project(torch.from_numpy(truth["camera"])[None], torch.from_numpy(truth["facemesh"])[None])
        np.testing.assert_allclose(uv[0].numpy() * 256, truth["facemesh_2d"], atol=1e-2)


def test_visibility_is_what_the_depth_says():
    studio = Studio(PARAMS)
    view = draw_view(PARAMS, studio.model, 0, 0)

    def seen_from(azimuth):
        pose = pose_on_sphere(torch.tensor(np.deg2rad(azimuth)), torch.tensor(0.05))[None].float()
        turned = replace(view, camera=pack_label(pose, intrinsics(1.6))[0].numpy())
        shot = photograph(studio.model, studio.avatar(0), turned)
        return truth_of(studio.model, studio.avatar(0), turned, shot)

    front, left, back = (seen_from(angle) for angle in (0, 75, 180))
    assert front["landmarks68_visible"][17:].mean() > 0.8
    assert front["facemesh_visible"].mean() > 0.7
    assert not back["landmarks68_visible"][27:].any()
    assert not back["facemesh_visible"].any()
    assert left["landmarks68_visible"][42:48].sum() > left["landmarks68_visible"][36:42].sum()


def test_gaze_follows_the_units():
    studio = Studio(PARAMS)
    view, avatar = draw_view(PARAMS, studio.model, 0, 0), studio.avatar(0)

    def look(sideways, upwards):
        units = gaze_units(studio.model.expression_names, sideways, upwards)
        shape, _ = pose_face(studio.model, avatar, replace(view, expression=units))
        return gaze_directions(studio.model, avatar, shape)

    np.testing.assert_allclose(look(0.0, 0.0), [[0, 0, 1]] * 2, atol=1e-4)
    assert (look(0.5, 0.0)[:, 0] > 0.1).all()
    assert (look(-0.5, 0.0)[:, 0] < -0.1).all()
    assert (look(0.0, 0.5)[:, 1] > 0.05).all()


def test_texture_coordinates_of_the_skin_alone():
    params = FRONT.model_copy(update={"uv": True})
    picture = next(render_pictures(params, [0]))
    uv, parsing = picture.truth["uv"], picture.truth["parsing"]
    told = np.isfinite(uv).all(-1)
    assert told[parsing == CLASSES.index("nose")].mean() > 0.95
    assert told[parsing == CLASSES.index("cloth")].mean() < 0.05
    assert not told[parsing == 0].any()
    assert np.nanmin(uv) >= 0
    assert np.nanmax(uv) <= 1
    nose = uv[told & (parsing == CLASSES.index("nose"))]
    assert np.ptp(nose, axis=0).max() < 0.2  # one patch


def test_wide_portraits_show_the_shoulders():
    params = FRONT.model_copy(update={"people": 1, "views": 0, "wide": 3, "wide_extent_min": 2.1, "size": 128})
    items = plan(params)
    assert [item.kind for item in items] == ["portrait_wide"] * 3
    for picture in render_pictures(params, range(3)):
        truth = picture.truth
        assert truth["kind"] == "portrait_wide"
        joints, _ = project(torch.from_numpy(truth["camera"])[None], torch.from_numpy(truth["joints"])[None])
        assert ((joints > 0) & (joints < 1)).all()  # collars and shoulders are in the picture
        face = truth["landmarks68_2d"]
        assert 8 < np.ptp(face[:17, 0]) < 40
        assert face[:, 1].mean() < 64  # the head is in the upper half


def test_there_are_no_holes_from_any_side():
    """Nothing of the background shows through a bald person: what is not covered reaches the border."""
    studio = Studio(PARAMS)
    person = replace(studio.avatar(0).person, style="bald", beard=0.0, glasses="")
    avatar = make_avatar(studio.model, person, 0)
    view = draw_view(PARAMS, studio.model, 0, 0)
    for azimuth in range(-180, 180, 15):
        pose = pose_on_sphere(torch.tensor(np.deg2rad(azimuth)), torch.tensor(0.1))[None].float()
        shot = photograph(studio.model, avatar, replace(view, camera=pack_label(pose, intrinsics(1.9))[0].numpy()))
        count, labels = cv2.connectedComponents((shot.mask < 255).astype(np.uint8), connectivity=8)
        border = np.unique(np.concatenate([labels[0], labels[:, 0], labels[:, -1]]))
        assert set(range(1, count)) <= set(border), azimuth
