"""The loop: exact resume after any kill, roll-back, precision, accumulation, schedules, and errors in words."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import SIDE, Quiet, Regress, TinyGAN, settings, trainer, write_shards

from ops.runtime.errors import LineamentError
from ops.store.pictures import decode
from ops.train import checkpoint
from ops.train.loop import step_seed, tile
from ops.train.objective import Term, Update

ROOT = Path(__file__).parents[3]


def content_of(run):
    """All bytes of a run but the timings."""
    return {
        str(p.relative_to(run)): p.read_bytes()
        for p in sorted(run.rglob("*"))
        if p.is_file() and p.name != "clock.json"
    }


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    trainer(folder, shards).train()
    return content_of(folder)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_a_run_is_reproducible_and_depends_on_its_seed(tmp_path, shards, undisturbed):
    trainer(tmp_path / "again", shards).train()
    assert content_of(tmp_path / "again") == undisturbed
    trainer(tmp_path / "other", shards, settings(seed=1)).train()
    assert content_of(tmp_path / "other")["curves.csv"] != undisturbed["curves.csv"]


@pytest.mark.parametrize("step", range(12))
@pytest.mark.parametrize("where", ["fool", "judge", "after"])
def test_a_run_killed_at_any_step_ends_like_an_undisturbed_one(tmp_path, shards, undisturbed, step, where):
    first = trainer(tmp_path, shards)
    kill_in(first, where, step)
    with pytest.raises(Killed):
        first.train()
    trainer(tmp_path, shards).train()
    assert content_of(tmp_path) == undisturbed


def kill_in(run, where, step):
    objective = run.objective

    def die(original):
        def call(*arguments):
            if arguments[-1].step == step:
                raise Killed
            return original(*arguments)

        return call

    if where == "after":
        objective.after = die(objective.after)
    else:
        run.updater._losses[where] = die(run.updater._losses[where])


def test_a_run_killed_with_signal_9_ends_like_an_undisturbed_one(tmp_path, shards):
    """A real process, killed while it trains and while it writes checkpoints, twice."""
    changes = {"images": 1600, "checkpoint_every": 10, "log_every": 10, "snapshot_every": 200}
    trainer(tmp_path / "whole", shards, settings(**changes)).train()
    run = tmp_path / "killed"
    for least in (60, 150):
        process = start(run, shards, changes)
        wait_for(lambda at=least: steps_of(run) >= at, process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert steps_of(run) < 400, "the run should have been killed before its end"
    trainer(run, shards, settings(**changes)).train()
    assert content_of(run) == content_of(tmp_path / "whole")


def start(run, shards, changes):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(Path(__file__).parent / "tiny.py"), str(run), str(shards), json.dumps(changes)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def steps_of(run):
    found = checkpoint.newest(run) if run.is_dir() else None
    return int(found.name.removeprefix("step-")) if found else -1


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(tmp_path, shards, undisturbed, number):
    first = trainer(tmp_path, shards)
    original = first.objective.after

    def after(moment):
        original(moment)
        if moment.step == 4:
            os.kill(os.getpid(), number)

    first.objective.after = after
    with pytest.raises(KeyboardInterrupt):
        first.train()
    assert checkpoint.newest(tmp_path).name == "step-0000005"
    assert any("stopping after this step" in line for line in first.watch.lines)
    trainer(tmp_path, shards).train()
    assert content_of(tmp_path) == undisturbed


def test_a_diverging_step_is_rolled_back_and_training_goes_on(tmp_path, shards):
    run = trainer(tmp_path, shards, objective=TinyGAN(poison=(6,)))
    run.train()
    assert run.step == 12
    assert run.rollbacks == 1
    assert any("'fool' is not finite" in line and "back to step 4" in line for line in run.watch.lines)
    assert all(torch.isfinite(p).all() for n in run.objective.networks.values() for p in n.parameters())
    assert all(math.isfinite(v) for row in run.curves.rows for v in row.values())
    # The guard looks after step 8: four steps were trained twice, the second time on the data that came next.
    assert run.position.epoch * 10 + run.position.index == 4 * (12 + 4)


def test_a_run_that_keeps_diverging_gives_up_with_advice(tmp_path, shards):
    run = trainer(tmp_path, shards, settings(max_rollbacks=2))
    run.updater._losses["judge"] = lambda batch, moment: (torch.tensor(float("inf")), {})
    with pytest.raises(LineamentError, match=r"'judge' is not finite.*after 2 returns.*Lower the learning rates"):
        run.train()
    assert checkpoint.newest(tmp_path).name == "step-0000000"


def test_weights_that_are_not_finite_are_never_saved(tmp_path, shards):
    run = trainer(tmp_path, shards)
    original, spoilt = run.objective.after, []

    def after(moment):
        original(moment)
        if moment.step == 7 and not spoilt:
            spoilt.append(moment.step)
            next(run.objective.networks["companion"].parameters()).data[0] = float("nan")

    run.objective.after = after
    run.train()
    assert spoilt == [7]
    assert any("weights of companion" in line for line in run.watch.lines)
    for path in checkpoint.all_of(tmp_path):
        assert all(torch.isfinite(t).all() for t in checkpoint.read(path).tensors["networks"].values())


def test_micro_batches_give_the_gradients_of_the_whole_batch(tmp_path, shards):
    gradients = []
    for micro in (None, 1, 2):
        run = trainer(tmp_path / str(micro), shards, settings(micro_batch=micro), objective=Regress())
        run.train()
        gradients.append(torch.stack(run.objective.gradients))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
    assert torch.allclose(gradients[0], gradients[2], atol=1e-6)
    assert gradients[0].abs().max() > 1e-2


def test_the_average_is_the_declared_sum_of_the_weights(tmp_path, shards):
    run = trainer(tmp_path, shards, settings(ema=0.5), objective=Regress())
    weights, original = [], run.objective.after

    def after(moment):
        original(moment)
        weights.append(run.objective.networks["network"][3].weight.detach().clone())

    expected = run.objective.networks["network"][3].weight.detach().clone()
    run.objective.after = after
    run.train()
    for step, weight in enumerate(weights):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    assert torch.allclose(run.average.networks["network"][3].weight, expected, atol=1e-6)
    assert run.average.networks["network"].seen == run.objective.networks["network"].seen == 48
    assert not any(p.requires_grad for p in run.average.networks["network"].parameters())


def test_terms_come_when_they_are_due_and_touch_only_their_optimisers_weights(tmp_path, shards):
    run = trainer(tmp_path, shards)
    seen, original = [], run.updater._losses["r1"]

    def r1(batch, moment):
        owners = {n for n, net in run.objective.networks.items() for p in net.parameters() if p.requires_grad}
        seen.append((moment.step, owners, torch.is_autocast_enabled("cpu")))
        return original(batch, moment)

    run.updater._losses["r1"] = r1
    run.train()
    assert seen == [(step, {"discriminator"}, False) for step in range(0, 12, 2)]
    assert all(p.grad is None for p in run.objective.networks["companion"].parameters())


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_holds_for_first_order_terms_alone(tmp_path, shards, amp):
    run = trainer(tmp_path, shards, settings(amp=amp))
    seen = set()
    for name, original in list(run.updater._losses.items()):

        def loss(batch, moment, name=name, original=original):
            seen.add((name, torch.is_autocast_enabled("cpu"), str(torch.get_autocast_dtype("cpu"))))
            return original(batch, moment)

        run.updater._losses[name] = loss
    run.train()
    dtype = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}[amp]
    assert {("fool", True, dtype), ("judge", True, dtype)} <= seen
    assert {on for name, on, _ in seen if name == "r1"} == {False}
    exact = trainer(tmp_path / "exact", shards)
    exact.train()
    assert run.curves.last()["judge"] == pytest.approx(exact.curves.last()["judge"], rel=0.1)


def test_only_first_order_losses_are_compiled(tmp_path, shards, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda loss: compiled.append(loss.__name__) or loss)
    trainer(tmp_path, shards, settings(compile=True)).train()
    assert compiled == ["fool", "judge"]


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_learns_what_an_eager_one_does(tmp_path, shards):
    runs = {
        on: trainer(tmp_path / str(on), shards, settings(compile=on, images=12), objective=Regress())
        for on in (True, False)
    }
    for run in runs.values():
        run.train()
    assert hasattr(runs[True].updater._losses["error"], "_torchdynamo_orig_callable")
    compiled, eager = (runs[on].objective.gradients for on in (True, False))
    assert len(compiled) == len(eager) == 3
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-6)
    assert eager[0].abs().max() > 0


def test_rates_keep_the_share_that_the_plan_names(tmp_path, shards):
    run = trainer(tmp_path, shards, settings(images=40, plan={"curves": {"lr": {"knots": [[0, 1.0], [40, 0.0]]}}}))
    own = {name: optimizer.param_groups[0]["lr"] for name, optimizer in run.objective.optimizers.items()}
    shares = []
    after = run.objective.after

    def look(moment):
        shares.append({n: o.param_groups[0]["lr"] / own[n] for n, o in run.objective.optimizers.items()})
        after(moment)

    run.objective.after = look
    run.train()
    steps = len(shares)
    for name in own:
        assert [share[name] for share in shares] == pytest.approx([1 - step / steps for step in range(steps)])


def test_phases_and_learning_rates_follow_the_plan(tmp_path, shards):
    plan = {
        "phases": [{"name": "warm", "images": 20, "settings": {"x": 1}}, {"name": "rest", "settings": {"x": 2}}],
        "curves": {"lr.generator": {"knots": [[0, 0.0], [40, 0.1]]}},
    }
    run = trainer(tmp_path, shards, settings(plan=plan))
    seen, original = [], run.objective.after

    def after(moment):
        original(moment)
        rate = run.objective.optimizers["generator"].param_groups[0]["lr"]
        seen.append((moment.phase, moment.settings["x"], round(rate, 6)))

    run.objective.after = after
    run.train()
    assert [s[0] for s in seen] == ["warm"] * 5 + ["rest"] * 7
    assert [s[1] for s in seen] == [1] * 5 + [2] * 7
    assert [s[2] for s in seen] == [round(0.01 * step, 6) for step in range(11)] + [0.1]


def test_an_update_without_a_due_term_leaves_its_weights_alone(tmp_path, shards):
    objective = Regress()
    objective.updates = (Update("network", (Term("error", objective.error, every=5),)),)
    run = trainer(tmp_path, shards, objective=objective)
    weights, objective.gradients = [], []
    objective.after = lambda moment: weights.append(objective.networks["network"][3].weight.detach().clone())
    run.train()
    moved = [step for step in range(1, 12) if not torch.equal(weights[step], weights[step - 1])]
    assert moved == [5, 10]


@pytest.mark.parametrize("real", [True, False])
def test_running_out_of_memory_says_which_knob_to_turn(tmp_path, shards, real):
    def greedy(batch, moment):
        if real:
            return torch.empty(1 << 60), {}
        raise torch.OutOfMemoryError("CUDA out of memory.")

    run = trainer(tmp_path, shards)
    run.updater._losses["fool"] = greedy
    with pytest.raises(LineamentError, match="out of memory on cpu at step 0. Set `micro_batch` below 4") as error:
        run.train()
    assert "`amp: bf16`" in str(error.value)


def test_other_errors_pass_as_they_are(tmp_path, shards):
    run = trainer(tmp_path, shards)

    def wrong(batch, moment):
        raise RuntimeError("shapes do not fit")

    run.updater._losses["fool"] = wrong
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run.train()


def test_a_run_does_not_go_on_with_other_settings_or_data(tmp_path, shards):
    trainer(tmp_path / "run", shards).train()
    with pytest.raises(LineamentError, match="config.params.images was 48 and is now 96"):
        trainer(tmp_path / "run", shards, settings(images=96)).train()
    other = write_shards(tmp_path / "other", samples=11)
    with pytest.raises(LineamentError, match="belongs to another run: data was"):
        trainer(tmp_path / "run", other).train()


def test_torchs_global_settings_are_given_back(tmp_path, shards):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), signal.getsignal(signal.SIGINT)
    run = trainer(tmp_path, shards, settings(threads=3))
    original, seen = run.objective.after, []
    run.objective.after = lambda m: seen.append(torch.get_num_threads()) or original(m)
    run.train()
    assert set(seen) == {3}
    after = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), signal.getsignal(signal.SIGINT)
    assert after == before


def test_pictures_curves_events_and_timings_lie_in_the_run_folder(tmp_path, shards):
    run = trainer(tmp_path, shards, settings(tensorboard=True, grid_rows=2, grid_columns=3))
    run.train()
    grids = sorted((tmp_path / "grids").iterdir())
    assert [g.name for g in grids] == ["step-0000006.png", "step-0000012.png"]
    assert decode(grids[0].read_bytes()).shape == (2 * SIDE, 3 * SIDE, 3)
    header, *rows = (tmp_path / "curves.csv").read_text().splitlines()
    assert header == "step,images,fool,judge,r1,real"
    assert [row.split(",")[:2] for row in rows] == [["3", "12"], ["6", "24"], ["9", "36"], ["12", "48"]]
    assert list(tmp_path.glob("events.out.tfevents.*"))
    clock = json.loads((tmp_path / "clock.json").read_text())
    assert clock["images"] == 48
    assert clock["parts"]["r1"]["calls"] == 6
    assert clock["parts"]["judge"]["peak_mb"] > 1


def test_tile_puts_pictures_row_by_row():
    images = torch.linspace(-1, 1, 6)[:, None, None, None].expand(6, 3, 2, 2)
    picture = tile(images, 3)
    assert picture.shape == (4, 6, 3)
    assert picture[0, ::2, 0].tolist() == [0, 51, 102]
    assert picture[3, ::2, 0].tolist() == [153, 204, 255]


def test_seeds_of_steps_ranks_and_rollbacks_differ():
    seeds = {step_seed(s, r, b, t) for s in range(3) for r in range(3) for b in range(3) for t in range(-1, 20)}
    assert len(seeds) == 3 * 3 * 3 * 21
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_settings_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="batch 4 is not divisible by micro_batch 3"):
        settings(micro_batch=3)
    assert settings(images=49).steps == 13


def test_noise_from_torchs_default_generator_is_exact_too(tmp_path, shards):
    """The discriminator's loss draws from it; what happened before in the process must not matter."""
    torch.manual_seed(5)
    np.random.seed(5)
    trainer(tmp_path / "a", shards).train()
    torch.randn(1000)
    trainer(tmp_path / "b", shards, watch=Quiet()).train()
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b")


