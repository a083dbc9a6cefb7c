"""Eq. 10 against its closed form."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.synthetic import write_labels
from ops.curate.balance import BalanceParams, copies, groups, main
from ops.store import tables

RNG = np.random.default_rng(0)


def closed_form(yaw, target, width, cap):
    """N = 1 if n >= T else ceil(T / n), capped, straight from the paper's words."""
    place = [math.floor(((y + 180) % 360) / width) for y in yaw]
    return [min(cap, 1 if place.count(p) >= target else math.ceil(target / place.count(p))) for p in place]


def times(yaw, params):
    """How often each picture counts, by the stage's own two functions."""
    place = groups(yaw, params.bin_width)
    return copies(np.bincount(place, minlength=math.ceil(360 / params.bin_width)), params)[place]


@pytest.mark.parametrize(("target", "width", "cap"), [(20, 15, 4), (7, 5, 100), (1, 90, 8), (300, 30, 8)])
def test_copies_are_those_of_the_closed_form(target, width, cap):
    yaw = np.concatenate([RNG.normal(0, 30, 300), RNG.uniform(-180, 180, 60)])
    params = BalanceParams(target=target, bin_width=width, cap=cap)
    assert times(yaw, params).tolist() == closed_form(yaw, target, width, cap)


def test_every_group_counts_for_at_least_the_target_and_less_than_twice_it():
    yaw = np.repeat([-100.0, 0.0, 100.0], [3, 500, 41])
    found = times(yaw, BalanceParams(target=100, bin_width=10, cap=1000))
    totals = {y: found[yaw == y].sum() for y in (-100.0, 0.0, 100.0)}
    assert totals == {-100.0: 102, 0.0: 500, 100.0: 123}


def test_a_picture_of_two_sources_counts_for_the_first_and_each_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tables, "WIDE_GROUP", 7)  # so that tables come in many parts
    monkeypatch.setattr(tables, "ROW_GROUP", 7)
    (tmp_path / "params.yaml").write_text(
        "balance: {target: 4, bin_width: 90, cap: 3}\n"
        "sources: {one: {kind: folder, path: a}, two: {kind: folder, path: b}, three: {kind: folder, path: c}}\n"
    )
    wanted, yaw = {}, RNG.uniform(-180, 180, 60).astype(np.float32)
    for source, some in (("one", range(0, 30)), ("two", range(20, 45)), ("three", range(10, 60))):
        keys = [f"{number:016x}" for number in some]
        keys[3:4] = [f"{keys[3]}-h1", f"{keys[3]}-h2"]  # two heads of one picture
        turned = yaw[[int(key[:16], 16) for key in keys]]
        fell = [None if number % 5 else "blurred" for number in range(len(keys))]
        write_labels(tmp_path, source, "heads", keys, fell, yaw=turned)
        keys = [key for key, reason in zip(keys, fell) if reason is None]
        fell = [None if number % 4 else "mask_small" for number in range(len(keys))]
        write_labels(tmp_path, source, "parse", keys, fell)
        for key, reason in zip(keys, fell):
            if reason is None:
                wanted.setdefault(key, source)
    assert main(["data/labels", "data/balance.parquet", "--metrics", "m.json"]) == 0
    table = tables.read(Path("data/balance.parquet"))
    assert dict(zip(table.column("id").to_pylist(), table.column("source").to_pylist())) == wanted
    assert table.column("id").to_pylist() == list(wanted), "in the order of the sources, and of their tables"
    assert any(key.endswith("-h2") for key in wanted)
    turned = np.array(table.column("yaw").to_pylist())
    assert table.column("duplicates").to_pylist() == closed_form(turned, 4, 90, 3)
    assert table.column("bin").to_pylist() == groups(turned, 90).tolist()
    assert json.loads(Path("m.json").read_text())["pictures"] == len(wanted)


def test_a_table_of_other_shards_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("balance: {}\nsources: {one: {kind: folder, path: a}}\n")
    keys = [f"{number:016x}" for number in range(4)]
    write_labels(tmp_path, "one", "heads", keys, yaw=[0.0] * 4)
    for order in ([keys[0], "f" * 16], ["f" * 16, *keys]):
        write_labels(tmp_path, "one", "parse", order)
        assert main(["data/labels", "data/balance.parquet"]) == 1
        assert "run the stages before this one again" in capsys.readouterr().err


def test_the_back_is_one_place():
    assert groups(np.array([180.0, -180.0, 540.0]), 5).tolist() == [0, 0, 0]
    assert groups(np.array([179.99]), 5).tolist() == [71]
    assert groups(np.array([-180.0, 179.99]), 7).max() == 51  # 360 is no multiple of 7: the last group is narrower
