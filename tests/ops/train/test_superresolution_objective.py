"""The second stage's game: U alone learns, from both cameras, and bands change nothing but memory."""

import copy

import pytest
import torch

from models.portrait import PortraitGenerator
from models.portrait_atlas import AtlasConfig
from ops.runtime.errors import LineamentError
from ops.train.objectives.portrait_params import SuperresolutionTraining
from ops.train.objectives.portrait_superresolution import SuperresolutionObjective
from tests.models.toy_people import toy_people
from tests.ops.train.test_portrait_objective import JUDGE, MODEL, batch, moment, prior, silent

ATLAS = AtlasConfig(resolution=16, channels=8, blocks=1, growth=4, mapping_width=16)
LARGE = MODEL.model_copy(update={"atlas": ATLAS})
TRAINING = SuperresolutionTraining(portrait=32, face=16, clip=10.0)


def first():
    torch.manual_seed(5)
    return PortraitGenerator(MODEL).state_dict()


def build(variant="full", training=TRAINING, model=LARGE, base=None):
    torch.manual_seed(0)
    return SuperresolutionObjective(model, training, variant, toy_people(), prior(), base or first(), JUDGE)


@pytest.mark.parametrize("variant", ["full", "whole_only", "crop"])
def test_the_enlargement_alone_learns_and_all_of_it(variant):
    objective = build(variant)
    for update in objective.updates:
        for number, term in enumerate(update.terms):
            loss, named = term.loss(batch(2, 32, 16), moment(number))
            loss.backward()
            assert all(value.isfinite() for value in named.values())
    trained = {n.split(".")[0] for n, p in objective.generator.named_parameters() if p.grad is not None}
    assert trained == {"upsampler"}
    assert silent(objective.generator.upsampler) == []
    for name, network in objective.judges.items():
        assert (
            (silent(network) == [])
            if name in objective.weights
            else not any(p.requires_grad for p in network.parameters())
        )


def test_the_first_stage_stays_as_it_was_while_u_is_taught():
    base, objective = first(), build()
    before = copy.deepcopy(objective.generator.upsampler.state_dict())
    optimizer, losses = objective.optimizers["generator"], []
    optimizer.param_groups[0]["lr"] = 3e-3
    for _ in range(30):
        optimizer.zero_grad()
        _, named = objective.fool(batch(2, 32, 16), moment())
        loss = named["consistency"] + named["atlas_consistency"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0], "what is enlarged comes to shrink to what it was"
    now = objective.generator.state_dict()
    assert all(torch.equal(now[name], value) for name, value in base.items())
    assert any(not torch.equal(now[f"upsampler.{name}"], value) for name, value in before.items())


def test_bands_give_the_pictures_and_gradients_of_the_whole_in_less_memory():
    def learn(band):
        objective, kept = build(training=TRAINING.model_copy(update={"band": band})), {}
        network = objective.generator
        drawn = objective.characters.draw(2, torch.Generator().manual_seed(3))
        lookup = network.pose.lookup(drawn.body)

        def keep(tensor):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            portrait, face, _ = objective.render(network, drawn, lookup, None)
        (portrait.square().mean() + face.square().mean()).backward()
        gradients = [p.grad for p in network.upsampler.parameters()]
        return portrait.detach(), gradients, sum(storage.nbytes() for storage in kept.values())

    whole, banded = learn(32), learn(4)
    torch.testing.assert_close(banded[0], whole[0])
    for one, other in zip(banded[1], whole[1]):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert banded[2] < whole[2]


def test_a_first_stage_of_another_architecture_is_refused():
    for base in ({**first(), "odd": torch.zeros(1)}, {**first(), "radiance.mapping.last.bias": torch.zeros(3)}):
        with pytest.raises(LineamentError, match="another architecture"):
            build(base=base)
    with pytest.raises(LineamentError, match="no variant 'half'"):
        build("half")
