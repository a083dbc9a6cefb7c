"""Curves and phases: values by images seen, and what a plan refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.runtime.errors import LineamentError
from ops.runtime.params import validate
from ops.train.schedule import Curve, Plan


@pytest.mark.parametrize(
    ("images", "linear", "constant"), [(0, 1.0, 1.0), (50, 1.0, 1.0), (100, 1.0, 1.0), (150, 0.75, 1.0), (300, 0, 0)]
)
def test_curve_values(images, linear, constant):
    knots = ((100, 1.0), (200, 0.5), (300, 0.0))
    assert Curve(knots=knots).at(images) == pytest.approx(linear)
    assert Curve(knots=knots, kind="constant").at(images) == constant


@given(st.integers(0, 10**7), st.lists(st.floats(-5, 5), min_size=1, max_size=6))
def test_a_linear_curve_is_continuous_and_within_its_knots(images, values):
    curve = Curve(knots=tuple((1000 * i, v) for i, v in enumerate(values)))
    assert min(values) <= curve.at(images) <= max(values) or min(values) == pytest.approx(curve.at(images), abs=1e-9)
    assert abs(curve.at(images + 1) - curve.at(images)) <= 10 / 1000 + 1e-9


def plan(**changes):
    phases = [
        {"name": "front", "images": 100, "settings": {"range": "near", "weight": 0.0}},
        {"name": "all", "images": 200, "settings": {"range": "full", "weight": 0.0}},
        {"name": "last", "settings": {"range": "full", "weight": 10.0}},
    ]
    return {"phases": phases, "curves": {"blur": {"knots": [[0, 10.0], [50, 0.0]]}}, **changes}


@pytest.mark.parametrize(
    ("images", "name"), [(0, "front"), (99, "front"), (100, "all"), (299, "all"), (300, "last"), (10**9, "last")]
)
def test_phase_in_force(images, name):
    assert Plan.model_validate(plan()).at(images)[0] == name


def test_settings_join_phases_and_curves():
    assert Plan.model_validate(plan()).at(25) == ("front", {"range": "near", "weight": 0.0, "blur": 5.0})
    assert Plan().at(7) == ("all", {})


def test_settings_keep_their_types():
    settings = Plan.model_validate({"phases": [{"name": "a", "settings": {"on": True, "x": 2.5, "s": "1"}}]}).at(0)[1]
    assert settings == {"on": True, "x": 2.5, "s": "1"}
    assert settings["on"] is True


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"curves": {"blur": {"knots": []}}}, "at least one knot"),
        ({"curves": {"blur": {"knots": [[5, 1], [5, 2]]}}}, "should rise"),
        ({"phases": [{"name": "a"}, {"name": "b"}]}, "never come"),
        ({"phases": [{"name": "a", "images": 3}, {"name": "a"}]}, "same name"),
        ({"phases": [{"name": "a", "images": 0}]}, "more than 0"),
        ({"phases": [{"name": "a", "images": 3, "settings": {"x": 1}}, {"name": "b"}]}, "'x' is not set in all"),
        ({"phases": [{"name": "a", "settings": {"blur": 1}}]}, "both a setting of the phases and a curve"),
        ({"phasen": []}, "the nearest valid key is 'phases'"),
    ],
)
def test_a_wrong_plan_is_refused_in_words(wrong, words):
    with pytest.raises(LineamentError, match=words):
        validate(Plan, plan(**wrong), "params.yaml: train.plan")
