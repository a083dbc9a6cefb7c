"""The head generators' game: who learns from what, when, and what the discriminator is shown."""

import pytest
import torch
import torch.nn.functional as F
from tiny_heads import CPU, SIDE, build, cameras, moment, real

from models.camera import mirror_label
from models.losses.viewconsistency import view_angles
from models.spherehead import HeadConfig
from ops.runtime.errors import LineamentError
from ops.train.clock import Clock
from ops.train.objectives.heads import HeadsTraining, HeadVariant, plan_of
from ops.train.settings import TrainerParams
from ops.train.update import Updater
from ops.train.window import Window

LINES = ["eg3d", "panohead", "panohead_vico", "single_sphere", "dual_sphere_vico", "spherehead"]  # of the ablation
PAPER = HeadsTraining()


def run(objective, steps=1, start=0, batch=4, phase=None, **params):
    updater = Updater(objective, TrainerParams(device="cpu", batch=batch, **params), CPU, Clock(CPU))
    window = Window()
    for step in range(start, start + steps):
        updater.step(real(batch), moment(step, **(phase or {})), window)
    return updater, window.means()


def state(objective):
    return {f"{k}.{n}": v.clone() for k, m in objective.networks.items() for n, v in m.state_dict().items()}


def reached(loss, networks):
    """Names of the networks of which every weight has a gradient, and of those of which some have."""
    for network in networks.values():
        network.zero_grad(set_to_none=True)
    loss.backward()
    has = {name: [p.grad is not None and bool(p.grad.any()) for p in m.parameters()] for name, m in networks.items()}
    return {name for name, flags in has.items() if all(flags)}, {name for name, flags in has.items() if any(flags)}


# --- variants and phases ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("eg3d", ("eg3d", False, False)),
        ("panohead_vico", ("panohead", True, False)),
        ("single_sphere_novico", ("single_sphere", False, False)),
        ("dual_sphere_vico_parsing", ("dual_sphere", True, True)),
        ("spherehead", ("spherehead", True, True)),
        ("spherehead_novico", ("spherehead", False, True)),
        ("spherehead_noparsing", ("spherehead", True, False)),
    ],
)
def test_a_name_says_representation_consistency_and_parsing(name, expected):
    assert HeadVariant.parse(name) == expected


@pytest.mark.parametrize("name", ["stylenerf", "eg3d_vico_novico", "spherehead_parsing_vico", "eg3d_"])
def test_unknown_variants_are_named(name):
    with pytest.raises(LineamentError, match=f"no head generator '{name}'; choose one of eg3d, panohead"):
        HeadVariant.parse(name)


def test_eg3d_has_no_parsing():
    with pytest.raises(LineamentError, match="no foreground"):
        HeadVariant.parse("eg3d_parsing")


def at(variant, images):
    phase, settings = plan_of(PAPER, HeadVariant.parse(variant)).at(images)
    return phase, {name: settings[name] for name in ("data", "single", "vico")}


@pytest.mark.parametrize(
    ("images", "phase", "data", "single", "vico"),
    [
        (0, "near_front", "front", 0.33, 0),
        (1_999_999, "near_front", "front", 0.33, 0),
        (2_000_000, "all", "all", 0.33, 0),
        (9_999_999, "all", "all", 0.33, 0),
        (10_000_000, "consistent", "all", 0.10, 1),
        (25_000_000, "consistent", "all", 0.10, 1),
    ],
)
def test_phases_change_at_the_papers_numbers_of_images(images, phase, data, single, vico):
    assert at("spherehead", images) == (phase, {"data": data, "single": single, "vico": vico})
    assert at("spherehead_novico", images)[1]["vico"] == 0
    assert at("single_sphere_vico", images) == (phase, {"data": data, "single": 0, "vico": vico})
    later = images >= 10_000_000
    expected = {"data": "all", "single": 0, "vico": float(later)}
    assert at("panohead_vico", images) == ("consistent" if later else "all", expected)


