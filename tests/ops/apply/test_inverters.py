"""Encoders and the prior they belong to, as published."""

import pytest
import torch

from models.next3d import Next3DConfig, Next3DGenerator
from ops.apply.avatars import load_prior
from ops.apply.inverters import encoder_digest, load_inverter, make_inverter
from ops.runtime.errors import LineamentError
from tests.ops.apply.tinyavatars import CONFIG, INVERSION, write_encoders, write_generator, write_priors


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("avatars")
    write_priors(root / "priors")
    write_generator(root / "one")
    write_generator(root / "other", seed=1)
    write_encoders(root / "encoders", root / "one", root / "priors")
    return root


def test_encoders_come_back_as_they_were(root):
    prior = load_prior(root / "one", root / "priors")
    inverter, again = (load_inverter(prior, root / "encoders") for _ in range(2))
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(inverter.styles(image), again.styles(image))
    assert not any(p.requires_grad for p in inverter.parameters())
    assert inverter.config == INVERSION.fused(fusion="gru")
    assert len(encoder_digest(root / "encoders")) > 20


def test_encoders_of_another_prior_are_refused_by_name(root):
    with pytest.raises(LineamentError, match=r"encoders: these encoders were trained on another prior .* than .*other"):
        load_inverter(load_prior(root / "other", root / "priors"), root / "encoders")


def test_what_are_no_encoders_is_said(root, tmp_path):
    prior = load_prior(root / "one", root / "priors")
    with pytest.raises(LineamentError, match="system 'avatar', where encoders are wanted"):
        load_inverter(prior, root / "one")
    options = {**CONFIG.model_dump(exclude={"plane_axes"}), "mouth_side": 16, "mouth_lowest": 4, "blend_lowest": 8}
    write_generator(tmp_path / "next3d", variant="next3d", net=Next3DGenerator(Next3DConfig.model_validate(options)))
    with pytest.raises(LineamentError, match="is Next3D"):
        make_inverter(load_prior(tmp_path / "next3d", root / "priors"), INVERSION)
    (root / "encoders" / "texture.safetensors").rename(root / "encoders" / "gone")
    with pytest.raises(LineamentError, match="texture.safetensors: is missing"):
        load_inverter(prior, root / "encoders")
