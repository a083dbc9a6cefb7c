"""The page about animatable heads: training, heads that are animated, avatars of frames, what more frames are worth."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ops.evaluate.avatar_output import limits_of, title
from ops.report import chart, training
from ops.report.files import Record, read_json
from ops.report.page import (
    Embedding,
    Html,
    Missing,
    Page,
    Section,
    attempt,
    facts,
    film,
    join,
    measured,
    picture,
    table,
    tag,
)

SYSTEM, METHOD = "avatar", "recurrent"
EVALUATION = Path("data/evaluation") / SYSTEM
MEASURES = {
    "psnr": "PSNR, dB",
    "psnr_gain": "gain over one frame, dB",
    "l1": "L1",
    "perceptual_mobilenetv2": "perceptual",
    "akd": "AKD",
    "gaze": "gaze",
    "faces": "faces found",
}


def page(root: Path, how: Embedding) -> Page:
    """Training, generators, encoders, frames, truth."""
    known = facts(partial(training.facts, root, SYSTEM))
    headline = facts(lambda: _headline(_results(root)))
    meaning = (
        "AKD is the mean distance of FaceMesh's key points between a drawn face and its driver, in picture sides: "
        "lower is better. PSNR is of frames that the avatar was not made of."
    )
    return Page(
        "InvertAvatar: heads that a face mesh moves, and avatars of a person made of one frame or many.",
        [
            Section.of("training", "Training", partial(training.section, root, how, SYSTEM)),
            Section.of("generators", "Heads that are animated", _shown(root, how, _generators)),
            Section.of("reenactment", "One frame, driven", _shown(root, how, _reenactment)),
            Section.of("frames", "What more frames are worth", _shown(root, how, _frames)),
            Section.of("truth", "Against the truth", _shown(root, how, _truth)),
            Section.of("reconstruction", "Pictures drawn again", _shown(root, how, _reconstruction)),
        ],
        [*known, *headline],
        meaning if headline else "Nothing has been evaluated yet: there is no headline number.",
        (),
        facts(lambda: limits_of(_results(root))),
    )


def _results(root: Path) -> Record:
    path = root / EVALUATION / "avatar.json"
    if not path.is_file():
        raise Missing("avatars have not been evaluated; dvc repro evaluate_avatar does")
    return read_json(path)


def _shown(root: Path, how: Embedding, make: Callable[[Path, Embedding, Record], Html]) -> Callable[[], Html]:
    return lambda: make(root / EVALUATION, how, _results(root))


def _headline(results: Record) -> list[tuple[str, str]]:
    generators = results["generators"]
    found = generators[generators.first()]
    lines = [(f"AKD of the generator (n = {found['akd']['n']})", _short(found["akd"]["mean"]))]
    for found in list(results["encoders"].values())[:1]:
        same = found["same"]["psnr"]
        lines.append((f"PSNR of one frame, driven (n = {same['n']})", f"{_short(same['mean'])} dB"))
    return lines


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _sheet(folder: Path, how: Embedding, name: str, text: str) -> Html:
    return attempt(partial(picture, folder / f"{name}.png", text, how, "evaluate_avatar"))


def _generators(folder: Path, how: Embedding, results: Record) -> Html:
    identity = results["protocol"]["identity"]
    rows: list[list[object]] = []
    parts = []
    for name, found in results["generators"].items():
        distances = [found["distances"][key]["value"] for key in found["distances"]]
        counts = found["distances"][found["distances"].first()]["samples"]
        rows.append(
            [
                title(name),
                *distances,
                " / ".join(map(str, counts)),
                *(measured(found[key]) for key in ("akd", "faces", identity)),
                found["parameters"],
            ]
        )
        text = f"{title(name)}: above, the faces that drive; below, heads that do what they do"
        parts.append(_sheet(folder, how, f"heads_{name}", text))
    names = list(results["generators"][results["generators"].first()]["distances"])
    head = ("generator", *names, "drawn / real", "AKD", "faces found", identity, "parameters")
    caption = "Table 1 of the paper, by other networks: compare only with one another. 95 % intervals"
    return join([table(head, rows, caption), *parts])


def _encoders(results: Record) -> Record:
    if not results["encoders"]:
        raise Missing(results["why_not"])
    return results["encoders"]


def _columns(results: Record) -> dict[str, str]:
    return {**MEASURES, results["protocol"]["identity"]: results["protocol"]["identity"].replace("_", " ")}


def _reenactment(folder: Path, how: Embedding, results: Record) -> Html:
    encoders, columns = _encoders(results), _columns(results)
    columns = {key: column for key, column in columns.items() if key != "psnr_gain"}
    rows = [
        [f"{title(name)}, {words}", *(measured(found[key][c]) if c in found[key] else "–" for c in columns)]
        for key, words in (("same", "own motion"), ("cross", "another's motion"))
        for name, found in encoders.items()
    ]
    text = (
        "For each clip: its frames; the avatar of its first frame doing the same; another person's avatar driven by it"
    )
    caption = "Table 2 of the paper: an avatar of one frame. Gaze: places of the irises apart, widths of an eye"
    moving = "The first clip; the avatar of its first frame; another person's avatar, driven by it"
    clip = attempt(partial(film, folder / "reenactment.mp4", moving, how, "evaluate_avatar"))
    return join([_sheet(folder, how, "reenactment", text), clip, table(("", *columns.values()), rows, caption)])


def _frames(folder: Path, how: Embedding, results: Record) -> Html:
    encoders = {name: found for name, found in _encoders(results).items() if len(found["by_frames"]["ordered"]) > 1}
    if not encoders:
        raise Missing("no avatar was made of more than one frame")
    drawn, series = [], []
    for measure, name in (("psnr", "PSNR, dB"), ("perceptual_mobilenetv2", "perceptual_mobilenetv2"), ("akd", "AKD")):
        series = [
            chart.Line(
                f"{title(method)}, {order}",
                [float(count) for count in entries],
                [_finite(row[measure]["mean"]) for row in entries.values()],
                number,
                order == "unordered",
            )
            for number, (method, found) in enumerate(encoders.items())
            for order, entries in found["by_frames"].items()
            if entries
        ]
        able = [line for line in series if any(y == y for y in line.y)]
        if able:
            drawn.append(tag("figure", chart.lines(name, able, "frames", dots=True)))
    columns = _columns(results)
    rows = [
        [
            f"{title(method)}, {count}{', unordered' if order == 'unordered' else ''}",
            *(measured(row[c]) if c in row else "–" for c in columns),
        ]
        for method, found in encoders.items()
        for order, entries in found["by_frames"].items()
        for count, row in entries.items()
    ]
    text = "A frame that no avatar was made of, the truth first; then avatars of more and more frames"
    caption = "Table 3 and Figures 6 and 12 of the paper, on the last third of held-out clips"
    return join(
        [
            _sheet(folder, how, "frames", text),
            chart.key(series),
            tag("div", *drawn, class_="grid"),
            table(("frames", *columns.values()), rows, caption),
        ]
    )


def _finite(value: float | None) -> float:
    return float("nan") if value is None else value


def _truth(_: Path, how: Embedding, results: Record) -> Html:
    found = {title(name): each["truth"] for name, each in _encoders(results).items()}
    return join(attempt(partial(make, found)) for make in (_unseen, _gains, _units))


def _unseen(found: dict[str, Record]) -> Html:
    caption = "PSNR, dB, of views that no frame showed, over the true head, by the number of frames given"
    return _by_count({name: truth["unseen_psnr"] for name, truth in found.items()}, caption)


def _gains(found: dict[str, Record]) -> Html:
    caption = "What further frames add to the PSNR of the same picture drawn from one frame, dB"
    return _by_count({name: truth["unseen_gain"] for name, truth in found.items()}, caption)


def _by_count(found: dict[str, Record], caption: str) -> Html:
    counts = sorted({count for row in found.values() for count in row}, key=int)
    if not counts:
        raise Missing(f"nothing was measured: {caption[0].lower()}{caption[1:]}")
    rows = [[name, *(measured(row[c]) if c in row else "–" for c in counts)] for name, row in found.items()]
    return table(("frames", *counts), rows, caption)


def _units(found: dict[str, Record]) -> Html:
    keys = ("expression", "expression_floor")
    rows = [[name, *(measured(truth[key]) for key in keys)] for name, truth in found.items()]
    caption = (
        "Mean distance of 52 face units fitted to a drawn picture from the true ones, and the same of true pictures, "
        "below which nothing can be measured"
    )
    return table(("", "expression error", "of true pictures"), rows, caption)


def _reconstruction(_: Path, how: Embedding, results: Record) -> Html:
    identity = results["protocol"]["identity"]
    names = ("psnr", "perceptual_mobilenetv2", identity)
    rows = [
        [title(name), *(measured(found["reconstruction"][key]) for key in names),
         found["reconstruction"]["fd_mobilenetv2"]["value"]]
        for name, found in _encoders(results).items()
    ]  # fmt: skip
    head = ("", "PSNR, dB", "perceptual", identity.replace("_", " "), "fd_mobilenetv2")
    return table(head, rows, "Table 4 of the paper: a picture inverted and drawn as it was")
