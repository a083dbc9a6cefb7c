"""Differences that are there are found, noise is not; both sides of each kind; bad input."""

import json

import numpy as np

from ops.cli import main
from ops.compare.noise import Difference, from_curves, from_intervals, from_samples, significant
from ops.compare.sides import flatten, read_side
from ops.store.pictures import encode_jpeg, encode_png
from ops.store.tar import ShardWriter
from ops.train import checkpoint
from ops.train.checkpoint import Checkpoint


def rng(seed):
    return np.random.default_rng(seed)


def test_noise_is_called_noise_about_as_often_as_the_level_says():
    """200 pairs of equal distributions: at 5 % for a family of five, about one family in twenty errs."""
    wrong = 0
    for seed in range(200):
        found = [
            from_curves(str(n), rng([seed, n]).normal(size=90), rng([seed, n, 1]).normal(size=90)) for n in range(5)
        ]
        wrong += bool(significant(found))
    assert 1 <= wrong <= 20


def test_a_shift_is_found_by_each_of_the_three_judges():
    a, b = rng(1).normal(size=300), rng(2).normal(size=300) + 0.8
    assert from_curves("x", a, b).p < 1e-3
    assert from_samples("x", a, b).p < 1e-6
    assert from_intervals("x", (0.5, 0.4, 0.6), (0.9, 0.8, 1.0)).p < 1e-6
    assert from_intervals("x", (0.5, 0.4, 0.6), (0.6, 0.5, 0.7)).p > 0.1


def test_few_points_are_not_judged_and_constants_are():
    assert from_curves("x", np.arange(5.0), np.arange(5.0)).p is None
    assert from_samples("x", np.array([np.nan]), np.arange(3.0)).p is None
    assert from_curves("x", np.ones(60), np.ones(60)).p == 1
    assert from_curves("x", np.ones(60), np.full(60, 2.0)).p == 0
    assert from_intervals("x", (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)).p == 1


def test_holm_judges_the_family():
    found = [Difference(n, 0, 1, p, "") for n, p in (("a", 0.001), ("b", 0.02), ("c", 0.04), ("d", None))]
    assert significant(found) == {"a", "b", "c"}
    assert significant([*found, Difference("e", 0, 1, 0.9, "")]) == {"a"}


def test_settings_are_compared_by_dotted_name():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == {"a.b": 1, "a.c.d": 2, "e": [3]}


def write_run(folder, level, images=640):
    folder.mkdir(parents=True)
    record = {"system": "toy", "variant": folder.name, "images": images, "data": "x", "params": {"lr": level}}
    checkpoint.write_into(folder, "config.json", Checkpoint({}, record))
    values = rng(int(level * 10)).normal(level, 0.01, size=64)
    rows = "".join(f"{n},{n * 10},{v:.5f}\n" for n, v in enumerate(values))
    (folder / "curves.csv").write_text("step,images,loss\n" + rows)
    (folder / "grid.png").write_bytes(encode_png(np.full((8, 8, 3), int(level * 20), np.uint8)))
    return folder


def write_data(folder, yaw, seed, first=0):
    with ShardWriter(folder, per_shard=64) as writer:
        for number in range(first, first + 60):
            record = {"source": "s", "yaw": float(rng([seed, number]).normal(yaw, 10))}
            picture = encode_jpeg(np.zeros((8, 8, 3), np.uint8))
            writer.add(f"{number:016x}", {"jpg": picture, "json": json.dumps(record).encode()})
    (folder / "dataset.json").write_text("{}")
    return folder


def test_two_checkpoints_on_a_page(tmp_path, capsys):
    a, b = write_run(tmp_path / "a", 1.0), write_run(tmp_path / "b", 2.0, images=1280)
    assert main(["compare", str(a), str(b), "--out", str(tmp_path / "page.html")]) == 0
    assert "* loss" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    for words in ("loss *", "lr", "different numbers of pictures", "<b>yes</b>", "A: grid", "B: grid"):
        assert words in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_run_beside_itself_differs_in_nothing(tmp_path, capsys):
    a = write_run(tmp_path / "a", 1.0)
    assert main(["compare", str(a), str(a), "--out", str(tmp_path / "page.html")]) == 0
    assert "(0 of 1;" in capsys.readouterr().out


def test_two_data_versions(tmp_path, capsys):
    a, b = write_data(tmp_path / "a", 0.0, 1), write_data(tmp_path / "b", 20.0, 2, first=20)
    assert main(["compare", str(a), str(b), "--out", str(tmp_path / "page.html")]) == 0
    text = capsys.readouterr().out
    assert "40 in both, 20 only in A, 20 only in B" in text
    assert "* yaw" in text


def result(path, value, rules="r"):
    number = {"value": value, "low": value - 0.01, "high": value + 0.01}
    protocol = {"name": "p", "hash": rules}
    rows = {"ours": {"fid": number, "odd": {"value": None, "low": None, "high": None}}}
    path.write_text(json.dumps({"protocol": protocol, "backbone": "b", "samples": 5, "rows": rows}))
    return path


def test_two_results_of_one_protocol_and_of_two(tmp_path, capsys):
    a, b = result(tmp_path / "a.json", 0.5), result(tmp_path / "b.json", 0.6)
    assert main(["compare", str(a), str(b), "--out", str(tmp_path / "page.html")]) == 0
    assert "* ours: fid" in capsys.readouterr().out
    other = result(tmp_path / "c.json", 0.6, rules="others")
    assert main(["compare", str(a), str(other), "--out", str(tmp_path / "page.html")]) == 1
    assert "different rules" in capsys.readouterr().err


def test_what_cannot_be_compared_is_refused(tmp_path, capsys):
    run, data = write_run(tmp_path / "run", 1.0), write_data(tmp_path / "data", 0, 1)
    (tmp_path / "odd.json").write_text('{"protocol": 3}')
    for pair, message in (
        ((run, data), "compare two of one kind"),
        ((run, tmp_path / "nowhere"), "nothing to compare"),
        ((tmp_path / "odd.json", run), "no result of"),
    ):
        assert main(["compare", *map(str, pair), "--out", str(tmp_path / "page.html")]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
    assert read_side(run).kind == "checkpoint"
