from functools import partial

import pytest
import torch

from models.avatar import AvatarConfig
from models.encoders import (
    LatentConfig,
    LatentDiscriminator,
    LatentEncoder,
    TextureEncoder,
    TriplaneEncoder,
    UNetConfig,
)
from models.fusion import AttentionFusion, ConvFusion, ConvGRU, MeanFusion
from models.irse import BodyConfig
from tests.models.test_avatar import TINY, count, generator, label

BODY = BodyConfig(widths=(4, 4, 8, 8, 8), units=(1, 1, 2, 2), squeeze=4)
SMALL = {"body": BODY, "decoder": (8, 8, 8, 4)}


def test_the_public_encoders_have_as_many_parameters():
    avatar = AvatarConfig()
    with torch.device("meta"):
        assert count(LatentEncoder(LatentConfig())) == 209_450_688
        for fusion, texture, plane in ((None, 42_359_552, 56_626_208), ("gru", 68_518_304, 82_784_960)):
            config = UNetConfig(fusion=fusion)
            twice = 512 + 384 + 256 + 96  # the public decoder has its last activation twice in a row
            assert count(TextureEncoder(avatar.texture_channels, config)) == texture - twice
            assert count(TriplaneEncoder(avatar.backbone, config)) == plane - twice


def test_styles_are_enabled_one_after_the_other():
    encoder = LatentEncoder(LatentConfig(body=BODY, resolution=32, styles=10, w_size=8)).eval()
    picture = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        full, one, four = encoder(picture), encoder(picture, 1), encoder(picture, 4)
    assert full.shape == (2, 10, 8)
    assert torch.equal(one, full[:, :1].expand(-1, 10, -1))
    assert torch.equal(four[:, :4], full[:, :4])
    assert torch.equal(four[:, 4:], full[:, :1].expand(-1, 6, -1))
    assert (full[:, 1:] != full[:, :1]).any(dim=-1).all()


def test_a_fresh_plane_encoder_leaves_the_prior_as_it_is():
    g = generator().eval()
    ws = g.mapping(torch.randn(1, 8), label())
    encoder = TriplaneEncoder(g.config.backbone, UNetConfig(**SMALL))
    changes, _ = encoder(torch.randn(1, 6, 32, 32))
    assert sorted(changes.transforms) == [2, 4, 8, 16, 32]
    plain = g.static_features(ws, "const").picture
    torch.testing.assert_close(g.static_features(ws, "const", changes.transforms).picture, plain)
    changes.transforms[16][:, 1] += 0.5
    assert not torch.allclose(g.static_features(ws, "const", changes.transforms).picture, plain)


@pytest.mark.parametrize("fusion", ["gru", "mean", "conv", "attention"])
def test_offsets_fit_the_textures_and_gradients_reach_all_of_an_encoder(fusion):
    g = generator()
    textures = g.texture_features(g.mapping(torch.randn(2, 8), label(2)))
    encoder = TextureEncoder(g.config.texture_channels, UNetConfig(**SMALL, fusion=fusion))
    offsets, memory = encoder(torch.randn(2, 3, 7, 32, 32))
    assert [o.shape for o in offsets] == [t.shape for t in textures]
    assert len(memory) == 4
    sum(o.square().mean() for o in offsets).backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_a_clip_needs_a_fusion_and_pictures_the_right_size():
    with pytest.raises(ValueError, match="not a clip"):
        TextureEncoder((8, 16, 16, 16), UNetConfig(**SMALL))(torch.randn(1, 2, 7, 32, 32))
    with pytest.raises(ValueError, match="32 pixels, not 64"):
        TriplaneEncoder(AvatarConfig(**TINY).backbone, UNetConfig(**SMALL))(torch.randn(1, 6, 64, 64))
    with pytest.raises(ValueError, match="multiple of 16"):
        TextureEncoder((8, 16, 16, 16), UNetConfig(**SMALL))(torch.randn(1, 7, 40, 40))


@pytest.mark.parametrize(
    "make", [ConvGRU, *(partial(ConvGRU, update=u) for u in ("paper", "mean")), lambda c: MeanFusion()]
)
def test_frames_together_or_one_after_the_other(make):
    torch.manual_seed(1)
    fusion, x = make(3), torch.randn(2, 5, 3, 4, 4)
    together, _ = fusion(x)
    memory = None
    for frame in x.unbind(1):
        now, memory = fusion(frame.unsqueeze(1), memory)
    torch.testing.assert_close(now, together)


def test_the_paper_and_its_code_swap_what_the_gate_does():
    torch.manual_seed(2)
    code, paper, x = ConvGRU(2, "release"), ConvGRU(2, "paper"), torch.randn(1, 1, 2, 4, 4)
    paper.load_state_dict(code.state_dict())
    gates = code.gates(torch.cat([x[:, 0], torch.zeros(1, 2, 4, 4)], dim=1)).sigmoid()
    candidate = code.candidate(torch.cat([x[:, 0], torch.zeros(1, 2, 4, 4)], dim=1)).tanh()
    torch.testing.assert_close(code(x)[0], gates[:, 2:] * candidate)
    torch.testing.assert_close(paper(x)[0], (1 - gates[:, 2:]) * candidate)


def test_a_gate_that_counts_begins_as_the_mean_of_all_frames_in_any_order():
    torch.manual_seed(2)
    counting, forgetful, x = ConvGRU(2, "mean"), ConvGRU(2), torch.randn(1, 5, 2, 4, 4)
    torch.testing.assert_close(counting(x)[0], x.tanh().mean(1))
    torch.testing.assert_close(counting(x.flip(1))[0], counting(x)[0])
    assert not torch.allclose(forgetful(x.flip(1))[0], forgetful(x)[0])
    out, (_, count) = counting(x)
    out.sum().backward()
    assert count == 5
    assert all(torch.isfinite(p.grad).all() for p in counting.parameters())


def test_windows_begin_as_means_are_averaged_and_attention_minds_no_order():
    torch.manual_seed(3)
    x = torch.randn(1, 6, 4, 2, 2)
    convolution, attention = ConvFusion(4), AttentionFusion(4)
    for fusion in (convolution, attention):
        torch.testing.assert_close(fusion(x)[0], x.mean(1))
        for weight in fusion.parameters():
            torch.nn.init.normal_(weight)
        halves = (fusion(x[:, :3])[0] + fusion(x[:, 3:])[0]) / 2
        torch.testing.assert_close(fusion(x)[0], halves)
        assert not torch.allclose(halves, x.mean(1))
    torch.testing.assert_close(attention(x[:, :3])[0], attention(x[:, [2, 0, 1]])[0])
    assert not torch.allclose(convolution(x[:, :3])[0], convolution(x[:, [2, 0, 1]])[0])


def test_the_latent_discriminator_tells_any_number_of_styles():
    critic = LatentDiscriminator(8)
    assert critic(torch.randn(3, 10, 8)).shape == (3, 10)
    assert len(list(critic.parameters())) == 8
