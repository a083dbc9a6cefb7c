"""When a system is trained again. Section ``policy`` of params.yaml; ops/judge.py holds what becomes of the result:

policy:
  giraffe:
    score: variants.{key}.mean_auc         # where metrics/evaluate_giraffe.json has the number that counts
    interval: variants.{key}.interval
    gain: 10                               # % more accepted samples than the last training saw
    drift: 0.2                             # views or sharpness, total variation distance
    takedown: true                         # a takedown of what the champion was trained on
    cron: "0 2 * * 0"
    start: scratch                         # or last: from the newest registered version
    evaluation: evaluate_giraffe           # the stage that measures it; this one if not given
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ops import data_versions, registry
from ops.dag import PARAMS_FILE, Dag, load_yaml
from ops.data_versions import Profile
from ops.registry import Version
from ops.runtime.cron import Cron
from ops.runtime.params import Params, validate


class SystemPolicy(Params):
    """The policy of one system. None switches a reason off."""

    score: str = Field(description="dotted name in the evaluation's metrics; {key} is the variant")
    evaluation: str | None = Field(default=None, description="the stage that measures it; evaluate_SYSTEM if not given")
    interval: str | None = Field(default=None, description="dotted name of [low, high]; without it, noise counts")
    noise: float = Field(default=0.0, ge=0, description="half width of the interval where none is measured")
    better: Literal["higher", "lower"] = "higher"
    gain: float | None = Field(default=10.0, gt=0, description="% more accepted samples")  # unpublished: our choice
    drift: float | None = Field(default=0.2, gt=0, le=1, description="share of samples moved")  # our choice
    takedown: bool = True
    cron: Cron | None = None
    start: Literal["scratch", "last"] = "scratch"


def load_policies(root: Path) -> dict[str, SystemPolicy]:
    """The declared policies by system.

    Raises:
        LineamentError: the section is wrong.
    """
    file = root / PARAMS_FILE
    section: Any = (load_yaml(file).get("policy") if file.is_file() else None) or {}
    return {name: validate(SystemPolicy, values or {}, f"{file}: policy.{name}") for name, values in section.items()}


def reasons_to_train(root: Path, dag: Dag, system: str, policy: SystemPolicy) -> list[str]:
    """Why a system should be trained again now, in words; none where nothing speaks for it.

    Growth and drift are measured against the data of the newest registered version, not of the champion: what was
    tried and lost is not tried again.
    """
    models = registry.read(root).models
    names = [registry.model_name(unit) for unit in registry.trainings(dag, system)]
    known = {name: models[name] for name in names if name in models}
    found: list[str] = []
    folder = shards_of(dag, system)
    if not known or folder is None:
        return found
    if policy.takedown:
        taken = data_versions.taken_down(root)
        champions = {name: model.best for name, model in known.items() if model.best}
        found += [why for name, best in champions.items() if (why := touched(root, name, best, taken))]
    if not (root / folder / data_versions.SUMMARY).is_file():
        return found
    present = data_versions.profile(root, folder)
    newest = max((m.versions[-1] for m in known.values() if m.versions), key=lambda v: v.time, default=None)
    if newest is None or newest.trained_on is None or newest.trained_on.hash == present.hash:
        return found
    return found + _moved(newest.trained_on, present, policy)


def touched(root: Path, name: str, version: Version, taken: set[str]) -> str | None:
    """Why a takedown concerns a version; None where it does not."""
    if not taken or version.trained_on is None:
        return None
    ids = data_versions.known_ids(root, version.trained_on.hash)
    if ids is None:
        return f"{name}: whether its data hold what was taken down is not known here"
    hit = {key.split("-")[0] for key in ids} & taken
    return f"{name}: {len(hit)} of the samples it was trained on were taken down" if hit else None


def _moved(before: Profile, present: Profile, policy: SystemPolicy) -> list[str]:
    found = []
    grown = data_versions.gain(before.samples, present.samples)
    if policy.gain is not None and grown >= policy.gain:
        found.append(f"{grown:.1f} % more samples than the last training saw ({before.samples} → {present.samples})")
    for what, old, new in (("views", before.views, present.views), ("sharpness", before.blurs, present.blurs)):
        moved = data_versions.drift(old, new)
        if policy.drift is not None and moved > policy.drift:
            found.append(f"the {what} drifted by {moved:.3f}, more than {policy.drift:g}")
    return found


def shards_of(dag: Dag, system: str) -> Path | None:
    """The folder of training shards that a system reads; the first where there are several."""
    for unit in registry.trainings(dag, system):
        for dep in unit.deps:
            if dep.startswith(f"{data_versions.SHARDS}/"):
                return Path(dep)
    return None
