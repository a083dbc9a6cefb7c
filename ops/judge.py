"""What becomes of a freshly trained model: registered with its score, and promoted if it beats its champion.

The protocol is frozen: a score bears the hash of the evaluation's code and parameters. Where the champion was measured
by another one, it is measured anew by the present one before the two are compared.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ops import data_versions, policy, registry
from ops.dag import PARAMS_FILE, Dag, Unit, select
from ops.ledger import Record, digest, read_lock
from ops.policy import SystemPolicy
from ops.registry import Score, Version
from ops.runtime.errors import LineamentError
from ops.runtime.publish import remove
from ops.versioning import changed_deps, dvc_status, environment

AGAIN = "data/.work/judge"  # where a champion that is measured anew leaves its results


@dataclass(frozen=True)
class Judgement:
    """What became of a freshly trained version."""

    model: str
    version: Version
    promoted: bool
    why: str


def judge(root: Path, system: str) -> list[Judgement]:
    """Register a system's present checkpoints with their scores, and promote each that beats its champion; then those
    of the systems that are trained on them, such as the encoders of a generator.

    A version wins when it is the first, when it beats the champion beyond the noise on the same protocol, or when the
    champion was trained on samples that have been taken down since and this one was not.

    Raises:
        LineamentError: no policy names the score; nothing has been trained or evaluated; or the evaluation that is
            there is of other checkpoints.
    """
    dag = Dag.load(root)
    policies = policy.load_policies(root)
    if system not in policies:
        known = ", ".join(sorted(policies)) or "none"
        raise LineamentError(
            f"{root / PARAMS_FILE}: policy.{system} is missing, which would say what score decides; there are: {known}."
        )
    lock = read_lock(root)
    following = dag.downstream([unit.name for unit in registry.trainings(dag, system)])
    stages = dict.fromkeys(dag.units[name].stage for name in following)
    systems = [stage.removeprefix("train_") for stage in stages if stage.removeprefix("train_") in policies]
    found = [item for name in systems for item in _judge(dag, lock, name, policies[name])]
    if not found:
        raise LineamentError(f"{system}: nothing has been trained yet: dvc repro train_{system}.")
    return found


def _judge(dag: Dag, lock: Mapping[str, Record], system: str, declared: SystemPolicy) -> list[Judgement]:
    root = dag.root
    measured = _evaluation(dag, declared.evaluation or f"evaluate_{system}")
    folder = policy.shards_of(dag, system)
    summary = folder is not None and (root / folder / data_versions.SUMMARY).is_file()
    data = data_versions.profile(root, folder) if folder is not None and summary else None
    found = []
    for unit in registry.trainings(dag, system):
        if unit.name not in lock:
            continue
        _agree(dag, lock, unit, measured)
        score = score_of(dag, measured, unit, declared, lock[measured.name])
        settings = digest(sorted((name[1], value) for name, value in lock[unit.name].params.items()))
        trained_on = data if data is not None and _same_data(lock[unit.name], lock, dag, folder) else None
        version = registry.register(root, unit, score, trained_on, settings, _upon(dag, lock[unit.name]))
        again = partial(_champions_score, dag, lock, unit, measured, declared)
        found.append(_decide(root, registry.model_name(unit), version, again))
    return found


def _upon(dag: Dag, record: Record) -> dict[str, str]:
    """The registered models that a training consumed, with what it saw of them."""
    known = registry.read(dag.root).models
    seen = {path.removeprefix(registry.CHECKPOINTS): md5 for path, md5 in record.deps.items()}
    return {name: md5 for name, md5 in seen.items() if name in known}


def _decide(root: Path, name: str, version: Version, measure_again: Callable[[], Score]) -> Judgement:
    models = registry.read(root).models
    champion = models[name].best
    others = registry.strangers(models, version)
    if others:
        return Judgement(name, version, False, f"was trained on a version of {', '.join(others)} that is not champion")
    if champion is None:
        return _promote(root, name, version, f"the first version{' on a new champion' if models[name].history else ''}")
    if champion.number == version.number:
        return Judgement(name, version, False, "is the champion already")
    taken = data_versions.taken_down(root)
    spoiled = policy.touched(root, name, champion, taken)
    if spoiled and not policy.touched(root, name, version, taken):
        return _promote(root, name, version, f"the champion has to go: {spoiled}")
    if champion.score is None or version.score is None:
        return Judgement(name, version, False, "cannot be compared: one of both has no score")
    before = champion.score
    if (before.name, before.protocol) != (version.score.name, version.score.protocol):
        before = measure_again()
        registry.rescore(root, name, champion.number, before)
    said = f"{version.score.value:.4f} {{}} {before.value:.4f} of version {champion.number} beyond the noise"
    if version.score.beats(before):
        return _promote(root, name, version, said.format("beats"))
    return Judgement(name, version, False, said.format("does not beat"))


def _promote(root: Path, name: str, version: Version, why: str) -> Judgement:
    registry.promote(root, name, version.number, why)
    return Judgement(name, version, True, why)


def _champions_score(dag: Dag, lock: Mapping[str, Record], unit: Unit, measured: Unit, declared: SystemPolicy) -> Score:
    """The champion's score by the present protocol: the evaluation's own command, run on the champions in the place of
    the present checkpoints, its results written to the work area."""
    paths = {out: f"{AGAIN}/{out}" for out in measured.outs}
    paths[registry.CHECKPOINTS.rstrip("/")] = champions_in_place(dag, lock).as_posix()
    command = str(measured.command)
    for old in sorted(paths, key=len, reverse=True):
        command = re.sub(rf"(?<![\w/.]){re.escape(old)}(?![\w.])", paths[old], command)
    done = subprocess.run(
        command, shell=True, cwd=dag.root, env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip()[-2000:]
        raise LineamentError(f"the champion of {registry.model_name(unit)} could not be measured anew: {said}")
    return score_of(dag, measured, unit, declared, lock[measured.name], dag.root / AGAIN)


def champions_in_place(dag: Dag, lock: Mapping[str, Record]) -> Path:
    """A folder of links like ``data/checkpoints``, with the champion of each model that has one. What was trained on a
    checkpoint that a champion replaces there works with no champion, and is left out."""
    models = registry.read(dag.root).models
    folder = Path(AGAIN) / "checkpoints"
    remove(dag.root / folder)
    replaced: set[str] = set()
    for unit in dag.units.values():
        out = registry.checkpoint_of(unit)
        if out is None:
            continue
        name, place = registry.model_name(unit), Path(out)
        best = models[name].best if name in models else None
        if best is not None and (unit.name not in lock or lock[unit.name].outs.get(out) != best.md5):
            replaced.add(unit.name)
            place = registry.CHAMPIONS / name
        elif best is None and replaced.intersection(dag.upstream([unit.name])):
            continue
        if (dag.root / place).exists():
            link = dag.root / folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((dag.root / place).resolve())
    return folder


def score_of(
    dag: Dag, measured: Unit, unit: Unit, declared: SystemPolicy, record: Record, folder: Path | None = None
) -> Score:
    """A unit's score from its evaluation's metrics, which lie below ``folder``, the project's if not given.

    Raises:
        LineamentError: the metrics have no such number.
    """
    file = (folder or dag.root) / next((path for path in measured.metrics if path.endswith(".json")), "")
    try:
        numbers = json.loads(file.read_text(encoding="utf-8"))
        value = float(select(numbers, declared.score.format(key=unit.key)))
        interval = declared.interval and select(numbers, declared.interval.format(key=unit.key))
        low, high = interval if interval else (value - declared.noise, value + declared.noise)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LineamentError(f"{file}: has no score of {unit.name} under {declared.score} ({error}).") from None
    return Score(
        name=declared.score.format(key=unit.key),
        value=value,
        low=low,
        high=high,
        better=declared.better,
        protocol=protocol(dag, measured, record),
    )


def protocol(dag: Dag, measured: Unit, record: Record) -> str:
    """The hash of all that decides how a score is measured: the evaluation's code and parameters, not its inputs."""
    code = {path: md5 for path, md5 in record.deps.items() if path in dag.code(measured)}
    return digest([sorted(code.items()), sorted((name[1], value) for name, value in record.params.items())])


def _evaluation(dag: Dag, stage: str) -> Unit:
    if stage not in dag.stages or dag.stages[stage].keys is not None:
        raise LineamentError(f"dvc.yaml has no single stage {stage}, by whose metrics the system is judged.")
    return next(iter(dag.stages[stage].units.values()))


def _agree(dag: Dag, lock: Mapping[str, Record], unit: Unit, measured: Unit) -> None:
    """Raise LineamentError unless the evaluation is of the checkpoints that are there now."""
    if measured.name not in lock:
        raise LineamentError(f"{measured.name} has not run yet: dvc repro {measured.name}.")
    stale = changed_deps(dvc_status(dag.root, [measured.name])).get(measured.name, set())
    if stale.intersection(dag.feeds[measured.name]):
        raise LineamentError(f"{measured.name} measured other checkpoints of {unit.stage}: dvc repro {measured.name}.")


def _same_data(record: Record, lock: Mapping[str, Record], dag: Dag, folder: Path | None) -> bool:
    """Whether a training consumed the shards that are there now."""
    maker = dag.makers.get(str(folder))
    return maker in lock and record.deps.get(str(folder)) == lock[str(maker)].outs.get(str(folder))
