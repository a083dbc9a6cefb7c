"""Eq. 10 against its closed form."""

import math

import numpy as np
import pytest

from ops.curate.balance import BalanceParams, copies, groups

RNG = np.random.default_rng(0)


def closed_form(yaw, target, width, cap):
    """N = 1 if n >= T else ceil(T / n), capped, straight from the paper's words."""
    place = [math.floor(((y + 180) % 360) / width) for y in yaw]
    return [min(cap, 1 if place.count(p) >= target else math.ceil(target / place.count(p))) for p in place]


@pytest.mark.parametrize(("target", "width", "cap"), [(20, 15, 4), (7, 5, 100), (1, 90, 8), (300, 30, 8)])
def test_copies_are_those_of_the_closed_form(target, width, cap):
    yaw = np.concatenate([RNG.normal(0, 30, 300), RNG.uniform(-180, 180, 60)])
    params = BalanceParams(target=target, bin_width=width, cap=cap)
    assert copies(yaw, params).tolist() == closed_form(yaw, target, width, cap)


def test_every_group_counts_for_at_least_the_target_and_less_than_twice_it():
    yaw = np.repeat([-100.0, 0.0, 100.0], [3, 500, 41])
    times = copies(yaw, BalanceParams(target=100, bin_width=10, cap=1000))
    totals = {y: times[yaw == y].sum() for y in (-100.0, 0.0, 100.0)}
    assert totals == {-100.0: 102, 0.0: 500, 100.0: 123}


def test_the_back_is_one_place():
    assert groups(np.array([180.0, -180.0, 540.0]), 5).tolist() == [0, 0, 0]
    assert groups(np.array([179.99]), 5).tolist() == [71]
    assert groups(np.array([-180.0, 179.99]), 7).max() == 51  # 360 is no multiple of 7: the last group is narrower
