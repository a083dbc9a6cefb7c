"""Discriminators: R1's double backward, conditioning, what they are shown, and groups of any batch."""

import pytest
import torch

from models.discriminators import Discriminator, DiscriminatorConfig, Shown, minibatch_deviation

SMALL = DiscriminatorConfig(
    resolution=32, image_channels=11, channel_base=256, channel_max=16, mapping_layers=2, precision="float32"
)


def shown(n: int = 4) -> Shown:
    g = torch.Generator().manual_seed(0)
    return Shown(
        torch.rand(n, 3, 32, 32, generator=g) * 2 - 1,
        torch.rand(n, 3, 16, 16, generator=g) * 2 - 1,
        torch.rand(n, 1, 16, 16, generator=g),
        torch.rand(n, 4, 16, 16, generator=g).softmax(1),
    )


def test_gradient_penalty_differentiates_twice_through_every_part_it_is_shown():
    torch.manual_seed(0)
    net = Discriminator(SMALL.model_copy(update={"channel_max": 6})).double()
    parts = Shown(*(p.double().requires_grad_() for p in shown()))
    label = torch.randn(4, 25, dtype=torch.float64)

    def penalty() -> torch.Tensor:
        grads = torch.autograd.grad(net(parts, label).sum(), list(parts), create_graph=True)
        return sum(g.square().sum() for g in grads)

    value = penalty()
    value.backward()
    weight = net.blocks[0].conv0.weight
    exact, step = weight.grad[0, 0, 1, 1].item(), 1e-5
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[0, 0, 1, 1] += sign * step
        ends.append(penalty().item())
        with torch.no_grad():
            weight[0, 0, 1, 1] -= sign * step
    assert exact == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parts)


def test_logits_depend_on_label_and_on_every_part():
    torch.manual_seed(0)
    net = Discriminator(SMALL)
    parts, label = shown(), torch.randn(4, 25)
    logits = net(parts, label)
    assert logits.shape == (4,)
    assert (net(parts, label.roll(1, 0)) - logits).abs().min() > 1e-5
    for name in ("image", "raw", "mask", "parsing"):
        changed = parts._replace(**{name: getattr(parts, name).flip(-1)})
        assert (net(changed, label) - logits).abs().max() > 1e-6
    unconditional = Discriminator(SMALL.model_copy(update={"label_size": 0}))
    assert unconditional(parts).shape == (4,)


def test_stack_resizes_to_the_picture_and_centres_the_mask():
    stack = Shown(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)).stack()
    assert stack.shape == (1, 7, 8, 8)
    torch.testing.assert_close(stack[0, :, 3, 3], torch.tensor([0.0, 0, 0, 1, 1, 1, -1]))


def test_minibatch_deviation_measures_groups_of_the_batch():
    x = torch.zeros(4, 3, 2, 2)
    assert minibatch_deviation(x, 4)[:, 3].max() < 1e-3
    x[0] = 4.0  # of four values 4, 0, 0, 0 the deviation is sqrt(3)
    torch.testing.assert_close(minibatch_deviation(x, 4)[:, 3], torch.full((4, 2, 2), 3**0.5))
    alone = minibatch_deviation(torch.randn(5, 3, 2, 2), 4)  # 5 is prime: groups of one
    assert alone.shape == (5, 4, 2, 2)
    assert alone[:, 3].max() < 1e-3
    # Of four samples in pairs, (0, 2) and (1, 3) belong together: one pair differs, the other does not.
    pairs = minibatch_deviation(torch.cat([x[:1], x[1:]]), 2)[:, 3]
    torch.testing.assert_close(pairs[:, 0, 0], torch.tensor([2.0, 0, 2, 0]), atol=1e-3, rtol=0)


def test_a_wrong_picture_is_refused_with_both_shapes():
    net = Discriminator(SMALL)
    with pytest.raises(ValueError, match=r"\(11, 32, 32\), not \(3, 32, 32\)"):
        net(torch.zeros(2, 3, 32, 32), torch.zeros(2, 25))
    with pytest.raises(ValueError, match="power of two"):
        Discriminator(SMALL.model_copy(update={"resolution": 48}))


def test_mixed_precision_stays_near_full_precision():
    torch.manual_seed(0)
    full = Discriminator(SMALL)
    half = Discriminator(SMALL.model_copy(update={"precision": "bfloat16", "half_blocks": 2}))
    half.load_state_dict(full.state_dict())
    label = torch.randn(4, 25)
    a, b = full(shown(), label), half(shown(), label)
    assert b.dtype == torch.float32
    assert 0 < (a - b).norm() / a.norm() < 0.05


def test_features_seen_once_are_judged_under_any_label():
    network, label = Discriminator(SMALL), torch.randn(4, 25, generator=torch.Generator().manual_seed(2))
    seen = network.look(shown())
    for told in (label, label.flip(0)):
        assert torch.equal(network.decide(seen, told), network(shown(), told))
