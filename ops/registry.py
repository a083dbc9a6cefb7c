"""The registry of trained models: every version that was evaluated, which one is the champion, and the way back.

``data/registry.json`` is small and git tracks it. A model is what one unit of a training stage makes, such as
``giraffe/aamnce``; its versions are numbered. The champion's files lie under ``data/champions/<model>``, and the
pointer ``data/champions/<model>.dvc`` beside them makes DVC keep, push and pull them however often the training stage
is run again. Other versions can be taken back as long as DVC's cache, or a remote, has them.
"""

from __future__ import annotations

import fcntl
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from ruamel.yaml import YAML

from ops.dag import Dag, Unit, load_yaml
from ops.data_versions import Profile
from ops.ledger import LOCK
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params, validate
from ops.runtime.publish import publish, remove
from ops.versioning import dvc

REGISTRY = Path("data/registry.json")
CHAMPIONS = Path("data/champions")
STARTS = Path("data/starts")  # versions that a training starts from
CHECKPOINTS = "data/checkpoints/"
CONFIG = "config.json"


class Score(Params):
    """A measured number with its interval, under a protocol; numbers of different protocols are not compared.

    Attributes:
        name: where in the metrics file it stands. protocol: the hash of everything that decides how it is measured.
    """

    name: str
    value: float
    low: float
    high: float
    better: Literal["higher", "lower"] = "higher"
    protocol: str

    def beats(self, other: Score) -> bool:
        """Whether this is better than another by more than the noise: the interval of the difference, whose half
        width is the root of the sum of both half widths squared, leaves out zero.

        Raises:
            LineamentError: they were measured in different ways.
        """
        if (self.name, self.protocol) != (other.name, other.protocol):
            raise LineamentError(f"{self.name}: measured under another protocol than {other.name}; measure both anew.")
        difference = self.value - other.value if self.better == "higher" else other.value - self.value
        noise = math.hypot((self.high - self.low) / 2, (other.high - other.low) / 2)
        return difference > noise


class Version(Params):
    """One trained checkpoint.

    Attributes:
        md5: DVC's hash of its folder, by which it is found again; size and files as DVC counts them.
        trained_on: the data, in a few numbers; None where the shards were gone.
        revision: of the code that trained it; settings: the hash of the training's parameters in dvc.lock.
        upon: the registered models it was trained on, by the md5 of the version it saw: it works with no other.
    """

    number: int
    time: str
    unit: str
    md5: str
    size: int
    files: int
    data: str | None = None
    trained_on: Profile | None = None
    revision: str | None = None
    settings: str | None = None
    score: Score | None = None
    upon: dict[str, str] = Field(default_factory=dict)


class Event(Params):
    """A change of champion."""

    time: str
    champion: int | None
    why: str


class Model(Params):
    """A model's versions, oldest first, the number of its champion, and how that came about."""

    versions: tuple[Version, ...] = ()
    champion: int | None = None
    history: tuple[Event, ...] = ()

    def version(self, number: int) -> Version:
        """A version by number; LineamentError if there is none."""
        for version in self.versions:
            if version.number == number:
                return version
        known = ", ".join(str(version.number) for version in self.versions) or "none"
        raise LineamentError(f"there is no version {number}; there are: {known}.")

    @property
    def best(self) -> Version | None:
        """The champion."""
        return None if self.champion is None else self.version(self.champion)


class Registry(Params):
    """All models by name."""

    models: dict[str, Model] = Field(default_factory=dict)

    def model(self, name: str) -> Model:
        """A model by name; LineamentError if there is none."""
        if name not in self.models:
            known = ", ".join(sorted(self.models)) or "none; training and evaluation register them (retrain_SYSTEM)"
            raise LineamentError(f"no model '{name}' is registered; there are: {known}.")
        return self.models[name]


def read(root: Path) -> Registry:
    """The registry; empty where there is none yet.

    Raises:
        LineamentError: it is damaged.
    """
    file = root / REGISTRY
    if not file.is_file():
        return Registry()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LineamentError(f"{file}: damaged ({error}). Restore it: git checkout {REGISTRY}.") from None
    return validate(Registry, {"models": content}, str(file))


