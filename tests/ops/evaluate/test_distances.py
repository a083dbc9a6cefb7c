"""Distances against scipy, scikit-learn, closed forms and their own statistics."""

import itertools
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from ops.evaluate.distances import Moments, frechet, frechet_between, frechet_infinity, kid, mmd
from ops.evaluate.neighbours import manifolds
from ops.runtime.errors import LineamentError


def features(seed, n=300, d=12, shift=0.0, scale=1.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(d, d))
    return rng.normal(size=(n, d)) @ mixing * scale + shift


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_moments_of_any_batches_are_numpys(sizes, seed):
    x = np.random.default_rng(seed).normal(size=(sum(sizes) + 2, 5)) * 3 + 1000
    moments = Moments.of(np.split(x, np.cumsum(sizes)))
    np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(x, rowvar=False), rtol=1e-8, atol=1e-9)
    assert moments.count == len(x)


def test_merged_moments_are_those_of_the_whole(tmp_path):
    x = features(0) + 1e4
    parts = [Moments.of([x[:7]]), Moments.of([x[7:200]]), Moments(12), Moments.of([x[200:]])]
    parts[1].save(tmp_path / "m.npz")
    parts[1] = Moments.load(tmp_path / "m.npz")
    whole = Moments(12)
    for part in parts:
        whole.merge(part)
    np.testing.assert_allclose(whole.covariance, np.cov(x, rowvar=False), rtol=1e-9)
    np.testing.assert_allclose(whole.mean, x.mean(0), rtol=1e-13)


def moments_of_part(part):
    """What one process of several does."""
    return Moments.of(np.array_split(features(3)[part], 3))


def test_processes_that_share_the_work_find_the_same_to_the_last_bit():
    parts = [slice(0, 90), slice(90, 200), slice(200, None)]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        shared = list(pool.map(moments_of_part, parts))
    for part, alone in zip(shared, map(moments_of_part, parts)):
        assert part.count == alone.count
        assert np.array_equal(part.mean, alone.mean)
        assert np.array_equal(part.covariance, alone.covariance)
    whole = Moments(12)
    for part in shared:
        whole.merge(part)
    np.testing.assert_allclose(whole.covariance, np.cov(features(3), rowvar=False), rtol=1e-9)


