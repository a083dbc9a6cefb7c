"""InfoNCE, AamNCE, the queue and the moving average: closed forms, gradients, invariants."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from models.losses.contrastive import MomentumQueue, aam_nce, info_nce, momentum_update, with_margin


def batch(n: int = 6, k: int = 10, d: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    q, k_pos, k_neg = (torch.randn(rows, d, generator=g, dtype=torch.float64) for rows in (n, n, k))
    return q, k_pos, k_neg


def at_angle(theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    pair = torch.tensor([[1.0, 0.0], [math.cos(theta), math.sin(theta)]], dtype=torch.float64)
    return pair[:1], pair[1:]


def test_infonce_is_a_cross_entropy_of_cosines():
    q, k_pos, k_neg = batch()
    positive = cosine_similarity(q, k_pos)
    logits = torch.cat([positive[:, None], normalize(q) @ normalize(k_neg).T], dim=1) / 0.07
    expected = cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))
    torch.testing.assert_close(info_nce(q, k_pos, k_neg), expected, rtol=1e-6, atol=0)


def test_aamnce_without_margin_is_infonce():
    torch.testing.assert_close(aam_nce(*batch(), margin=0.0), info_nce(*batch()))


@pytest.mark.parametrize(("theta", "phi", "tau"), [(0.4, 1.3, 0.07), (1.9, 0.2, 0.5), (2.6, 3.0, 1.0)])
def test_aamnce_closed_form(theta, phi, tau):
    q, k_pos = at_angle(theta)
    _, k_neg = at_angle(phi)
    positive, negative = math.exp(math.cos(theta + 0.5) / tau), math.exp(math.cos(phi) / tau)
    expected = -math.log(positive / (positive + negative))
    assert aam_nce(q, k_pos, k_neg, tau).item() == pytest.approx(expected, rel=1e-9)


def test_extension_takes_over_beyond_pi():
    theta = 2.9  # + 0.5 > pi
    value = with_margin(torch.tensor(math.cos(theta), dtype=torch.float64), 0.5).item()
    assert value == pytest.approx(math.cos(theta) - 0.5 * math.sin(0.5))


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5, 1.0, math.pi])
def test_loss_rises_with_the_positive_angle(margin):
    theta = torch.linspace(1e-3, math.pi - 1e-3, 400, dtype=torch.float64)
    assert (with_margin(theta.cos(), margin).diff() < 0).all()
    losses = [aam_nce(*at_angle(t), at_angle(1.0)[1], margin=margin).item() for t in theta[::20].tolist()]
    assert all(a < b for a, b in pairwise(losses))


def test_gradients_match_finite_differences():
    q, k_pos, k_neg = (x.requires_grad_() for x in batch(3, 4, 5))
    assert torch.autograd.gradcheck(lambda *x: aam_nce(*x, tau=0.3), (q, k_pos, k_neg))
    assert torch.autograd.gradcheck(lambda *x: info_nce(*x, tau=0.3), (q, k_pos, k_neg))


def test_gradient_beyond_pi_matches_finite_differences():
    q, k_pos = (x.requires_grad_() for x in at_angle(2.9))
    assert torch.autograd.gradcheck(lambda a, b: aam_nce(a, b, at_angle(0.3)[1], tau=0.3), (q, k_pos))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_where_features_are_parallel(sign, dtype):
    q = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    loss = aam_nce(q, sign * q.detach(), torch.cat([q.detach(), -q.detach()]), tau=0.01)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(q.grad).all()


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-2, 1e3), seed=st.integers(0, 1000))
def test_only_directions_count(scale, seed):
    q, k_pos, k_neg = batch(seed=seed)
    torch.testing.assert_close(aam_nce(scale * q, k_pos / scale, 3 * scale * k_neg), aam_nce(q, k_pos, k_neg))


def test_order_of_negatives_does_not_count():
    q, k_pos, k_neg = batch()
    shuffled = k_neg[torch.randperm(len(k_neg), generator=torch.Generator().manual_seed(3))]
    torch.testing.assert_close(aam_nce(q, k_pos, shuffled), aam_nce(q, k_pos, k_neg))


def test_margin_makes_the_task_harder_and_more_negatives_too():
    q, k_pos, k_neg = batch()
    assert aam_nce(q, k_pos, k_neg) > info_nce(q, k_pos, k_neg) > info_nce(q, k_pos, k_neg[:5])


def test_mask_equals_leaving_keys_out():
    q, k_pos, k_neg = batch()
    mask = torch.arange(10).expand(6, 10) % 3 > 0
    torch.testing.assert_close(aam_nce(q, k_pos, k_neg, mask=mask), aam_nce(q, k_pos, k_neg[mask[0]]))
    per_query = k_neg.expand(6, 10, 16)
    torch.testing.assert_close(aam_nce(q, k_pos, per_query, mask=mask), aam_nce(q, k_pos, k_neg, mask=mask))


def test_without_negatives_there_is_nothing_to_learn():
    q, k_pos, k_neg = batch()
    q.requires_grad_()
    loss = aam_nce(q, k_pos, k_neg, mask=torch.zeros(6, 10, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert q.grad.abs().max() < 1e-12


def test_half_precision_features_are_compared_in_single():
    q, k_pos, k_neg = (x.bfloat16() for x in batch())
    expected = aam_nce(q.double(), k_pos.double(), k_neg.double())
    assert aam_nce(q, k_pos, k_neg).item() == pytest.approx(expected.item(), rel=1e-5)


def test_wrong_arguments_are_named():
    q, k_pos, k_neg = batch()
    with pytest.raises(ValueError, match="temperature"):
        info_nce(q, k_pos, k_neg, tau=0.0)
    with pytest.raises(ValueError, match="fit together"):
        info_nce(q, k_pos[:3], k_neg)
    with pytest.raises(ValueError, match="margin"):
        aam_nce(q, k_pos, k_neg, margin=-0.1)
    with pytest.raises(ValueError, match="none"):
        MomentumQueue(0, 4)


def test_queue_is_first_in_first_out_across_its_end():
    queue = MomentumQueue(5, 2)
    for start in range(0, 8, 2):
        objects = torch.arange(start, start + 2)
        queue.push(torch.stack([objects + 1.0, torch.ones(2)], dim=1), objects)
    assert sorted(queue.objects.tolist()) == [3, 4, 5, 6, 7]
    for key, number in zip(queue.keys, queue.objects.tolist()):
        torch.testing.assert_close(key, normalize(torch.tensor([number + 1.0, 1.0]), dim=0))


def test_queue_keeps_the_last_of_too_many():
    queue = MomentumQueue(3, 2)
    queue.push(torch.ones(1, 2), torch.tensor([9]))
    queue.push(torch.randn(7, 2), torch.arange(7))
    assert sorted(queue.objects.tolist()) == [4, 5, 6]
    queue.push(torch.ones(1, 2), torch.tensor([7]))
    assert sorted(queue.objects.tolist()) == [5, 6, 7]


def test_negatives_are_other_objects_in_filled_slots():
    queue = MomentumQueue(4, 2)
    queue.push(torch.eye(2), torch.tensor([10, 11]))
    keys, mask = queue.negatives(torch.ones(3, 2), torch.tensor([11, 12, 12]))
    assert keys.shape == (7, 2)
    expected = [  # queue: 10, 11, empty, empty; batch: 11, 12, 12
        [True, False, False, False, False, True, True],
        [True, True, False, False, True, False, False],
        [True, True, False, False, True, False, False],
    ]
    assert mask.tolist() == expected


def test_queue_is_restored_with_its_state():
    """A restored queue, pushed the same keys, stays equal: cursor and object numbers are part of the state."""
    first = MomentumQueue(5, 3)
    first.push(torch.randn(4, 3), torch.arange(4))
    second = MomentumQueue(5, 3)
    second.load_state_dict(first.state_dict())
    for queue in (first, second):
        queue.push(torch.eye(3), torch.arange(4, 7))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_moving_average_has_its_closed_form():
    source, target = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    start, goal = target.weight.detach().clone(), source.weight.detach().clone()
    for _ in range(10):
        momentum_update(target, source, 0.9)
    torch.testing.assert_close(target.weight.detach(), goal + 0.9**10 * (start - goal))
    assert target.weight.grad is None
    torch.testing.assert_close(source.weight.detach(), goal)


def test_moving_average_refuses_what_does_not_match():
    with pytest.raises(ValueError, match="decay"):
        momentum_update(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), 1.5)
    with pytest.raises(ValueError, match="bias"):
        momentum_update(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=False), 0.5)