def test_curves_are_those_of_the_papers():
    sphere, eg3d = (plan_of(PAPER, HeadVariant.parse(name)) for name in ("spherehead", "eg3d"))
    values = [sphere.at(n)[1] for n in (0, 1_000_000, 2_000_000)]
    assert [v["blur"] for v in values] == [10, 5, 0]
    assert [v["swap"] for v in values] == [1, 0.7, 0.7]
    assert [v["density_noise"] for v in values] == [1, 0, 0]
    values = [eg3d.at(n)[1] for n in (0, 100_000, 200_000, 1_000_000)]
    assert [v["blur"] for v in values] == [10, 5, 0, 0]
    assert values[-1]["swap"] == 0.5
    assert values[0]["density_noise"] == 0


def test_phases_out_of_order_are_refused():
    with pytest.raises(LineamentError, match="raise vico_after or lower near_front_images"):
        plan_of(HeadsTraining(near_front_images=100, vico_after=100), HeadVariant.parse("spherehead"))


def test_rates_settle_where_asked():
    variant = HeadVariant.parse("spherehead")
    assert "lr" not in plan_of(PAPER, variant).at(10**8)[1]
    plan = plan_of(HeadsTraining(settle=(100, 300)), variant)
    assert [plan.at(images)[1]["lr"] for images in (0, 100, 200, 300, 10**8)] == [1, 1, 0.5, 0, 0]
    with pytest.raises(ValueError, match="not from 3 to 3"):
        HeadsTraining(settle=(3, 3))


def test_spheres_are_drawn_with_the_declared_chances_by_the_steps_seed():
    objective = build()
    drawn = [objective._sphere(moment(step, single=0.33)) for step in range(3000)]
    share = {name: drawn.count(name) / 3000 for name in ("a", "b", "fused")}
    assert share["a"] == pytest.approx(0.33, abs=0.03)
    assert share["b"] == pytest.approx(0.33, abs=0.03)
    assert drawn[:50] == [objective._sphere(moment(step, single=0.33)) for step in range(50)]
    late = [objective._sphere(moment(step, single=0.1)) for step in range(1000)]
    assert late.count("fused") / 1000 == pytest.approx(0.8, abs=0.04)
    assert objective._sphere(moment(3)) == "fused"


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", LINES)
def test_a_few_iterations_move_every_trained_weight(variant):
    objective = build(variant)
    before = state(objective)
    updater, _ = run(objective, 3, phase={"vico": 1.0, "swap": 0.5, "density_noise": 0.5, "blur": 10.0})
    assert updater.trouble() is None
    trained = {f"{k}.{n}" for k, m in objective.networks.items() for n, p in m.named_parameters()}
    still = {name for name, value in state(objective).items() if name in trained and torch.equal(value, before[name])}
    assert still == {n for n in before if "superresolution" in n and n.endswith("noise_strength")}
    assert all(torch.isfinite(value).all() for value in state(objective).values())


@pytest.mark.parametrize("variant", LINES)
def test_each_term_reaches_its_own_networks(variant):
    objective = build(variant, density=0.25)
    g = objective.generator
    parts = {name: m for name, m in g.named_children() if any(True for _ in m.parameters())}
    everywhere = {"backbone", "decoder", "mapping"}
    heads = {"heads"} if objective.variant.spherical else set()
    if g.camera is not None:  # its last layer starts at zero, so nothing would come through to the ones before
        torch.nn.init.normal_(g.camera.layers[-1].weight)
    _, some = reached(objective.fool(real(), moment())[0], parts)
    assert some == set(parts)
    whole, some = reached(objective.smooth_density(real(), moment())[0], parts)
    assert some == everywhere | heads
    assert heads <= whole
    for loss in (objective.judge, objective.penalise):
        _, some = reached(loss(real(), moment())[0], {"generator": g, "discriminator": objective.discriminator})
        assert some == {"discriminator"}


@pytest.mark.parametrize(("sphere", "learns"), [("a", 0), ("b", 1)])
def test_a_sphere_alone_teaches_its_own_head_alone(sphere, learns, monkeypatch):
    objective = build()
    monkeypatch.setattr(objective, "_sphere", lambda moment: sphere)
    objective.generator.zero_grad()
    objective.fool(real(), moment())[0].backward()
    heads = objective.generator.heads
    assert [bool(weight.grad.any()) for weight in heads.second] == [learns == 0, learns == 1]


