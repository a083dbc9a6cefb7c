"""The inversion of a tiny random prior, on faces that are discs."""

from itertools import pairwise

import pytest
import torch

from models.encoders import LatentConfig, UNetConfig
from models.inversion import Frame, InversionConfig, Inverter
from tests.models.test_avatar import generator, label, surface
from tests.models.test_encoders import BODY, SMALL

UNET = UNetConfig(**SMALL)
CONFIG = InversionConfig(latent=LatentConfig(body=BODY, resolution=32), texture=UNET, triplane=UNET)


def inverter(awake=True, **options):
    """With encoders in evaluation mode; ``awake`` ones change something."""
    torch.manual_seed(0)
    fusion = options.pop("fusion", None)
    made = Inverter(generator(), CONFIG.model_copy(update=options).fused(fusion=fusion))
    if awake:
        for module in (made.texture, made.triplane):
            for name, parameter in module.named_parameters():
                if name.startswith(("out.", "scale.", "shift.", "offset.")) or "fusion" in name:
                    torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def unwrap(picture):
    return picture * 0.5, torch.ones_like(picture[:, :1])


def frames(count, n=1, seed=3):
    torch.manual_seed(seed)
    return [
        Frame(torch.rand(n, 3, 32, 32) * 2 - 1, label(n, 0.1 * i), surface(n, radius=0.8 - 0.05 * i), unwrap)
        for i in range(count)
    ]