POOLS = {
    "phases": [
        {"name": "near_front", "images": 20, "settings": {"data": "front"}},
        {"name": "everything", "settings": {"data": "all"}},
    ]
}


def watched(folder, shards, seen, stop=None):
    """A run over both pools that notes the samples of each step."""
    objective = TinyGAN()

    def fool(batch, moment):
        if moment.step == stop:
            raise Killed
        seen[moment.step] = batch["index"].tolist()
        return original(batch, moment)

    original = objective.fool
    objective.updates = (replace(objective.updates[0], terms=(Term("fool", fool),)), objective.updates[1])
    return trainer(folder, shards, settings(plan=POOLS), objective=objective)


def test_a_phase_chooses_its_samples_from_its_first_image_on(tmp_path):
    shards, seen = write_shards(tmp_path / "shards", heads=True), {}
    watched(tmp_path / "run", shards, seen).train()
    assert all(set(seen[step]) <= {0, 1, 9} for step in range(5))
    assert sum(seen[step].count(9) for step in range(5)) > 10, "the pool repeats what is rare"
    assert set().union(*(seen[step] for step in range(5, 12))) == set(range(10))


@pytest.mark.parametrize("stop", [4, 5, 7])  # before, at and after the change of pools; checkpoints at 4 and 8
def test_a_run_killed_around_a_change_of_samples_ends_like_an_undisturbed_one(tmp_path, stop):
    shards, whole, parts = write_shards(tmp_path / "shards", heads=True), {}, {}
    watched(tmp_path / "whole", shards, whole).train()
    with pytest.raises(Killed):
        watched(tmp_path / "parts", shards, parts, stop).train()
    watched(tmp_path / "parts", shards, parts).train()
    assert parts == whole
    assert content_of(tmp_path / "parts") == content_of(tmp_path / "whole")


