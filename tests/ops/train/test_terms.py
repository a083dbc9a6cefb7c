"""What is asked of each loss, and whether it did it."""

import numpy as np
import pytest

from ops.train.terms import PORTRAIT, UNTAUGHT, courses

STEPS = np.linspace(0, 1, 20)
RISES_AND_COMES_DOWN = np.sin(3 * STEPS)
PASSES = {
    "landmarks": 2 - STEPS,
    "imitation": 3 - 2 * STEPS,
    "shape": 1 - STEPS,
    "minimal": RISES_AND_COMES_DOWN,
    "expression_smooth": RISES_AND_COMES_DOWN,
    "pose_smooth": RISES_AND_COMES_DOWN,
    "generator_face": 1 + STEPS,
    "discriminator_face": 1 + STEPS,
}


def test_losses_that_do_what_is_asked_pass():
    found = courses(PASSES | {"step": STEPS, "r1_face": STEPS}, PORTRAIT)
    assert {one.name for one in found} == set(PASSES)
    assert all(one.passed for one in found)
    assert {one.name: one.rule for one in found}["generator_face"] == "game"
    first = next(one for one in found if one.name == "shape")
    assert (first.first, first.last) == pytest.approx((1 - STEPS[:4].mean(), 1 - STEPS[-4:].mean()))


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("landmarks", 1 + STEPS, "landmarks did not fall: 1.08 to 1.92"),
        ("shape", 0 * STEPS + 0.5, "shape did not fall: 0.5 to 0.5"),
        ("shape", 2 + np.sin(6 * STEPS - 3), "shape did not fall"),  # lowest amid, and up again
        ("pose_smooth", STEPS, "pose_smooth has not come down: 0 before training"),
    ],
)
def test_losses_that_do_not_fail_in_words(name, values, words):
    (found,) = courses({name: values}, {name: PORTRAIT[name]})
    assert not found.passed
    assert found.words().startswith(words)


def test_chance_in_who_was_drawn_is_taken_out_by_the_reference():
    hard = 1 + np.random.default_rng(0).random(20) + STEPS  # people become harder and harder to get right
    taught = {"landmarks": hard * (1.2 - 0.3 * STEPS), f"landmarks{UNTAUGHT}": hard}
    (alone,) = courses({"landmarks": taught["landmarks"]}, PORTRAIT)
    (beside,) = courses(taught, PORTRAIT)
    assert not alone.passed
    assert beside.passed
    assert beside.relative
    assert "of an untaught network's" in beside.words()


def test_a_term_that_is_not_in_force_all_the_time_or_ever():
    values = np.where(STEPS < 0.5, 1 - STEPS, np.nan)
    (found,) = courses({"shape": values, "consistency": np.full(20, np.nan)}, PORTRAIT)
    assert found.name == "shape"
    assert found.passed