def tensors(value):
    """All tensors of nested tuples."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for part in value if part is not None and not isinstance(part, int) for t in tensors(part)]


def same(a, b):
    return all(torch.allclose(x, y, atol=1e-5) for x, y in zip(tensors(a), tensors(b), strict=True))


@pytest.mark.parametrize("options", [{}, {"fusion": "gru"}, {"planes": "offsets"}, {"texture_input": "posed"}])
def test_fresh_encoders_leave_the_prior_as_it_is(options):
    made, (first, other) = inverter(awake=False, **options), frames(2)
    state = made.add(made.start(first), other)
    avatar = made.canonical(state)
    assert same(avatar, state.coarse)
    with torch.no_grad():
        ours = made.render(avatar, other.surface, other.label).image
        theirs = made.prior.synthesise(state.coarse.ws, other.label, other.surface, noise="const", jitter=False).image
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("fusion", [None, "gru", "mean", "conv", "attention"])
def test_frames_one_by_one_are_frames_at_once(fusion):
    made, (first, *rest) = inverter(fusion=fusion), frames(5)
    start = made.start(first)
    together, single = made.add(start, *rest), start
    seen = []
    for frame in rest:
        single = made.add(single, frame)
        seen.append(made.canonical(single).textures[0])
    assert same(made.canonical(together), made.canonical(single))
    assert all(not torch.allclose(a, b) for a, b in pairwise(seen)), "each frame changes the avatar"
    assert together.frames == 5


def test_an_average_minds_no_order():
    made, (first, *rest) = inverter(), frames(4)
    start = made.start(first)
    assert same(made.canonical(made.add(start, *rest)), made.canonical(made.add(start, *reversed(rest))))


def test_a_stream_takes_no_more_memory_the_longer_it_is():
    for fusion in (None, "gru", "conv"):
        made, (first, *rest) = inverter(fusion=fusion), frames(9)
        sizes = []
        state = made.start(first)
        for frame in rest:
            state = made.add(state, frame)
            sizes.append(sum(t.numel() for t in tensors(state)))
        assert sizes[2:5] == sizes[5:8]


def test_one_or_two_frames_are_shown_until_there_are_four():
    made, (a, b, c) = inverter(fusion="gru"), frames(3)
    one = made.start(a)
    assert same(made.canonical(one), made.canonical(made.add(one, a, a, a)))
    two = made.add(one, b)
    assert same(made.canonical(two), made.canonical(made.add(two, a, b)))
    three = made.add(two, c)
    once = made.add(made.begin(made.styles(a.image)), a, b, c)
    assert same(made.canonical(three), made.canonical(once)), "what was shown again is not remembered"


def test_a_batch_is_its_frames():
    made, pair = inverter(fusion="gru"), frames(3, n=2)
    whole = made.canonical(made.add(made.start(pair[0]), *pair[1:]))
    alone = [Frame(*(x[1:] if isinstance(x, torch.Tensor) else x for x in f)) for f in pair]
    alone = [f._replace(surface=type(f.surface)(*(x[1:] for x in f.surface))) for f in alone]
    single = made.canonical(made.add(made.start(alone[0]), *alone[1:]))
    assert all(torch.allclose(x[1:], y, atol=1e-4) for x, y in zip(tensors(whole), tensors(single), strict=True))


def test_gradients_reach_the_encoders_and_not_the_prior():
    made, (first, other) = inverter(fusion="gru"), frames(2)
    made.train()
    assert not made.prior.training
    ws = made.styles(first.image)
    coarse = made.render(made.coarse(ws), first.surface, first.label).image
    coarse.square().mean().backward()
    assert made.latent.heads[0].out.weight.grad.any()
    assert [n for n, p in made.latent.named_parameters() if p.grad is None] == []
    avatar = made.canonical(made.add(made.begin(ws.detach()), first, other))
    made.render(avatar, other.surface, other.label).image.square().mean().backward()
    # the smallest transform (2 pixels) is none of the network's; the largest enters at the plane's own side
    reached = {n for m in (made.texture, made.triplane) for n, p in m.named_parameters() if p.grad is not None}
    missed = {n for m in (made.texture, made.triplane) for n, _ in m.named_parameters()} - reached
    assert missed <= {n for n in missed if n.startswith(("scale.2.", "shift.2."))}
    assert all(p.grad is None for p in made.prior.parameters())


@pytest.mark.parametrize("later", ["head", "whole"])
def test_a_mask_hides_later_frames_from_the_plane_encoder(later):
    made, (first, second) = inverter(later_frames=later), frames(2)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :16] = 1

    def changed(frame):
        image = frame.image.clone()
        image[..., 16:] = -image[..., 16:]
        return frame._replace(image=image)

    start = made.begin(made.styles(first.image))
    one, other = (made.add(start, frame._replace(mask=mask)) for frame in (first, changed(first)))
    assert not same(one.triplane, other.triplane), "first frames are seen whole"
    two, another = (made.add(one, frame._replace(mask=mask)) for frame in (second, changed(second)))
    assert same(two.triplane, another.triplane) == (later == "head")
    assert not same(two.texture, another.texture)


def test_later_frames_may_be_compared_with_what_was_rendered():
    made, (first, second) = inverter(later_residual="raw"), frames(2)
    state = made.start(first)
    finished = []
    made.prior.superresolution.register_forward_hook(lambda *_: finished.append(1))
    found = made.add(state, second)
    assert not finished, "no picture was finished"
    residual = made.compare(state.coarse, second, raw=True)[:, 3:]
    raw = made.render(state.coarse, second.surface, second.label).raw
    expected = second.image - torch.nn.functional.interpolate(raw, size=(32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(residual, expected)
    whole = inverter(later_residual="image")
    assert not same(found.texture, whole.add(state, second).texture)
    assert same(state.texture, whole.start(first).texture), "first frames are compared with the finished picture"


def test_the_plane_encoder_sees_the_picture_as_the_front_plane_lies():
    made, (first, _) = inverter(), frames(2)
    image = torch.zeros(1, 3, 32, 32)
    image[:, :, :4] = 1  # the top of the picture is the +y end of the plane: its last rows
    x = made._triplane_input(first, torch.cat([image, image], dim=1))
    assert x[:, :, -4:].eq(1).all()
    assert not x[:, :, :-4].any()


def test_no_avatar_of_no_frame():
    made = inverter()
    with pytest.raises(ValueError, match="at least one frame"):
        made.canonical(made.begin(torch.zeros(1, 8, 8)))
