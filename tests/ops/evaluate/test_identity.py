"""Recognisers: the fixed chip against dlib's own alignment, LightCNN against a plain call, weights that are wrong."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from models.features import LightCNN29
from ops.evaluate.identity import DLIB_CHIP, LIGHTCNN_CHIP, Chip, cosine, load_recogniser, read_tensors
from ops.runtime.errors import LineamentError


def ffhq_crop(image: np.ndarray, points: np.ndarray, side: int = 512) -> np.ndarray:
    """The aligned crop by FFHQ's rule from 68 points, written out independently."""
    eyes = [points[36:42].mean(0), points[42:48].mean(0)]
    across, down = eyes[1] - eyes[0], (points[48] + points[54]) / 2 - (eyes[0] + eyes[1]) / 2
    x = across - np.array([-down[1], down[0]])
    x *= max(2 * np.hypot(*across), 1.8 * np.hypot(*down)) / np.hypot(*x)
    y = np.array([-x[1], x[0]])
    corner = (eyes[0] + eyes[1]) / 2 + 0.1 * down - x - y
    to_image = np.array([[2 * x[0], 2 * y[0], corner[0] * side], [2 * x[1], 2 * y[1], corner[1] * side]]) / side
    picture = Image.fromarray(image)
    return np.asarray(
        picture.transform((side, side), Image.Transform.AFFINE, to_image.ravel(), Image.Resampling.BICUBIC)
    )


@pytest.fixture(scope="module")
def people():
    """Two real photographs: the aligned crop, dlib's chip, and dlib's embedding from its own alignment."""
    import dlib
    import face_recognition_models as weights
    import skimage.data
    from matplotlib import cbook

    detect = dlib.get_frontal_face_detector()
    shape = dlib.shape_predictor(weights.pose_predictor_model_location())
    net = dlib.face_recognition_model_v1(weights.face_recognition_model_location())
    hopper = np.asarray(Image.open(cbook.get_sample_data("grace_hopper.jpg")).convert("RGB"))
    found = []
    for image in (skimage.data.astronaut(), hopper):
        face = shape(image, detect(image, 1)[0])
        points = np.array([(p.x, p.y) for p in face.parts()], float)
        found.append(
            (ffhq_crop(image, points), dlib.get_face_chip(image, face), net.compute_face_descriptor(image, face))
        )
    return found


def test_fixed_chip_gives_the_embedding_of_dlibs_own_alignment(people):
    """0.6 is dlib's bound between the same person and another."""
    found = load_recogniser("dlib_128d").embed([crop for crop, _, _ in people])
    assert found.shape == (2, 128)
    assert found.dtype == np.float32
    for i in range(2):
        own, other = (np.linalg.norm(found[i] - np.asarray(people[j][2])) for j in (i, 1 - i))
        assert own < 0.2
        assert other > 0.6


def test_fixed_chip_looks_like_dlibs(people):
    for crop, chip, _ in people:
        ours, theirs = DLIB_CHIP.cut(crop).astype(float), chip.astype(float)
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.8


def test_chip_takes_the_part_it_says():
    crop = np.zeros((200, 200, 3), np.uint8)
    crop[50:100, 100:150] = 255
    inside = np.s_[1:-1, 1:-1]  # the filter that shrinks reaches over the edge by a pixel
    assert (Chip(0.5, 0.25, 0.25, 25).cut(crop)[inside] == 255).all()
    assert (Chip(0.25, 0.0, 0.25, 25).cut(crop)[inside] == 0).all()
    assert LIGHTCNN_CHIP.cut(crop).shape == (128, 128, 3)


def test_no_picture_drops_out():
    recogniser = load_recogniser("dlib_128d")
    images = [np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)]
    assert recogniser.embed(images).shape == (2, 128)
    assert recogniser.embed([]).shape == (0, 128)


def test_similarities_against_plain_ones():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 128)).astype(np.float32), rng.normal(size=(3, 128)).astype(np.float32)
    distance = np.linalg.norm(a[:, None].astype(float) - b[None], axis=-1)
    np.testing.assert_allclose(load_recogniser("dlib_128d").similarity(a, b), -distance, rtol=1e-9)
    plain = [[float(x @ y) / float(np.linalg.norm(x) * np.linalg.norm(y)) for y in b] for x in a]
    np.testing.assert_allclose(cosine(a, b), plain, rtol=1e-5)
    assert cosine(a, np.zeros((1, 128))).tolist() == [[0.0]] * 4
    np.testing.assert_allclose(np.diag(cosine(a, a * 7)), 1)


