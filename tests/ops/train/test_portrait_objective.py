"""The portrait game: gradients reach every part, each loss does what it is for, bands change nothing but memory."""

import copy

import pytest
import torch

from models import camera
from models.portrait import PortraitConfig, backward_in_bands
from models.portrait_body import UNITS, face_camera, face_landmarks, portrait_label, posed_body
from models.portrait_discriminators import DiscriminatorConfig
from models.portrait_fields import ExpressionConfig, ManifoldConfig, RadianceConfig
from models.portrait_pose import PoseConfig
from ops.runtime.errors import LineamentError
from ops.train.objective import Moment
from ops.train.objectives import portrait_guides
from ops.train.objectives.portrait import PortraitObjective, shade
from ops.train.objectives.portrait_guides import Steady
from ops.train.objectives.portrait_params import PortraitTraining
from ops.train.priors import Priors
from tests.models.toy_people import toy_people

MODEL = PortraitConfig(
    expression=52,
    noise=8,
    manifolds=ManifoldConfig(width=8, count=4, samples=8),
    radiance=RadianceConfig(width=8, layers=3, mapping_width=8, features=4),
    expression_field=ExpressionConfig(width=8, layers=2, mapping_width=8),
    pose=PoseConfig(kernel=(3, 3, 3)),
)
TRAINING = PortraitTraining(portrait=16, face=16, band=16, deformed_points=64, r1=1.0, clip=10.0)
JUDGE = DiscriminatorConfig(channels=8, budget=128)


def prior(count=40):
    """Normal codes, small turns, cameras about the front."""
    g = torch.Generator().manual_seed(9)
    angle = 0.3 * torch.randn(count, 2, generator=g)
    label = camera.pack_label(camera.pose_on_sphere(angle[:, 0], angle[:, 1]), camera.intrinsics(3.47))
    data = {
        "identity": torch.randn(count, 80, generator=g),
        "expression": torch.rand(count, 52, generator=g) * 0.3,
        "shape": torch.randn(count, 10, generator=g),
        "pose": 0.1 * torch.randn(count, 6, 3, generator=g),
        "camera": label,
        "camera_face": label,
    }
    return Priors(data, dict.fromkeys(("identity", "expression", "shape", "pose"), 0.3), 3.0)


class Regressor(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 132)

    def forward(self, face):
        out = self.linear(face.mean(dim=(2, 3)))
        return out[:, :80], out[:, 80:]


def build(variant="full", training=TRAINING, model=MODEL, **options):
    torch.manual_seed(0)
    return PortraitObjective(model, training, variant, toy_people(), prior(), discriminator=JUDGE, **options)


def batch(n=2, portrait=16, face=16):
    torch.manual_seed(1)
    return {"image": torch.rand(n, 3, portrait, portrait) * 2 - 1, "face": torch.rand(n, 3, face, face) * 2 - 1}


def moment(seed=0):
    return Moment(0, 0, torch.Generator().manual_seed(seed), torch.device("cpu"))


def backward(objective, update):
    for network in objective.networks.values():
        network.zero_grad(set_to_none=True)
    named = {}
    for number, term in enumerate(update.terms):
        loss, found = term.loss(batch(), moment(number))
        loss.backward()
        named |= found
    return named


def silent(network):
    return [n for n, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]


@pytest.mark.parametrize("variant", ["full", "whole_only", "no_torso", "crop", "nearest"])
def test_gradients_reach_every_part_of_every_variant(variant):
    objective = build(variant, regressor=Regressor())
    with torch.no_grad():  # a deformation that is still zero hides the layers before its last
        objective.generator.expression.last.weight.normal_(std=0.01)
    fool, judge = objective.updates
    named = backward(objective, fool)
    assert silent(objective.generator) == []
    assert {"landmarks", "imitation", "expression_smooth", "minimal"} <= set(named)
    assert ("pose_smooth" in named) == (variant != "nearest")
    named = backward(objective, judge)
    used = {"whole_only": {"whole"}, "no_torso": {"whole", "face"}}.get(variant, {"whole", "face", "torso"})
    assert {n.removeprefix("r1_") for n in named if n.startswith("r1_")} == used
    for name, network in objective.judges.items():
        assert (silent(network) == []) if name in used else not any(p.grad is not None for p in network.parameters())


