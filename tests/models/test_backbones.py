"""Feature networks: sizes as published, values as an independent implementation has them, and photos they recognise."""

from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from models.arcface import ArcFaceIR50
from models.efficientnet import EfficientNetLite0
from models.inception import InceptionFid
from models.lpips import CHANNELS, Lpips
from ops.evaluate.identity import read_tensors
from ops.runtime.weights import require


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_sizes_as_published():
    with torch.device("meta"):
        inception = InceptionFid()
        assert count(inception) - count(inception.fc) == 21_785_568  # Inception-v3 without classifier and auxiliary
        assert count(EfficientNetLite0()) == 4_652_008
        assert count(Lpips("vgg").backbone) == 14_714_688
        assert count(Lpips("alex").backbone) == 2_469_696
        assert count(ArcFaceIR50()) == 43_590_848


@pytest.fixture(scope="module")
def lite():
    return EfficientNetLite0.from_state(read_tensors(require("efficientnet_lite0")))


def photo(name):
    image = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1


def test_lite_agrees_with_an_independent_implementation(lite):
    package = pytest.importorskip("efficientnet_lite_pytorch")
    other = package.EfficientNet.from_name("efficientnet-lite0")
    other.load_state_dict(read_tensors(require("efficientnet_lite0")))
    image = photo("astronaut.png")
    with torch.no_grad():
        torch.testing.assert_close(lite.classify(image), other.eval()((image * 127.5 + 0.5) / 128))


@pytest.mark.parametrize(("name", "classes"), [("chelsea.png", {281, 282, 285}), ("coffee.png", {967, 968})])
def test_lite_recognises_photos(lite, name, classes):
    """ImageNet's cats (281, 282, 285) and espresso or cup (967, 968)."""
    assert int(lite.classify(photo(name)).argmax()) in classes


def test_inception_pools_as_the_fid_does():
    """Means count no padding, and the last pool takes the maximum."""
    torch.manual_seed(0)
    net = InceptionFid().eval()
    seen = []
    net.Mixed_7c.branch_pool.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net.Mixed_5b.branch_pool.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    before = []
    net.Mixed_7c.register_forward_pre_hook(lambda module, inputs: before.append(inputs[0]))
    net.Mixed_5b.register_forward_pre_hook(lambda module, inputs: before.append(inputs[0]))
    with torch.no_grad():
        out = net(torch.randn(1, 3, 107, 107))
    assert out.shape == (1, 2048)
    first, last = seen
    corner = before[0][..., :2, :2].mean(dim=(-1, -2))
    torch.testing.assert_close(first[..., 0, 0], corner)  # four pixels, not nine
    assert (last >= before[1]).all()


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_lpips_is_zero_for_equal_pictures_symmetric_and_loads_published_names(net):
    torch.manual_seed(1)
    source = Lpips(net)
    backbone = {f"features.{k}": v for k, v in source.backbone.state_dict().items()} | {
        "classifier.1.bias": torch.ones(3)
    }
    heads = {f"lin{n}.model.1.weight": torch.rand(1, c, 1, 1) for n, c in enumerate(CHANNELS[net])}
    loaded = Lpips.from_state(net, backbone, heads)
    a, b = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    assert not loaded(a, a).any()
    torch.testing.assert_close(loaded(a, b), loaded(b, a))
    assert (loaded(a, b) > 0).all()
    expected = torch.zeros(2)
    for one, other, head in zip(loaded.features(a), loaded.features(b), heads.values()):
        expected += ((one - other) ** 2 * head).sum(1).mean((1, 2))
    torch.testing.assert_close(loaded(a, b), expected)
    assert [f.shape[1] for f in loaded.features(a)] == list(CHANNELS[net])
    with pytest.raises(ValueError, match="heads of LPIPS"):
        Lpips.from_state(net, backbone, {})
    with pytest.raises(ValueError, match="ImageNet weights"):
        Lpips.from_state(net, {}, heads)
    with pytest.raises(ValueError, match="one size"):
        loaded(a, b[..., :32])


@pytest.mark.parametrize("network", [ArcFaceIR50, InceptionFid, EfficientNetLite0])
def test_weights_of_another_network_are_refused(network):
    with pytest.raises(ValueError, match="weights"):
        network.from_state({"something": torch.zeros(1)})


def test_arcface_gives_unit_vectors_and_loads_its_own_names():
    torch.manual_seed(2)
    net = ArcFaceIR50()
    state = net.state_dict()
    assert {"layer1.0.downsample.0.weight", "layer4.2.prelu.weight", "fc.weight", "features.running_mean"} <= set(state)
    out = ArcFaceIR50.from_state(state)(torch.rand(2, 3, 112, 112) * 2 - 1)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(2))
