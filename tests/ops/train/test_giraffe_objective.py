"""GIRAFFE's three variants as the trainer runs them: who learns from what, and what is remembered."""

import pytest
import torch

from models.giraffe import FieldConfig, GiraffeConfig
from ops.runtime.errors import LineamentError
from ops.train.clock import Clock
from ops.train.objective import Moment
from ops.train.objectives.giraffe import GiraffeObjective, GiraffeTraining
from ops.train.settings import TrainerParams
from ops.train.update import Updater
from ops.train.window import Window

CPU = torch.device("cpu")
MODEL = GiraffeConfig(
    resolution=16,
    feature_resolution=4,
    feature_channels=8,
    min_channels=4,
    z_dim=6,
    z_dim_background=4,
    object_field=FieldConfig(hidden=12, blocks=3, skips=()),
    background_field=FieldConfig(hidden=8, blocks=3, skips=(), divisor=12.0),
    samples=16,
    discriminator_channels=16,
    projection=8,
)


def build(variant: str = "aamnce", seed: int = 0, **changes) -> GiraffeObjective:
    torch.manual_seed(seed)
    return GiraffeObjective(MODEL, GiraffeTraining(**{"queue": 10, **changes}), variant)


def vivid(objective: GiraffeObjective) -> GiraffeObjective:
    """Untrained objects are thin air: give them a body, and colours that depend on their codes."""
    field = objective.generator.object_field
    with torch.no_grad():
        field.density.bias.fill_(30)
        field.feature.weight *= 20
        field.appearance_code.weight *= 5
    return objective


def moment(step: int = 0) -> Moment:
    return Moment(step, 4 * step, torch.Generator().manual_seed(100 + step), CPU)


def real(n: int = 4) -> dict[str, torch.Tensor]:
    return {"image": torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1}


def run(objective: GiraffeObjective, steps: int = 1, start: int = 0, **params) -> None:
    settings = TrainerParams(device="cpu", batch=4, **params)
    updater = Updater(objective, settings, CPU, Clock(CPU))
    for step in range(start, start + steps):
        updater.step(real(), moment(step), Window())
    assert updater.trouble() is None


def state(objective: GiraffeObjective) -> dict[str, torch.Tensor]:
    return {f"{k}.{n}": v.clone() for k, m in objective.networks.items() for n, v in m.state_dict().items()}


def test_only_the_contrastive_variants_carry_the_contrast():
    assert set(build("giraffe").networks) == {"generator", "discriminator"}
    assert set(build("infonce").networks) == {"generator", "discriminator", "contrast"}
    assert build("infonce").margin == 0
    assert build("aamnce").margin == 0.5


@pytest.mark.parametrize("variant", ["giraffe", "infonce", "aamnce"])
def test_one_iteration_moves_every_trained_weight(variant):
    objective = build(variant)
    before = state(objective)
    run(objective)
    for name, value in state(objective).items():
        assert torch.isfinite(value).all()
        if name.startswith("contrast.body"):  # one step of EncB is a thousandth of one of EncA
            encoder = before[name] + 0.001 * (
                state(objective)[name.replace("contrast", "discriminator")] - before[name]
            )
            torch.testing.assert_close(value, encoder, atol=1e-9, rtol=1e-6)
        else:
            assert not torch.equal(value, before[name]), name


@pytest.mark.parametrize("variant", ["giraffe", "aamnce"])
def test_same_seed_same_bytes(variant):
    first, second, other = build(variant), build(variant), build(variant)
    run(first, 3)
    torch.manual_seed(77)  # torch's own generator takes no part
    run(second, 3)
    run(other, 3, start=5)
    assert all(torch.equal(a, b) for a, b in zip(state(first).values(), state(second).values()))
    assert not all(torch.equal(a, b) for a, b in zip(state(first).values(), state(other).values()))


def test_resuming_from_saved_networks_and_optimisers_is_exact():
    whole, before, after = build(), build(), build(seed=9)
    run(whole, 4)
    run(before, 2)
    for name, network in after.networks.items():
        network.load_state_dict(before.networks[name].state_dict())
    for name, optimizer in after.optimizers.items():
        optimizer.load_state_dict(before.optimizers[name].state_dict())
    run(after, 2, start=2)
    assert all(torch.equal(a, b) for a, b in zip(state(whole).values(), state(after).values()))