def test_a_long_stream_takes_the_memory_of_one_batch():
    def stream(batches):
        return (np.ones((100, 40), np.float32) * i for i in range(batches))

    peaks = []
    for count in (5, 500):
        tracemalloc.start()
        Moments.of(stream(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_frechet_is_scipys():
    a, b = features(0), features(1, shift=0.3, scale=1.4)
    root = linalg.sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum()
    expected += np.trace(np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * root.real)
    assert frechet(Moments.of([a]), Moments.of([b])).value == pytest.approx(expected, rel=1e-9)


def gaussian(mean, covariance, count=1000):
    """Moments as given."""
    moments = Moments(len(mean))
    moments.count, moments.mean = count, np.asarray(mean, float)
    moments._scatter = np.asfortranarray(np.triu(covariance) * (count - 1.0))
    return moments


def test_frechet_of_commuting_covariances_has_a_closed_form():
    a, b = gaussian([0, 0, 0], np.diag([1.0, 4.0, 0.0])), gaussian([3, 0, 4], np.diag([9.0, 4.0, 0.0]))
    assert frechet(a, b).value == pytest.approx(25 + (1 - 3) ** 2, abs=1e-10)


def test_frechet_of_singular_covariances():
    """Rank one each: tr sqrt(uu' vv') is |u.v|. scipy's general root breaks down here."""
    u, v = np.array([1.0, 2.0, 0.0]), np.array([0.0, 3.0, 1.0])
    found = frechet(gaussian(np.zeros(3), np.outer(u, u)), gaussian(np.zeros(3), np.outer(v, v))).value
    assert found == pytest.approx(u @ u + v @ v - 2 * abs(u @ v), abs=1e-6)


def test_frechet_is_a_distance():
    sets = [Moments.of([features(i, shift=i * 0.2)]) for i in range(3)]
    for a, b in itertools.combinations(sets, 2):
        assert frechet(a, b).value == pytest.approx(frechet(b, a).value, rel=1e-9)
        assert frechet(a, b).value > 0
        assert frechet(a, a).value == pytest.approx(0, abs=1e-6)


def test_frechet_does_not_care_about_rotation():
    turn = linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
    a, b = features(0), features(1, shift=1)
    plain, turned = (frechet(Moments.of([x]), Moments.of([y])).value for x, y in ((a, b), (a @ turn, b @ turn)))
    assert plain == pytest.approx(turned, rel=1e-8)


def test_few_samples_are_said():
    found = frechet(Moments.of([features(0, n=10)]), Moments.of([features(1)]))
    assert "10 samples cannot fill a covariance of 12 dimensions" in found.note
    assert found.samples == (10, 300)
    assert frechet(Moments.of([features(0)]), Moments.of([features(1)])).note == ""


def test_infinity_takes_the_bias_away():
    """The true distance of shifted standard normals is known. The plain distance is biased, the extrapolated is not."""
    d, shift = 16, 0.5
    reference = gaussian(np.zeros(d), np.eye(d), 10**9)
    plain, limit, covered = [], [], []
    for seed in range(30):
        x = np.random.default_rng(seed).normal(size=(400, d)) + shift
        plain.append(frechet(Moments.of([x]), reference).value)
        estimate = frechet_infinity(x, reference, points=10, smallest=100)
        limit.append(estimate.value)
        covered.append(abs(estimate.value - plain[-1]) < 1)
    truth = d * shift**2
    error = np.std(limit) / np.sqrt(30)
    assert np.mean(plain) - truth > 0.08
    assert abs(np.mean(limit) - truth) < 3 * error + 0.02
    assert all(covered)


def test_kernel_distance_is_sklearns():
    a, b = features(0, n=80), features(1, n=60, shift=0.3)

    def kernel(x, y):
        return polynomial_kernel(x, y, degree=3, gamma=1 / 12, coef0=1)

    within = [kernel(x, x)[~np.eye(len(x), dtype=bool)].mean() for x in (a, b)]
    assert mmd(a, b) == pytest.approx(sum(within) - 2 * kernel(a, b).mean(), rel=1e-9)
    single = mmd(a.astype(np.float32), b.astype(np.float32))
    assert single == pytest.approx(mmd(a, b), rel=1e-4)


def test_kid_is_unbiased():
    """Equal distributions: estimates from independent sets scatter about zero."""
    same = [kid(features(2 * s, n=200), features(2 * s + 1, n=200), subsets=20, size=100).value for s in range(40)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(40)


def test_kid_knows_its_error():
    """The standard error is that of repeating it all with new features, however many subsets are drawn."""
    found = [kid(features(2 * s, n=300), features(2 * s + 1, n=300, shift=1), 50, 60) for s in range(60)]
    scatter = np.std([e.value for e in found])
    assert 0.6 < np.mean([e.se for e in found]) / scatter < 1.7


def test_kid_says_when_subsets_are_small():
    a, b = features(0), features(1)
    assert kid(a, b, subsets=2).note == "subsets of 150, for want of 2000 features"
    assert kid(a, b, 2, 50).note == ""
    assert kid(a, b, 2, seed=3).value == kid(a, b, 2, seed=3).value != kid(a, b, 2, seed=4).value


@pytest.mark.parametrize("block", [16, 1000])
def test_manifolds_are_those_of_sklearns_neighbours(monkeypatch, block):
    monkeypatch.setattr("ops.evaluate.neighbours.BLOCK", block)
    real, fake = features(0, n=70, d=3), features(1, n=50, d=3, shift=1.0)

    def radius(x, k):
        return NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, k]

    distance = np.linalg.norm(fake[:, None] - real[None], axis=-1)
    found = manifolds(real, fake)
    assert found.precision == (distance <= radius(real, 3)).any(1).mean()
    assert found.recall == (distance <= radius(fake, 3)[:, None]).any(0).mean()
    assert found.density == pytest.approx((distance <= radius(real, 5)).sum(1).mean() / 5)
    assert found.coverage == (distance <= radius(real, 5)).any(0).mean()
    assert 0.1 < found.precision < 1
    assert found.samples == (70, 50)


def test_manifolds_of_telling_cases():
    real = features(0, n=200)
    assert manifolds(real, real).precision == manifolds(real, real).recall == manifolds(real, real).coverage == 1
    far = manifolds(real, real + 1000)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)
    one_mode = manifolds(real, real[:1] + np.random.default_rng(0).normal(size=(200, 12)) * 1e-3)
    assert one_mode.precision == 1
    assert one_mode.recall < 0.1
    assert one_mode.coverage < 0.2
    same = manifolds(features(3, n=800), features(4, n=800))
    assert same.density == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("call", [lambda a, b: frechet(Moments.of([a]), Moments.of([b])), kid, manifolds])
def test_bad_features_are_named(call):
    good = features(0)
    bad = good.copy()
    bad[3:5, 2] = np.nan
    with pytest.raises(LineamentError, match="2 of 300 features are not finite"):
        call(good, bad)
    with pytest.raises(LineamentError, match="12"):
        call(good, good[:, :5])
    with pytest.raises(LineamentError, match="at least [24]|6 features a side"):
        call(good, good[:1])
    with pytest.raises(LineamentError, match="no features|features should be|at least [24]"):
        call(good, np.zeros((0,)))


def test_missing_moments_are_named(tmp_path):
    (tmp_path / "m.npz").write_bytes(b"no")
    for name in ("m.npz", "none.npz"):
        with pytest.raises(LineamentError, match=name):
            Moments.load(tmp_path / name)
    with pytest.raises(LineamentError, match="do not mix"):
        Moments(3).merge(Moments(4))
    with pytest.raises(LineamentError, match="at least 8"):
        frechet_infinity(features(0, n=5), Moments(12))


@pytest.mark.parametrize(("n", "m"), [(7, 5), (7, 60), (60, 9), (60, 70)])
def test_the_quick_distance_of_few_samples_is_the_same(n, m):
    rng = np.random.default_rng(n * m)
    a, b = rng.normal(size=(n, 30)), rng.normal(1, 2, size=(m, 30)) @ rng.normal(size=(30, 30))
    quick, plain = frechet_between(a, b), frechet(Moments.of([a]), Moments.of([b]))
    assert quick.value == pytest.approx(plain.value, rel=1e-9)
    assert (quick.samples, quick.note) == (plain.samples, plain.note)