def test_camera_self_adaptation_moves_the_camera_and_nothing_else():
    objective = build()
    torch.nn.init.normal_(objective.generator.camera.layers[-1].weight)
    label = cameras(4)
    shifted, shift = objective.generator.adapt_camera(torch.randn(4, 6), label)
    moved = (shifted != label).any(dim=0).nonzero().flatten().tolist()
    assert moved == [3, 7, 11]
    torch.testing.assert_close(shifted[:, 3:12:4] - label[:, 3:12:4], shift)
    _, named = objective.fool(real(), moment())
    parts = dict(objective.generator.named_children())
    assert reached(named["offset"], parts)[1] == {"camera"}


def test_the_discriminator_is_told_the_cameras_of_the_labels(monkeypatch):
    objective = build()
    torch.nn.init.normal_(objective.generator.camera.layers[-1].weight)
    told = []
    decide = objective.discriminator.decide
    monkeypatch.setattr(
        objective.discriminator, "decide", lambda seen, label: told.append(label) or decide(seen, label)
    )
    objective.fool(real(), moment())
    objective.judge(real(), moment())
    assert len(told) == 3
    assert all(torch.equal(label, real()["camera"]) for label in told)


@pytest.mark.parametrize(("swap", "expected"), [(0.0, 0), (1.0, 4)])
def test_the_mapping_is_told_another_camera_with_the_declared_chance(swap, expected):
    batch = real()
    _, told = build()._codes(batch, moment(swap=swap))
    swapped = (told != batch["camera"]).any(dim=1)
    assert int(swapped.sum()) == expected
    if expected:
        assert torch.equal(told, batch["camera"].roll(1, 0))


def test_backgrounds_come_from_another_head_with_the_declared_chance(monkeypatch):
    objective = build(background_swap=1.0)
    seen = {}
    monkeypatch.setattr(objective.generator, "forward", lambda z, label, **options: seen.update(z=z, **options))
    objective.render(real(), moment())
    assert torch.equal(seen["background"], seen["z"].roll(1, 0))
    objective = build(background_swap=0.0)
    monkeypatch.setattr(objective.generator, "forward", lambda z, label, **options: seen.update(z=z, **options))
    objective.render(real(), moment())
    assert torch.equal(seen["background"], seen["z"])


def test_the_mean_style_follows_the_generators_update_alone():
    objective = build()
    average = objective.generator.mapping.average.clone()
    objective.judge(real(), moment())
    assert torch.equal(objective.generator.mapping.average, average)
    objective.fool(real(), moment())
    assert not torch.equal(objective.generator.mapping.average, average)


# --- what the discriminator is shown ----------------------------------------------------------------------------------


def test_reused_heads_are_those_the_generator_learnt_from(monkeypatch):
    objective, stacks = build(reuse=True), []
    look = objective.discriminator.look
    monkeypatch.setattr(objective.discriminator, "look", lambda stack: stacks.append(stack) or look(stack))
    for _ in range(2):  # micro-batches
        objective.fool(real(), moment())
    monkeypatch.setattr(objective, "render", None)
    for _ in range(2):
        objective.judge(real(), moment())
    shown, judged = stacks[:2], stacks[2::2]
    assert all(torch.equal(a, b) for a, b in zip(shown, judged))
    assert not any(stack.requires_grad for stack in judged)
    assert not objective._made


@pytest.mark.parametrize(
    ("variant", "channels"), [("eg3d", 6), ("panohead", 7), ("dual_sphere", 7), ("spherehead", 26)]
)
def test_real_and_generated_pictures_are_shown_alike(variant, channels):
    objective = build(variant)
    shown = objective.real(real(), moment())
    made = objective.render(real(), moment())
    assert shown.stack().shape == (4, channels, SIDE, SIDE)
    for name, part in shown._asdict().items():
        other = getattr(made, name)
        assert (part is None) == (other is None)
        assert part is None or part.shape == other.shape
    if shown.parsing is not None:
        torch.testing.assert_close(shown.parsing.sum(1), torch.ones(4, 8, 8))
        one_hot = F.one_hot(real()["parsing"].long(), 19).permute(0, 3, 1, 2).float()
        torch.testing.assert_close(shown.parsing.mean((2, 3)), one_hot.mean((2, 3)), atol=0.05, rtol=0)


def test_the_papers_stack_has_27_channels():
    assert HeadConfig().discriminator().image_channels == 27