@contextmanager
def changing(root: Path) -> Iterator[dict[str, Model]]:
    """The models, to be changed by this process alone; written when the block succeeds."""
    guard = root / "data/.work/registry.lock"
    guard.parent.mkdir(parents=True, exist_ok=True)
    with open(guard, "a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        models = dict(read(root).models)
        yield models
        content = {name: models[name].model_dump(mode="json") for name in sorted(models)}
        with publish(root / REGISTRY) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")


def checkpoint_of(unit: Unit) -> str | None:
    """Where a unit leaves a checkpoint; None if it makes none."""
    return next((out for out in unit.outs if out.startswith(CHECKPOINTS)), None)


def model_name(unit: Unit) -> str:
    """The name under which a unit's checkpoints are registered, e.g. ``giraffe/aamnce``."""
    out = checkpoint_of(unit)
    if out is None:
        raise LineamentError(f"{unit.name} makes no checkpoint below {CHECKPOINTS}.")
    return out.removeprefix(CHECKPOINTS)


def register(
    root: Path,
    unit: Unit,
    score: Score | None = None,
    trained_on: Profile | None = None,
    settings: str | None = None,
    upon: Mapping[str, str] | None = None,
) -> Version:
    """Enter a unit's present checkpoint, as dvc.lock has it; one that is there already gets the new score.

    Raises:
        LineamentError: it has not been trained.
    """
    out = checkpoint_of(unit)
    entry = _locked(root, unit, str(out))
    config = _config(root / str(out))
    with changing(root) as models:
        model = models.get(model_name(unit), Model())
        known = next((v for v in model.versions if v.md5 == entry["md5"]), None)
        version = Version(
            number=known.number if known else len(model.versions) + 1,
            time=known.time if known else _now(),
            unit=unit.name,
            md5=entry["md5"],
            size=entry.get("size", 0),
            files=entry.get("nfiles", 0),
            data=config.get("data"),
            trained_on=known.trained_on if known and known.trained_on else trained_on,
            revision=config.get("revision"),
            settings=settings,
            score=score or (known.score if known else None),
            upon=dict(upon or (known.upon if known else {})),
        )
        others = [v for v in model.versions if v.number != version.number]
        versions = tuple(sorted([*others, version], key=lambda v: v.number))
        models[model_name(unit)] = model.model_copy(update={"versions": versions})
    return version


def rescore(root: Path, name: str, number: int, score: Score) -> None:
    """Replace a version's score by one of another protocol."""
    with changing(root) as models:
        versions = [v.model_copy(update={"score": score}) if v.number == number else v for v in models[name].versions]
        models[name] = models[name].model_copy(update={"versions": tuple(versions)})


def promote(root: Path, name: str, number: int, why: str = "by hand") -> Version:
    """Make a version the champion: its files are put under data/champions, from DVC's cache. The champions that were
    trained on another version of this model step back for those that were trained on this one, where there are any.

    Raises:
        LineamentError: no such version, one that works with no champion of what it was trained on, or the cache no
            longer has its files.
    """
    models = read(root).models
    version = read(root).model(name).version(number)
    for other in strangers(models, version):
        fits = next((v.number for v in models[other].versions if v.md5 == version.upon[other]), "VERSION")
        raise LineamentError(
            f"{name} version {number} works only with the version of {other} that it was trained on, which is not its "
            f"champion. First: lineament models promote {other} {fits}."
        )
    check_out(root, name, version)
    _enthrone(root, name, number, why)
    for other, model in models.items():
        if model.best is not None and model.best.upon.get(name, version.md5) != version.md5:
            _follow(root, other, name, version)
    return version


def strangers(models: Mapping[str, Model], version: Version) -> list[str]:
    """The models that a version was trained on and whose champion is another version than it saw."""
    return [n for n, md5 in version.upon.items() if n in models and (best := models[n].best) and best.md5 != md5]


def _follow(root: Path, name: str, leader: str, version: Version) -> None:
    """Give a model the champion that was trained on its leader's new one: the last that there was, else the newest
    version; none, and no files, where nothing was trained on it yet."""
    model = read(root).models[name]
    fitting = [v.number for v in model.versions if v.upon.get(leader) == version.md5]
    reigned = [event.champion for event in model.history if event.champion in fitting]
    why = f"follows {leader} to its version {version.number}"
    if fitting:
        promote(root, name, int(([*fitting[-1:], *reigned])[-1]), why)
        return
    _enthrone(root, name, None, f"{why}, on which none was trained yet")
    remove(root / CHAMPIONS / name)
    (root / CHAMPIONS / f"{name}.dvc").unlink(missing_ok=True)


def _enthrone(root: Path, name: str, number: int | None, why: str) -> None:
    with changing(root) as models:
        model = models[name]
        event = Event(time=_now(), champion=number, why=why)
        models[name] = model.model_copy(update={"champion": number, "history": (*model.history, event)})


def roll_back(root: Path, name: str) -> Version:
    """Make the champion before the present one champion again.

    Raises:
        LineamentError: there was none.
    """
    model = read(root).model(name)
    earlier = [e.champion for e in model.history if e.champion is not None and e.champion != model.champion]
    if not earlier:
        raise LineamentError(f"{name}: there is no earlier champion to go back to.")
    return promote(root, name, earlier[-1], f"rolled back from version {model.champion}")


def check_out(root: Path, name: str, version: Version, folder: Path = CHAMPIONS) -> Path:
    """Put a version's files under ``folder/<name>``, with a pointer that makes DVC keep them.

    Raises:
        LineamentError: neither cache nor remote has them.
    """
    target = folder / name
    pointer = root / folder / f"{name}.dvc"
    before = pointer.read_text() if pointer.is_file() else None
    _ignore(pointer)
    entry = {"md5": version.md5, "size": version.size, "nfiles": version.files, "hash": "md5", "path": target.name}
    with publish(pointer) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        YAML().dump({"outs": [{key: value for key, value in entry.items() if value}]}, stream)
    words = ("--force", str(pointer.relative_to(root)))
    try:
        try:
            dvc(root, "checkout", *words)
        except LineamentError:
            dvc(root, "pull", *words)
    except LineamentError as error:
        if before is None:
            pointer.unlink()
        else:
            pointer.write_text(before)  # DVC has taken the files away already
            dvc(root, "checkout", *words)
        raise LineamentError(
            f"{name} version {version.number} ({version.md5[:8]}) is neither in DVC's cache nor in a remote, so it "
            f"cannot be taken back: {error}"
        ) from None
    return root / target


def _ignore(pointer: Path) -> None:
    """Make git ignore what a pointer stands for, by a file beside it, as `dvc add` does. DVC does not look where its
    own reading of .gitignore forbids, and that knows fewer patterns than git's."""
    file = pointer.parent / ".gitignore"
    lines = set(file.read_text().split()) if file.is_file() else set()
    if (line := f"/{pointer.stem}") not in lines:
        with publish(file) as temporary:
            temporary.write_text("\n".join(sorted({*lines, line})) + "\n")


def table(registry: Registry) -> str:
    """The versions of all models, the champions marked."""
    lines = []
    for name, model in sorted(registry.models.items()):
        for v in model.versions:
            score = f"{v.score.value:.4f} [{v.score.low:.4f}, {v.score.high:.4f}] {v.score.name}" if v.score else "–"
            mark = "champion" if v.number == model.champion else ""
            lines.append(f"{name:28} {v.number:3} {mark:8} {v.time[:16]}  {(v.data or '–')[:8]:8}  {score}")
    head = f"{'model':28} {'v':>3} {'':8} {'time':16}  {'data':8}  score"
    return (
        "\n".join([head, *lines]) if lines else "No model is registered yet: `lineament models judge` after training."
    )


def _locked(root: Path, unit: Unit, out: str) -> dict[str, Any]:
    stages = load_yaml(root / LOCK).get("stages") or {} if (root / LOCK).is_file() else {}
    for entry in (stages.get(unit.name) or {}).get("outs") or []:
        if entry["path"] == out:
            return entry
    raise LineamentError(f"{unit.name} has made no checkpoint yet: dvc repro {unit.name}.")


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG if folder.is_dir() else folder.with_name(CONFIG)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def trainings(dag: Dag, system: str) -> list[Unit]:
    """The units that train a system.

    Raises:
        LineamentError: there is no such stage.
    """
    stage = f"train_{system}"
    if stage not in dag.stages:
        known = ", ".join(name.removeprefix("train_") for name in dag.stages if name.startswith("train_"))
        raise LineamentError(f"there is no system '{system}'; there are: {known}.")
    return [unit for unit in dag.stages[stage].units.values() if checkpoint_of(unit) is not None]
