"""Labels of real pictures: they follow the picture when it is mirrored, turned, shrunk or moved."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from models import camera as geometry
from ops.curate import camera
from ops.curate.align import ffhq_quad
from ops.curate.crop import crop_quad, quad_side, to_crop
from ops.curate.detect import DetectParams, find_faces
from ops.curate.landmarks import find_landmarks
from ops.curate.screen import SCHEMA, mark_duplicates
from ops.perception.selfie import person_mask
from ops.store.pictures import decode

PHOTOS = Path(__file__).parents[4] / "shared/data/hand/landmarks/davisking__dlib/examples/faces"
# FaceMesh's points at some of the 68: eye corners, mouth corners, chin.
OF_68 = {36: 33, 39: 133, 42: 362, 45: 263, 48: 61, 54: 291, 8: 152}


def look(image, weights):
    """The largest face's landmarks, its square and its camera."""
    face = find_faces(image, weights, DetectParams())[0]
    points, _ = find_landmarks(image, face.box, face.points, weights, 1)
    quad = ffhq_quad(points)
    pose, residual = camera.solve_camera(to_crop(points[:, :2], quad))
    return points, quad, pose, residual


def mirror_pairs():
    points = camera.canonical_points()
    return linear_sum_assignment(np.linalg.norm(points[:, None] - points[None] * (-1, 1, 1), axis=-1))[1]


def test_mirrored_landmarks_give_the_mirrored_label():
    pose = geometry.pose_on_sphere(torch.tensor(0.6), torch.tensor(0.2), roll=0.1).double()
    label = geometry.pack_label(pose, geometry.intrinsics(camera.CROP_FOCAL).double())
    uv, _ = geometry.project(label[None], torch.tensor(camera.canonical_points())[None])
    mirrored = uv[0].numpy()[mirror_pairs()] * (-1, 1) + (1, 0)
    found, residual = camera.solve_camera(mirrored)
    # Some points of the canonical head lie on its surface only to within a tenth of a per cent of symmetry.
    np.testing.assert_allclose(camera.label_of(found, "measured"), geometry.mirror_label(label).numpy(), atol=5e-3)
    assert residual < 1


def test_the_mirrored_portrait_has_the_mirrored_camera(astronaut, weights):
    *_, pose, residual = look(astronaut, weights)
    *_, mirrored, _ = look(np.ascontiguousarray(astronaut[:, ::-1]), weights)
    expected = np.array(camera.angles(pose)) * (-1, 1, -1)
    np.testing.assert_allclose(camera.angles(mirrored), expected, atol=3)
    assert residual < 8
    assert np.abs(expected).max() < 12  # she looks into the camera


def test_turning_the_picture_turns_the_square_and_leaves_the_camera(astronaut, weights):
    matrix = cv2.getRotationMatrix2D((227, 120), 20, 1.0)
    turned = cv2.warpAffine(astronaut, matrix, (512, 512))
    _, quad, pose, _ = look(astronaut, weights)
    _, found, turned_pose, _ = look(turned, weights)
    expected = quad @ matrix[:, :2].T + matrix[:, 2]
    assert np.hypot(*(found - expected).T).max() < 0.06 * quad_side(quad)
    np.testing.assert_allclose(camera.angles(turned_pose), camera.angles(pose), atol=4)


def test_the_square_grows_about_its_centre(astronaut, weights):
    points, quad, *_ = look(astronaut, weights)
    small = ffhq_quad(points, 0.8)
    np.testing.assert_allclose(small.mean(0), quad.mean(0))
    assert quad_side(small) == pytest.approx(0.8 * quad_side(quad))


def test_the_mask_of_the_crop_is_the_person(astronaut, weights):
    _, quad, *_ = look(astronaut, weights)
    mask = person_mask(crop_quad(astronaut, quad, 256), weights, 64)
    assert mask[32, 32] > 230  # the nose
    assert mask[4, 60] < 60  # the wall beside the hair
    assert 0.4 < mask.mean() / 255 < 0.85


def test_of_alike_pictures_the_largest_stays_then_the_first():
    def row(key, side, phash, kept=True):
        return {
            "id": key,
            "width": side,
            "height": side,
            "format": "jpg",
            "svd_ratio": 0.4,
            "laplacian": 99.0,
            "phash": phash,
            "duplicate_of": None,
            "kept": kept,
            "reason": None if kept else "blurred",
        }

    rows = [row("small", 300, 0b1), row("large", 900, 0b0), row("same", 900, 0b0), row("blur", 2000, 0b0, False)]
    other = row("other", 100, 2**40 - 1)
    whole = pa.Table.from_pylist([*rows, other], schema=SCHEMA)
    for size in (1, 2, 5):
        parts = [whole.slice(first, size) for first in range(0, 5, size)]
        table = pa.concat_tables(mark_duplicates(parts, bits=2))
        assert table.column("id").to_pylist() == ["small", "large", "same", "blur", "other"]
        assert table.column("duplicate_of").to_pylist() == ["large", None, "large", None, None]
        assert table.column("kept").to_pylist() == [False, True, False, False, True]


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photos in ../shared/data are not here")
def test_every_face_of_group_photos_is_found_and_marked(weights):
    """18 faces of 4 photos, from 15 pixels between the eyes on, against points set by hand."""
    errors = []
    for record in ElementTree.parse(PHOTOS / "training_with_face_landmarks.xml").iter("image"):
        image = decode((PHOTOS / str(record.get("file"))).read_bytes())
        faces = find_faces(image, weights, DetectParams())
        for box in record.iter("box"):
            x, y, width, height = (float(str(box.get(name))) for name in ("left", "top", "width", "height"))
            middle = np.array([x + width / 2, y + height / 2])
            (face,) = [f for f in faces if (f.box[:2] < middle).all() and (middle < f.box[2:]).all()]
            true = {int(str(p.get("name"))): (float(str(p.get("x"))), float(str(p.get("y")))) for p in box.iter("part")}
            points, _ = find_landmarks(image, face.box, face.points, weights, 1)
            eyes = np.hypot(*np.subtract(true[36], true[45]))
            errors.append(np.mean([np.hypot(*(points[m, :2] - true[k])) for k, m in OF_68.items()]) / eyes)
    assert len(errors) == 18
    assert np.median(errors) < 0.06
    assert np.max(errors) < 0.13


def test_a_doubtful_face_stays_only_where_the_landmarks_network_sees_one(astronaut, weights, monkeypatch):
    (true, *_) = find_faces(astronaut, weights, DetectParams())
    aside = np.array([0, astronaut.shape[0] - 160], np.float32)  # of cloth
    false = replace(true, box=true.box - np.tile(true.box[:2] - aside, 2), points=true.points - true.box[:2] + aside)

    def found(score):
        said = [replace(face, score=score) for face in (false, true)]
        monkeypatch.setattr("ops.curate.detect.detect", lambda *_: said)
        return [face.box.tolist() for face in find_faces(astronaut, weights, DetectParams())]

    assert found(0.6) == [true.box.tolist()]
    assert sorted(found(0.8)) == sorted([false.box.tolist(), true.box.tolist()])
