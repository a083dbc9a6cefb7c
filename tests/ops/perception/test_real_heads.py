"""The networks that the pipeline taught itself, on real photos: only where the demo ran and the photos are at hand."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ops.curate.align import ffhq_quad
from ops.curate.camera import angles, solve_camera
from ops.curate.crop import crop_quad, square_quad, to_crop
from ops.curate.detect import DetectParams, find_faces
from ops.curate.landmarks import find_landmarks
from ops.curate.seeing import FACE_TO_WINDOW
from ops.perception.headpose import look
from ops.perception.parser import parse
from ops.perception.trained import headpose, parser
from ops.store.parsing import CLASSES
from ops.store.pictures import decode

ROOT = Path(__file__).parents[3]
PHOTOS = ROOT / "../shared/data/hand"
NETWORKS = ROOT / "data/checkpoints"

pytestmark = [
    pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photos in ../shared/data are not here"),
    pytest.mark.skipif(not (NETWORKS / "headpose").is_dir(), reason="the demo has not taught the networks yet"),
]


@pytest.fixture(scope="module")
def faces(weights):
    """(photo, window of the first look, FaceMesh's yaw) of every front face whose landmarks are sure."""
    found = []
    for folder in ("landmarks", "identity/davisking__dlib"):
        for path in sorted((PHOTOS / folder).rglob("*.jpg")):
            image = decode(path.read_bytes())
            if min(image.shape[:2]) < 200:
                image = cv2.resize(image, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
            for face in find_faces(image, weights, DetectParams())[:6]:
                points, score = find_landmarks(image, face.box, face.points, weights, 1)
                quad = ffhq_quad(points)
                pose, residual = solve_camera(to_crop(points[:, :2], quad))
                yaw = angles(pose)[0]
                if score > 0.95 and residual < 15 and abs(yaw) < 45:
                    middle = (face.box[:2] + face.box[2:]) / 2
                    start = square_quad(middle, float((face.box[2:] - face.box[:2]).max()) * FACE_TO_WINDOW)
                    found.append((image, start, yaw))
    return found


def test_heads_of_photos_are_seen_and_turned_about_as_their_landmarks_say(faces):
    network = headpose(NETWORKS / "headpose")
    heads = [look(image, network, start) for image, start, _ in faces]
    apart = [abs(head.azimuth - yaw) for head, (_, _, yaw) in zip(heads, faces)]
    assert len(faces) >= 20
    assert np.mean([head.presence > 0.5 for head in heads]) > 0.95
    assert np.median(apart) < 15
    grass = decode(next(PHOTOS.rglob("grass.jpg")).read_bytes())
    assert look(grass, network).presence < 0.5


def test_the_middle_of_a_photographed_face_is_parsed_as_face(faces):
    network = parser(NETWORKS / "parser")
    side = network.config.side
    face = [CLASSES.index(name) for name in ("skin", "nose", "upper_lip", "lower_lip", "mouth")]
    right = []
    for image, start, _ in faces:
        head = look(image, headpose(NETWORKS / "headpose"), start)
        classes = parse(crop_quad(image, head.quad, side), network)
        middle = classes[side * 9 // 20 : side * 13 // 20, side * 2 // 5 : side * 3 // 5]
        right.append(np.isin(middle, face).mean())
    assert np.mean(right) > 0.7