@pytest.fixture(scope="module")
def lightcnn():
    """Random weights, with the published checkpoint's names: DataParallel's prefix and the classifier."""
    torch.manual_seed(0)
    state = {f"module.{name}": value for name, value in LightCNN29().state_dict().items()}
    return {**state, "module.fc2.weight": torch.zeros(10, 256), "module.fc2.bias": torch.zeros(10)}


def test_lightcnn_has_the_published_shape(lightcnn):
    """29 layers: 1 + 2 (1 + 2 + 3 + 4) + 4 x 2 convolutions; 12.6 M weights."""
    net = LightCNN29()
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 1 + 2 * 10 + 4 * 2
    assert net.fc.filter.weight.shape == (512, 8192)
    sizes = []
    for pool_input in ("group1", "group2", "group3", "group4"):
        getattr(net, pool_input).register_forward_hook(lambda m, i, o: sizes.append(tuple(o.shape[1:])))
    assert net(torch.zeros(2, 1, 128, 128)).shape == (2, 256)
    assert sizes == [(96, 64, 64), (192, 32, 32), (128, 16, 16), (128, 16, 16)]
    assert sum(p.numel() for p in net.parameters()) == 12_573_280


@pytest.mark.parametrize("kind", ["pth", "nested.pth.tar", "safetensors"])
def test_lightcnn_loads_and_embeds(lightcnn, tmp_path, kind):
    path = tmp_path / f"weights.{kind}"
    if kind == "safetensors":
        save_file(lightcnn, path)
    else:
        torch.save({"state_dict": lightcnn} if kind.startswith("nested") else lightcnn, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    recogniser = load_recogniser("lightcnn29", path, digest)
    recogniser.batch = 2
    assert recogniser.digest == digest
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(LIGHTCNN_CHIP.cut(image)).convert("L"), np.float32) / 255
    net = LightCNN29()
    net.load_state_dict({k.removeprefix("module."): v for k, v in lightcnn.items() if "fc2" not in k})
    expected = net.eval()(torch.from_numpy(grey)[None, None]).detach().numpy()
    np.testing.assert_allclose(recogniser.embed([image] * 3)[[0, 2]], np.repeat(expected, 2, 0), rtol=1e-3, atol=1e-5)


def test_wrong_weights_are_named(lightcnn, tmp_path):
    good = tmp_path / "good.pth"
    torch.save(lightcnn, good)
    with pytest.raises(LineamentError, match="not 00ff as pinned"):
        load_recogniser("lightcnn29", good, "00ff")
    with pytest.raises(LineamentError, match=r"none\.pth: no such file.*dlib_128d"):
        load_recogniser("lightcnn29", tmp_path / "none.pth")
    with pytest.raises(LineamentError, match=r"lightcnn29\.safetensors: the weights of lightcnn29.*are not there"):
        load_recogniser("lightcnn29")

    def broken(change):
        state = dict(lightcnn)
        change(state)
        torch.save(state, tmp_path / "broken.pth")
        return tmp_path / "broken.pth"

    with pytest.raises(LineamentError, match=r"1 tensors missing \['conv1\.filter\.bias'\]"):
        load_recogniser("lightcnn29", broken(lambda s: s.pop("module.conv1.filter.bias")))
    other = broken(lambda s: s.update({"module.conv1.filter.bias": torch.zeros(3)}))
    with pytest.raises(LineamentError, match=r"conv1\.filter\.bias has shape \(3,\), not \(96,\)"):
        load_recogniser("lightcnn29", other)


class Harmful:
    """What a hostile checkpoint would hold."""

    def __reduce__(self):
        return (pytest.fail, ("code ran while loading",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_but_tensors_is_unpickled(tmp_path):
    path = tmp_path / "bad.pth"
    torch.save({"state_dict": Harmful()}, path)
    with pytest.raises(LineamentError, match="cannot be read"):
        read_tensors(path)
    path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(LineamentError, match="cannot be read"):
        read_tensors(path)
    path.write_bytes(b"")
    with pytest.raises(LineamentError, match="cannot be read"):
        read_tensors(path)
    torch.save({"a": 3}, path)
    with pytest.raises(LineamentError, match="other than named tensors"):
        read_tensors(path)