def test_blur_fades_from_the_picture_alone():
    objective = build("panohead")
    shown = objective.real(real(), moment())
    stacks = []
    objective.discriminator.look = stacks.append
    for sigma in (0.0, 64.0):  # of 512 pixels: 0 and 2 of 16
        objective.look(shown, cameras(4), moment(blur=sigma))
    sharp, blurred = stacks
    assert torch.equal(sharp, shown.stack())
    assert torch.equal(blurred[:, 3:], sharp[:, 3:])
    assert blurred[:, :3].std() < 0.5 * sharp[:, :3].std()


def test_the_parsing_alone_is_scaled():
    shown = build("spherehead").real(real(), moment())
    stacks = []
    for scale in (1.0, 0.25):
        objective = build("spherehead", parsing_scale=scale)
        objective.discriminator.look = stacks.append
        objective.look(shown, cameras(4), moment(blur=0.0))
    assert torch.equal(stacks[0], shown.stack())
    assert torch.equal(stacks[1][:, :7], stacks[0][:, :7])
    assert torch.equal(stacks[1][:, 7:], 0.25 * stacks[0][:, 7:])


def test_view_consistency_is_equation_2_on_the_features_at_hand():
    objective, batch = build("eg3d_vico"), real()
    plain, _ = objective.judge(batch, moment(vico=0.0))
    loss, named = objective.judge(batch, moment(vico=1.0))
    torch.testing.assert_close(loss, plain + named["vico"])
    heavier, _ = objective.judge(batch, moment(vico=2.5))
    torch.testing.assert_close(heavier, plain + 2.5 * named["vico"])
    # Afresh: all permutations of the cameras; one of them is what was drawn.
    wanted = named["vico"]
    stack = objective.real(batch, moment()).stack()
    found = []
    for order in torch.cartesian_prod(*[torch.arange(4)] * 4):
        if len(order.unique()) == 4:
            wrong = view_angles(batch["camera"], batch["camera"][order]) > 0.3
            losses = F.softplus(objective.discriminator(stack, batch["camera"][order]))
            found.append((losses * wrong).sum() / wrong.sum().clamp_min(1))
    assert (torch.stack(found) - wanted).abs().min() < 1e-6


def test_pairs_of_nearly_equal_views_are_no_mismatch():
    objective, batch = build("eg3d_vico"), real()
    batch["camera"] = cameras(64)[:1].expand(4, -1)
    assert objective.judge(batch, moment(vico=1.0))[1]["vico"] == 0


def test_r1_is_half_gamma_of_the_gradients_of_all_parts():
    objective, batch = build("spherehead", r1=3.0, r1_every=4), real()
    leaves = [x.detach().requires_grad_() for x in objective.real(batch, moment())]
    shown = type(objective.real(batch, moment()))(*leaves)
    gradients = torch.autograd.grad(objective.discriminator(shown, batch["camera"]).sum(), leaves)
    expected = sum(g.square().sum() for g in gradients) / 4
    loss, named = objective.penalise(batch, moment())
    torch.testing.assert_close(named["r1"], expected)
    torch.testing.assert_close(loss, 1.5 * 4 * expected)


def test_lazy_terms_correct_the_rates():
    objective = build("eg3d", r1_every=16, density_every=4)
    groups = {name: o.param_groups[0] for name, o in objective.optimizers.items()}
    assert groups["generator"]["lr"] == pytest.approx(0.0025 * 4 / 5)
    assert groups["discriminator"]["lr"] == pytest.approx(0.002 * 16 / 17)
    assert groups["discriminator"]["betas"] == (0.0, pytest.approx(0.99 ** (16 / 17)))
    assert [term.name for update in build("panohead").updates for term in update.terms] == [
        "generator", "discriminator", "r1",
    ]  # fmt: skip


# --- state, precision, samples ----------------------------------------------------------------------------------------


def test_same_seed_same_bytes():
    phase = {"vico": 1.0, "single": 0.33, "swap": 0.5}
    first, second, other = (build(augment={}) for _ in range(3))
    run(first, 3, phase=phase)
    run(second, 3, phase=phase)
    run(other, 3, start=5, phase=phase)
    assert all(torch.equal(a, b) for a, b in zip(state(first).values(), state(second).values()))
    assert not all(torch.equal(a, b) for a, b in zip(state(first).values(), state(other).values()))


