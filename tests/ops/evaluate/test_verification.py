"""ROC, area and equal error rate against scikit-learn, brute force, closed forms and simulation."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from ops.evaluate import verification as v
from ops.runtime.errors import LineamentError


def scores(seed: int, genuine: int = 40, impostor: int = 90, ties: bool = False):
    rng = np.random.default_rng(seed)
    g, i = rng.normal(1, 1, genuine), rng.normal(0, 1, impostor)
    return (g.round(), i.round()) if ties else (g, i)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_area_is_sklearns(seed, ties):
    g, i = scores(seed, ties=ties)
    expected = roc_auc_score(np.r_[np.ones(len(g)), np.zeros(len(i))], np.r_[g, i])
    assert v.delong(g, i).value == pytest.approx(expected, abs=1e-12)
    curve = v.roc(g, i)
    assert np.trapezoid(curve.true_accept, curve.false_accept) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_curve_is_sklearns(ties):
    g, i = scores(3, ties=ties)
    x, y, t = roc_curve(np.r_[np.ones(len(g)), np.zeros(len(i))], np.r_[g, i], drop_intermediate=False)
    curve = v.roc(g, i)
    kept = np.isin(t, curve.thresholds)
    np.testing.assert_allclose(x[kept], curve.false_accept)
    np.testing.assert_allclose(y[kept], curve.true_accept)
    # leaving points out did not change the curve at any threshold of the full one
    np.testing.assert_allclose(np.trapezoid(y, x), np.trapezoid(curve.true_accept, curve.false_accept))
    assert curve.false_accept[0] == curve.true_accept[0] == 0
    assert curve.false_accept[-1] == curve.true_accept[-1] == 1


def test_delong_variance_is_the_definition():
    g, i = scores(1, 15, 22, ties=True)
    psi = (g[:, None] > i[None]) + 0.5 * (g[:, None] == i[None])
    variance = psi.mean(1).var(ddof=1) / len(g) + psi.mean(0).var(ddof=1) / len(i)
    assert v.delong(g, i).se == pytest.approx(np.sqrt(variance), rel=1e-12)


def test_delong_interval_covers_the_truth_as_often_as_it_says():
    truth = norm.cdf(1 / np.sqrt(2))  # two unit normals one apart
    areas = [v.delong(*scores(seed, 60, 80)) for seed in range(400)]
    covered = np.mean([a.low <= truth <= a.high for a in areas])
    assert 0.91 < covered < 0.98


def matrix(seed: int, n: int) -> np.ndarray:
    """Similarities of embeddings whose objects differ in how easy they are: the pairs are not independent."""
    rng = np.random.default_rng(seed)
    identity = rng.normal(size=(n, 4))
    a, b = (identity + rng.normal(size=(n, 4)) * 0.8 for _ in range(2))
    return -((a[:, None] - b[None]) ** 2).sum(-1)


def test_object_jackknife_is_the_definition():
    s = matrix(0, 9).round(1)
    left_out = []
    for k in range(9):
        rest = np.delete(np.delete(s, k, 0), k, 1)
        left_out.append(v.delong(*v.pairs(rest)).value)
    left_out = np.array(left_out)
    variance = 8 / 9 * ((left_out - left_out.mean()) ** 2).sum()
    area = v.by_object(s)
    assert area.value == pytest.approx(v.delong(*v.pairs(s)).value, abs=1e-12)
    assert area.se == pytest.approx(np.sqrt(variance), rel=1e-9)


def test_object_interval_covers_where_delongs_is_too_narrow():
    truth = np.mean([v.delong(*v.pairs(matrix(seed, 200))).value for seed in range(1000, 1040)])
    by_object = [v.by_object(matrix(seed, 24)) for seed in range(200)]
    by_pair = [v.delong(*v.pairs(matrix(seed, 24))) for seed in range(200)]
    covers = [np.mean([a.low <= truth <= a.high for a in areas]) for areas in (by_object, by_pair)]
    assert covers[0] > 0.9
    assert covers[0] > covers[1]


def test_equal_error_rate_of_two_normals():
    rng = np.random.default_rng(0)
    curve = v.roc(rng.normal(2, 1, 40_000), rng.normal(0, 1, 40_000))
    assert v.equal_error_rate(curve) == pytest.approx(norm.cdf(-1), abs=0.005)


@pytest.mark.parametrize(("shift", "area", "eer"), [(100.0, 1.0, 0.0), (-100.0, 0.0, 1.0)])
def test_perfect_and_hopeless(shift, area, eer):
    g, i = scores(0)
    assert v.delong(g + shift, i).value == area
    assert v.equal_error_rate(v.roc(g + shift, i)) == eer


def test_all_scores_equal_is_chance():
    curve = v.roc(np.zeros(3), np.zeros(5))
    assert v.delong(np.zeros(3), np.zeros(5)).value == 0.5
    assert v.equal_error_rate(curve) == pytest.approx(0.5)


@pytest.mark.parametrize("transform", [lambda s: 3 * s + 1, np.exp, np.tanh])
def test_only_the_order_counts(transform):
    g, i = scores(2)
    assert v.delong(transform(g), transform(i)).value == v.delong(g, i).value


def test_bad_scores_are_named():
    with pytest.raises(LineamentError, match="0 genuine and 2 impostor"):
        v.roc(np.array([]), np.zeros(2))
    with pytest.raises(LineamentError, match="finite"):
        v.delong(np.array([np.nan]), np.zeros(2))
    with pytest.raises(LineamentError, match="at least 3"):
        v.by_object(np.zeros((2, 2)))