def test_bands_give_the_pictures_and_gradients_of_the_whole():
    objective = build()
    network = objective.generator
    drawn = objective.characters.draw(2, torch.Generator().manual_seed(3))

    def gradients(rows):
        network.zero_grad()
        rays = network.cast(network.pose.lookup(drawn.body), drawn.portrait, MODEL.portrait_view, 16)
        image = shade(network, rays, network.styles(drawn.latents), MODEL.portrait_view.far, rows).image
        image.square().mean().backward()
        return image.detach(), [p.grad.clone() for p in network.parameters() if p.grad is not None]

    whole, banded = gradients(16), gradients(4)
    torch.testing.assert_close(banded[0], whole[0])
    for one, other in zip(banded[1], whole[1]):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    network.zero_grad()
    rays = network.cast(network.pose.lookup(drawn.body), drawn.portrait, MODEL.portrait_view, 16)
    backward_in_bands(
        network, rays, network.styles(drawn.latents), MODEL.portrait_view.far, 2 * whole[0] / whole[0].numel(), 4
    )
    for one, other in zip([p.grad for p in network.parameters() if p.grad is not None], whole[1]):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_imitation_teaches_the_face_to_follow_the_model():
    """A few dozen steps of the expression term alone bring D^e nearer to the parametric face."""
    objective = build(training=TRAINING.model_copy(update={"expression_smooth": 0.0, "deformed_points": 256}))
    optimizer = torch.optim.Adam(objective.generator.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss, named = objective.guide(batch(4), moment(7))
        loss.backward()
        optimizer.step()
        losses.append(named["imitation"].item())
    assert losses[-1] < 0.7 * losses[0]


def test_pose_smoothness_is_zero_at_the_start_and_grows_with_learned_filters():
    objective = build()
    network, drawn = objective.generator, objective.characters.draw(1, torch.Generator().manual_seed(0))
    lookup = network.pose.lookup(drawn.body)
    assert objective.guides.pose(network, drawn, lookup)[1]["pose_smooth"].item() < 1e-6
    with torch.no_grad():
        network.pose.process.fine.change.normal_(std=0.1)
    assert objective.guides.pose(network, drawn, lookup)[1]["pose_smooth"].item() > 1e-5


def test_the_guide_of_the_shape_makes_a_body_of_fog_and_fades(monkeypatch):
    """A few dozen steps make the field dense in a ball and clear about it; past its images the guide weighs nothing."""
    normals = torch.nn.functional.normalize(torch.randn(4, 500, 3, generator=torch.Generator().manual_seed(2)), dim=-1)
    ball = 0.1 * normals + torch.tensor(MODEL.portrait_view.pivot), normals
    monkeypatch.setattr(portrait_guides, "neutral_surface", lambda *_: [part[:2] for part in ball])
    t = TRAINING.model_copy(update={"shape": 1.0, "shape_images": 100, "deformed_points": 256})
    model = MODEL.model_copy(update={"manifolds": MODEL.manifolds.model_copy(update={"thickness": 1.0})})
    objective = build(training=t, model=model)
    optimizer = torch.optim.Adam(objective.generator.parameters(), lr=5e-3)
    latents = objective.characters.draw(2, torch.Generator().manual_seed(0)).latents
    losses = []
    for step in range(60):
        optimizer.zero_grad()
        total, named = objective.guides.shape(objective.generator, latents, 0.5, torch.Generator().manual_seed(step))
        assert total.item() == pytest.approx(0.5 * named["shape"].item())
        total.backward()
        optimizer.step()
        losses.append(named["shape"].item())
    assert losses[-1] < 0.7 * losses[0]
    _, early = objective.guide(batch(), moment())
    assert "shape" in early
    late = Moment(50, 100, torch.Generator().manual_seed(0), torch.device("cpu"))
    without = build(training=t.model_copy(update={"shape": 0.0}), model=model)
    without.generator.load_state_dict(objective.generator.state_dict())
    assert objective.guide(batch(), late)[0].item() == pytest.approx(without.guide(batch(), moment())[0].item())


def test_the_reader_of_codes_never_learns_nor_leaves_evaluation_mode():
    reader = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
    steady = Steady(reader)
    steady.train()
    assert not any(module.training for module in steady.modules())
    assert not any(p.requires_grad for p in steady.parameters())
    assert torch.equal(steady(torch.ones(1, 2)), reader[0](torch.ones(1, 2)))


def test_reused_pictures_are_judged_once():
    objective = build(training=TRAINING.model_copy(update={"reuse": True}))
    rendered = []
    original = objective.render
    objective.render = lambda *a: rendered.append(1) or original(*a)
    objective.fool(batch(), moment())
    objective.judge(batch(), moment())
    assert len(rendered) == 1
    objective.judge(batch(), moment())
    assert len(rendered) == 2


def test_the_face_camera_follows_the_head():
    """Whatever the pose, the head stands in the face camera's picture as in the neutral pose."""
    people = toy_people()
    codes = torch.zeros(1, 80), torch.zeros(1, 10)
    turned = torch.zeros(1, 6, 3)
    turned[0, 1] = torch.tensor([0.1, 0.5, 0.05])
    expression = torch.zeros(1, 52)
    front = portrait_label(
        camera.pack_label(camera.pose_on_sphere(torch.tensor([0.2]), torch.tensor([0.1])), camera.intrinsics(3.47))
    )
    for pose in (torch.zeros(1, 6, 3), turned):
        body = posed_body(people, *codes, pose)
        label = face_camera(front, body.head_transform)
        landmarks = face_landmarks(people, codes[0], expression)
        moved = landmarks @ body.head_transform[:, :3, :3].transpose(1, 2) + body.head_transform[:, None, :3, 3]
        seen, depth = camera.project(label, moved)
        centre, _ = camera.project(label, body.head_transform[:, None, :3, 3])
        torch.testing.assert_close(centre, torch.full_like(centre, 0.5), atol=1e-5, rtol=0)
        assert ((seen > 0.05) & (seen < 0.95)).all()
        assert (depth > MODEL.face_view.near).all()
        camera.check_label(label[0])
        position = label[0, [3, 7, 11]] - body.head_transform[0, :3, 3]
        assert float(position.norm()) == pytest.approx(1.0, abs=1e-5)


def test_the_head_frame_shows_in_the_face_camera_what_ffhqs_square_shows():
    point = torch.tensor([[[0.2, -0.1, 0.0]]])
    world = camera.pack_label(camera.pose_on_sphere(torch.zeros(1), torch.zeros(1)), camera.intrinsics(4.26467 / 1.229))
    seen, _ = camera.project(world, point)
    body = torch.eye(4)[None]
    portrait = portrait_label(world)
    found, _ = camera.project(face_camera(portrait, body), point * UNITS)
    torch.testing.assert_close(found, seen, atol=2e-3, rtol=0)


def test_samples_are_repeatable_and_the_variant_must_exist():
    objective = build()
    networks = copy.deepcopy(dict(objective.networks))
    with torch.no_grad():
        one, two = (objective.sample(networks, 2, 2, torch.Generator().manual_seed(5)) for _ in range(2))
    assert one.shape == (4, 3, 16, 16)
    assert torch.equal(one, two)
    with pytest.raises(LineamentError, match="no variant 'half'"):
        build("half")


def test_what_an_untaught_network_would_give_stands_beside_what_it_gives():
    objective = build(regressor=Regressor())
    random = torch.Generator().manual_seed(3)
    latents = objective.characters.draw(3, random).latents
    _, still = objective.guides.expression(objective.generator, latents, random)
    assert still["imitation"] == still["imitation_untaught"] > 0  # D^e moves nothing yet

    mean = [prior().mean(name).expand(3, -1) for name in ("identity", "expression")]
    _, found = objective.guides.landmarks(lambda _: mean, torch.zeros(3, 3, 16, 16), latents)
    assert found["landmarks"] == pytest.approx(found["landmarks_untaught"].item(), rel=1e-5)
    asked = [latents.identity, latents.expression]
    _, found = objective.guides.landmarks(lambda _: asked, torch.zeros(3, 3, 16, 16), latents)
    assert found["landmarks"] == 0 < found["landmarks_untaught"]


def test_a_curve_of_the_plan_holds_the_landmark_loss_back():
    regressor = Regressor()

    def total(settings):
        objective = build(regressor=regressor)
        now = Moment(0, 0, torch.Generator().manual_seed(0), torch.device("cpu"), settings=settings)
        value, named = objective.fool(batch(), now)
        return value.item(), objective.training.landmarks * named["landmarks"].item()

    (whole, loss), (held, _) = total({}), total({"landmarks": 0.25})
    assert whole - held == pytest.approx(0.75 * loss, rel=1e-4)


def test_deformations_learn_at_their_own_pace():
    objective = build(training=TRAINING.model_copy(update={"deformation_pace": 0.25}))
    groups = objective.optimizers["generator"].param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    generator = objective.generator
    assert set(rates) == {id(p) for p in generator.parameters()}
    for part, share in ((generator.expression, 0.25), (generator.pose, 0.25), (generator.radiance, 1.0)):
        assert {rates[id(p)] for p in part.parameters()} == {share * TRAINING.lr_generator}
