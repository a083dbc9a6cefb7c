"""Latents read off pictures: as varied as random ones, without what the camera says, and telling pictures apart."""

import torch
from tiny_avatar import SIDE, build, moment, real

from ops.train.objectives.glimpse import Glimpse


def pictures(count, told, generator):
    """Smooth pictures of few causes, each as bright as its camera says, too."""
    causes = torch.randn(count, 3 * 4 * 4, generator=generator) * torch.linspace(1, 0.2, 3 * 4 * 4)
    small = 0.2 * causes.view(count, 3, 4, 4) + 0.5 * told[:, :1, None, None]
    return torch.nn.functional.interpolate(small, size=(32, 32), mode="bilinear", align_corners=False)


def test_glimpses_are_like_random_latents_and_say_nothing_of_the_camera():
    g = torch.Generator().manual_seed(0)
    told = torch.randn(200, 5, generator=g)
    images = pictures(200, told, g)
    z = Glimpse(images, told, 12)(images, told)
    assert z.shape == (200, 12)
    torch.testing.assert_close(z.mean(0), torch.zeros(12), atol=1e-2, rtol=0)
    torch.testing.assert_close(z.T @ z / 200, torch.eye(12), atol=0.03, rtol=0)
    related = torch.corrcoef(torch.cat([told[:, :1], z], dim=1).T)[0, 1:]
    assert related.abs().max() < 0.05
    assert torch.corrcoef(torch.stack([told[:, 0], images.mean((1, 2, 3))]))[0, 1] > 0.8


def test_fewer_pictures_than_numbers_leave_the_rest_at_zero():
    g = torch.Generator().manual_seed(1)
    told = torch.zeros(4, 5)
    images = pictures(4, told, g)
    z = Glimpse(images, told, 12)(images, told)
    assert torch.isfinite(z).all()
    assert not z[:, 4:].any()
    apart = torch.cdist(z, z)
    assert apart[~torch.eye(4, dtype=torch.bool)].min() > 0.5


def test_a_share_of_the_heads_is_to_be_the_pictures_and_the_rest_is_free():
    batch = real()
    objective = build(imitate=2.0, imitate_share=0.5)
    objective.glimpse = Glimpse(batch["image"], batch["camera"], 6)
    asked = []
    objective.generator.mapping.register_forward_pre_hook(lambda _, args: asked.append(args[0]))
    loss, named = objective.fool(batch, moment(imitate=2.0))
    torch.testing.assert_close(loss, named["generator"] + 2 * named["imitation"])
    seen = objective.glimpse(batch["image"], batch["camera"])
    torch.testing.assert_close(asked[0][:2], seen[:2], atol=1e-4, rtol=1e-4)
    assert not torch.isclose(asked[0][2:], seen[2:]).all(dim=1).any()
    _, named = objective.fool(batch, moment())
    assert list(named) == ["generator"], "its time is over, or has not been asked for"
    made = objective.render(batch, moment(imitate=2.0), learning=True)
    assert made.image.shape == (4, 3, SIDE, SIDE)