def test_resuming_from_networks_and_optimisers_is_exact():
    phase = {"vico": 1.0, "single": 0.33}
    whole, before, after = (build(augment={"every": 1}) for _ in range(3))
    run(whole, 4, phase=phase)
    run(before, 2, phase=phase)
    for name, network in after.networks.items():
        network.load_state_dict(before.networks[name].state_dict())
    for name, optimizer in after.optimizers.items():
        optimizer.load_state_dict(before.optimizers[name].state_dict())
    run(after, 2, start=2, phase=phase)
    assert all(torch.equal(a, b) for a, b in zip(state(whole).values(), state(after).values()))


@pytest.mark.parametrize("params", [{"amp": "bf16"}, {"channels_last": True}, {"micro_batch": 2}])
def test_mixed_precision_memory_format_and_accumulation_stay_finite(params):
    objective = build(augment={}, density=0.1)
    if params.get("channels_last"):
        for network in objective.networks.values():
            network.to(memory_format=torch.channels_last)
    updater, means = run(objective, 2, phase={"vico": 1.0, "swap": 0.5}, **params)
    assert updater.trouble() is None
    assert {"generator", "offset", "density", "discriminator", "vico", "r1", "real", "fake"} == set(means)


def test_weights_that_are_no_numbers_are_noticed():
    objective = build()
    with torch.no_grad():
        objective.generator.decoder.out.weight[0, 0] = float("nan")
    updater, _ = run(objective)
    assert updater.trouble() == "generator"


def test_augmentation_adapts_to_the_signs_of_the_real_logits():
    objective = build(augment={"every": 2, "images": 80})
    for step, p in enumerate([0.0, 0.1, 0.1, 0.2]):
        objective._signs = [torch.ones(2), torch.ones(2)]  # two micro-batches, all sure
        objective.after(moment(step))
        assert float(objective.augment.p) == pytest.approx(p)
    assert "augment.p" in state(objective)


def test_parsing_channels_change_sides_when_augmentation_mirrors():
    objective = build(augment={"quarter_turns": False, "turn": 0.0, "shift": 0.0, "slide": 0.0, "scale": 0.0,
                               "stretch": 0.0, "brightness": 0.0, "contrast": 0.0, "luma_flip": False, "hue": 0.0,
                               "saturation": 0.0})  # fmt: skip
    objective.augment.p.fill_(1.0)
    stacks = []
    objective.discriminator.look = stacks.append
    shown = objective.real(real(32), moment())
    _, label = objective.look(shown, cameras(32), moment())
    stack, plain, left, right = stacks[0], shown.stack(), 7 + 4, 7 + 5
    flipped = (stack[:, 0] != plain[:, 0]).flatten(1).any(1)
    assert 4 < int(flipped.sum()) < 28
    torch.testing.assert_close(stack[flipped][:, left], plain[flipped][:, right].flip(-1))
    torch.testing.assert_close(stack[~flipped], plain[~flipped])
    assert torch.equal(label, torch.where(flipped[:, None], mirror_label(cameras(32)), cameras(32)))


def test_samples_are_one_head_a_row_seen_from_all_sides():
    objective = build()
    objective.generator.eval()
    with torch.no_grad():
        objective.generator.decoder.out.bias[0] = 5  # untrained heads are thin air
        objective.generator.to_raw.weight.mul_(5)
        grid, again = (objective.sample(objective.networks, 2, 4, torch.Generator().manual_seed(4)) for _ in range(2))
        front = objective.sample(objective.networks, 2, 1, torch.Generator().manual_seed(4))
    assert grid.shape == (8, 3, SIDE, SIDE)
    assert torch.equal(grid, again)
    torch.testing.assert_close(front, grid[::4], atol=1e-5, rtol=1e-5)
    assert (grid[0] - grid[2]).abs().max() > 1e-5
    assert (grid[0] - grid[4]).abs().max() > 1e-5


def test_drawings_are_seen_from_the_datas_cameras():
    objective = build()
    objective.generator.eval()
    with torch.no_grad():
        drawn = list(objective.draw(objective.networks, 20, torch.Generator().manual_seed(4)))
    images, labels = (torch.cat(parts) for parts in zip(*drawn))
    assert images.shape == (20, 3, SIDE, SIDE)
    assert torch.equal(labels.unique(dim=0), cameras().unique(dim=0))