class Drawing(TinyGAN):
    """A tiny GAN that draws."""

    def draw(self, networks, count, generator):
        for n in (2, count - 2):
            codes = torch.randn(n, 4, generator=generator, device=generator.device)
            yield networks["generator"](codes).view(-1, 3, SIDE, SIDE), torch.full((n, 25), float(n))


def test_pictures_of_snapshots_are_kept_from_the_untrained_networks_on(tmp_path, shards):
    run = trainer(tmp_path / "run", shards, settings(snapshot_pictures=5), objective=Drawing())
    untrained = run.objective.networks["generator"].state_dict()
    untrained = {name: value.clone() for name, value in untrained.items()}
    run.train()
    paths = sorted((tmp_path / "run/snapshots").iterdir())
    assert [path.name for path in paths] == [f"step-{n:07d}.safetensors" for n in (0, 6, 12)]
    first, last = load_file(paths[0]), load_file(paths[-1])
    assert first["images"].shape == (5, SIDE, SIDE, 3)
    assert first["images"].dtype == torch.uint8
    assert first["camera"][:, 0].tolist() == [2, 2, 3, 3, 3]
    assert not torch.equal(first["images"], last["images"])
    run.average.networks["generator"].load_state_dict(untrained)
    run._draw()
    assert torch.equal(load_file(paths[-1])["images"], first["images"]), "the same codes at each step"
