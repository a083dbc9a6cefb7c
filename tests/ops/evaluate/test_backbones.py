import numpy as np
import pytest

from ops.evaluate.backbones import distance_name, load_backbone
from ops.runtime.errors import LineamentError


def pictures(count):
    return [np.random.default_rng(n).integers(0, 256, (40, 40, 3), dtype=np.uint8) for n in range(count)]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenetv2"])
def test_features_do_not_depend_on_how_pictures_are_batched(name, weights):
    backbone = load_backbone(name, weights)
    backbone.batch = 3
    images = pictures(5)
    together, alone = backbone.embed(images), np.concatenate([backbone.embed([image]) for image in images])
    assert together.shape == (5, 1280)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    assert (together[0] != together[1]).any()


def test_a_number_bears_the_name_of_its_network():
    assert distance_name("fd", "inception_fid") == "fid"
    assert distance_name("kd", "inception_fid") == "kid"
    assert distance_name("fd", "mobilenetv2") == "fd_mobilenetv2"


def test_absent_and_unknown_networks_are_named(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LineamentError, match="pt_inception.*published at"):
        load_backbone("inception_fid", weights)
    with pytest.raises(LineamentError, match="no feature network 'resnet'"):
        load_backbone("resnet", weights)


def test_no_pictures_are_an_error(weights):
    with pytest.raises(LineamentError, match="no pictures"):
        load_backbone("efficientnet_lite0", weights).embed([])


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenetv2"])
@pytest.mark.parametrize("shape", [(48, 48, 3), (40, 48, 3)])
def test_pictures_of_mixed_sizes_are_refused(name, shape, weights):
    images = [*pictures(2), np.zeros(shape, np.uint8)]
    with pytest.raises(LineamentError, match=rf"picture 2 has 48 x {shape[0]} pixels, where squares of 40 are wanted"):
        load_backbone(name, weights).embed(images)