def test_each_term_reaches_its_own_networks():
    """The contrast teaches the generator, EncA and Conv; never the CNN head, never EncB."""
    objective = build()
    networks = {
        "generator": objective.generator,
        "body": objective.discriminator.body,
        "cnn": objective.discriminator.cnn,
        "conv": objective.contrast.conv,
        "momentum": objective.contrast.body,
    }
    reached = {}
    for term in [term for update in objective.updates for term in update.terms]:
        for network in networks.values():
            network.zero_grad(set_to_none=True)
        loss, _ = term.loss(real(), moment())
        loss.backward()
        touched = {k for k, m in networks.items() if any(p.grad is not None and p.grad.any() for p in m.parameters())}
        reached[term.name] = touched
    assert reached == {
        "generator": {"generator", "body", "cnn"},
        "generator contrast": {"generator", "body", "conv"},
        "discriminator": {"body", "cnn"},
        "r1": {"body", "cnn"},
        "discriminator contrast": {"body", "conv"},
    }


def test_r1_is_measured_on_pictures_from_zero_to_one():
    objective = build("giraffe")
    unit = ((real()["image"] + 1) / 2).requires_grad_()
    (gradient,) = torch.autograd.grad(objective.discriminator(2 * unit - 1).sum(), unit)
    loss, named = objective.smooth(real(), moment())
    expected = gradient.square().sum((1, 2, 3)).mean()
    torch.testing.assert_close(named["r1"], expected)
    torch.testing.assert_close(loss, 10 * expected)
    lazy, _ = build("giraffe", r1_every=16).smooth(real(), moment())
    torch.testing.assert_close(lazy, 160 * expected)


def test_the_margin_is_all_that_tells_the_variants_apart():
    losses = {
        v: build(v).keep_identity(real(), moment())[1]["generator_contrast"].item() for v in ("infonce", "aamnce")
    }
    assert losses["aamnce"] > losses["infonce"]
    unmarked = build("aamnce", margin=0.0).keep_identity(real(), moment())[1]["generator_contrast"].item()
    assert unmarked == losses["infonce"]


def test_discriminator_learns_from_the_pictures_the_generator_learnt_from():
    objective = build()
    _, shown = objective.keep_identity(real(), moment())
    _, seen = objective.tell_apart(real(), moment())
    assert seen["contrast"].item() == pytest.approx(shown["generator_contrast"].item(), rel=1e-6)


def test_queue_fills_with_keys_of_distinct_objects():
    objective = build()
    run(objective, 2)
    queue = objective.contrast.queue
    assert (queue.objects >= 0).sum() == 8
    assert len(queue.objects[queue.objects >= 0].unique()) == 8
    run(objective, 1, start=2)
    assert len(queue.objects.unique()) == 10
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(10))
    _, mask = queue.negatives(torch.zeros(4, 8), objective._numbers(4, moment(3)))
    assert mask[:, :10].all()
    assert torch.equal(mask[:, 10:], ~torch.eye(4, dtype=torch.bool))


def test_micro_batches_share_one_queue_update():
    objective = build()
    run(objective, 2, micro_batch=2)
    assert len(objective.contrast.queue.objects.unique()) == 9  # 8 objects and the empty slots
    assert not objective._shown
    assert not objective._keys


def test_contrast_brings_views_of_an_object_together():
    """Trained on the contrast alone, the encoder tells a small set of objects apart better and better."""
    objective = vivid(build("aamnce", alpha=1.0, lr_discriminator=1e-3))
    contrast = next(t for u in objective.updates for t in u.terms if t.name == "discriminator contrast")
    losses = []
    for step in range(25):
        with torch.no_grad():
            objective.keep_identity(real(8), moment(0))
        objective.optimizers["discriminator"].zero_grad()
        loss, _ = contrast.loss(real(8), moment(step))
        loss.backward()
        objective.optimizers["discriminator"].step()
        objective._keys.clear()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_samples_are_one_object_a_row_and_repeatable():
    objective = vivid(build("giraffe"))
    with torch.no_grad():
        grid, again = (objective.sample(objective.networks, 2, 3, torch.Generator().manual_seed(4)) for _ in range(2))
        single = objective.sample(objective.networks, 2, 1, torch.Generator().manual_seed(4))
    assert grid.shape == (6, 3, 16, 16)
    assert torch.equal(grid, again)
    torch.testing.assert_close(single, grid[1::3], atol=2e-6, rtol=0)  # the middle column is the front
    assert (grid[0] - grid[2]).abs().max() > 1e-5  # another angle
    assert (grid[1] - grid[4]).abs().max() > 1e-3  # another object


def test_mixed_precision_stays_finite():
    objective = build()
    run(objective, 2, amp="bf16")
    assert all(torch.isfinite(v).all() for v in state(objective).values())


def test_unknown_variant_is_named():
    with pytest.raises(LineamentError, match=r"'simclr'.*giraffe, infonce, aamnce"):
        build("simclr")
