"""The page: nothing is fetched, what is missing says why, the numbers are those of the files."""

import base64
import csv
import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from ops.report import page, record
from ops.report.__main__ import ReportParams, build, main
from ops.store.pictures import decode

VOID = {"img", "meta", "br"}


class Page(HTMLParser):
    """Elements, text by section, and whether tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.section = ""
        self.text: dict[str, list[str]] = {}
        self.rows: dict[str, list[list[str]]] = {}
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.elements.append((tag, values))
        if tag == "section":
            self.section = values["id"]
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        if tag in ("th", "td") and self.rows.get(self.section):
            self.rows[self.section][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.setdefault(self.section, []).append(data)
        if {"th", "td"} & set(self.open):
            self.rows[self.section][-1][-1] += data

    def said(self, section: str) -> str:
        return " ".join("".join(self.text[section]).split())

    def row(self, section: str, first: str) -> list[str]:
        return next(row for row in self.rows[section] if row[0] == first)


def read(root) -> tuple[Page, str]:
    text = build(root, ReportParams())
    return Page(text), text


@pytest.fixture(scope="module")
def built(whole):
    """The page of the whole project, made once."""
    return read(whole)


def test_the_command_writes_page_and_preview(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    assert main([".", "data/report", "--preview", "data/previews/report.png"]) == 0
    assert (project / "data/report/index.html").read_text().startswith("<!doctype html>")
    assert decode((project / "data/previews/report.png").read_bytes()).shape[2] == 3
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("report: {}\n")
    assert main(["nowhere", "out"]) == 1
    assert not (tmp_path / "out").exists()


def test_nothing_is_fetched_and_no_script_runs(built):
    found, text = built
    pictures = [values for name, values in found.elements if name == "img"]
    assert len(pictures) == 2 + 2 * 2 + 2
    for values in pictures:
        kind, data = values["src"].split(";base64,")
        assert kind in ("data:image/png", "data:image/jpeg")
        image = decode(base64.b64decode(data))
        assert image.shape[:2] == (int(values["height"]), int(values["width"]))
        assert values["alt"]
    for name, values in found.elements:
        assert name not in ("script", "link", "iframe", "object", "embed", "base", "form", "use")
        for key, value in values.items():
            assert not key.startswith("on")
            if key in ("src", "href", "srcset", "data", "xlink:href"):
                assert value.startswith(("data:", "#"))
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "http://" not in text
    assert "https://" not in text


def test_light_dark_phone_and_print(built):
    found, text = built
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in [v for n, v in found.elements]
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert text.startswith('<!doctype html>\n<html lang="en-GB">')


def test_counts_are_those_of_the_tables(built):
    found, _ = built
    assert found.row("counts", "crawl")[1:] == ["10", "8", "2", "exact duplicate 2"]
    assert found.row("counts", "screen")[1:] == ["8", "5", "3", "blurred 2, too small 1"]
    assert found.row("counts", "detect")[1:] == ["–", "–", "–", "not run yet"]
    assert found.row("counts", "shards_faces")[1:] == ["4", "3", "1", "turned too far 1"]
    assert "10" in found.said("summary")
    assert "samples in the shards3" in found.said("summary").replace(" 3", "3")


def test_areas_are_those_of_the_file_beside_the_papers(whole, built):
    found, _ = built
    with (whole / "data/evaluation/giraffe/auc.csv").open() as file:
        rows = {(r["variant"], r["angle"]): r for r in csv.DictReader(file)}
    for angle in ("L60", "L15", "R15", "R60"):
        shown = found.row("verification", angle)
        for column, variant in ((1, "giraffe"), (3, "aamnce")):
            row = rows[variant, angle]
            assert shown[column].startswith(
                f"{float(row['auc']):.3f} [{float(row['low']):.2f}–{float(row['high']):.2f}]"
            )
            assert shown[column].endswith(f"by object {float(row['object_low']):.2f}–{float(row['object_high']):.2f}")
            assert shown[column + 1] == f"{float(row['paper']):.3f}"
    results = json.loads((whole / "data/evaluation/giraffe/auc.json").read_text())
    for variant, title in (("giraffe", "GIRAFFE"), ("aamnce", "AamNCE")):
        mean = f"{results['variants'][variant]['mean_auc']:.3f}"
        assert f"mean AUC, {title}{mean}" in found.said("summary")
        assert mean in found.row("verification", "mean")
    for line in results["differs"]:
        assert line in found.said("verification")
    assert "recogniser plain (cosine)" in found.said("verification")
    assert "6 genuine and 30 impostor pairs" in found.said("verification")


def test_a_warning_stands_first_and_last(project):
    path = project / "data/evaluation/giraffe/auc.json"
    results = json.loads(path.read_text())
    assert results["warnings"] == []
    path.write_text(json.dumps({**results, "warnings": ["AamNCE hardly turns."]}))
    found, _ = read(project)
    for section in ("summary", "verification", "limits"):
        assert "AamNCE hardly turns." in found.said(section)


def test_curves_pass_through_the_files_points(whole, built):
    """The drawn path of a ROC curve, taken back through the axes, is the curve of roc.csv."""
    found, _ = built
    from ops.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH

    with (whole / "data/evaluation/giraffe/roc.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if (r["variant"], r["angle"]) == ("giraffe", "L60")]
    expected = [(float(r["false_accept"]), float(r["true_accept"])) for r in rows]
    paths = [
        v["d"] for n, v in found.elements if n == "path" and v.get("class") == "curve" and v["d"].startswith("M46 214L")
    ]
    drawn = []
    for path in paths:
        places = [tuple(map(float, p.split())) for p in path[1:].split("L")]
        drawn.append(
            [((x - LEFT) / (WIDTH - LEFT - RIGHT), (HEIGHT - BOTTOM - y) / (HEIGHT - TOP - BOTTOM)) for x, y in places]
        )
    assert any(len(d) == len(expected) and np.allclose(d, expected, atol=1e-4) for d in drawn)


def test_what_is_missing_says_why_here_and_among_the_limits(built):
    found, text = built
    assert "InfoNCE has no checkpoint; dvc repro train_giraffe@infonce trains it." in found.said("training")
    assert "InfoNCE: no checkpoint of it." in found.said("verification")
    assert "strips_infonce.png of evaluate_giraffe has not been made" in found.said("views")
    for reason in page.absences(text[: text.index('id="limits"')]):
        assert f"Missing above: {reason}" in found.said("limits")
    assert "InfoNCE is ahead of AamNCE at L60" in found.said("limits")
    assert "Training saw 96 pictures" in found.said("limits")


@pytest.mark.parametrize(
    ("gone", "section", "words"),
    [
        ("data/evaluation", "verification", "auc.json has not been made; dvc repro makes it."),
        ("data/evaluation", "views", "evaluate_giraffe has not run"),
        ("data/evaluation/giraffe/roc.csv", "verification", "roc.csv has not been made."),
        ("data/checkpoints", "training", "nothing has been trained yet"),
        ("data/labels", "cameras", "no picture has a camera label yet"),
        ("data/previews/crawl/mine.png", "sheets", "mine.png of crawl@mine has not been made"),
        ("data/.work", "timings", "not recorded on this machine"),
        ("dvc.lock", "hashes", "dvc.lock records nothing yet"),
        ("metrics/shards_faces.json", "counts", "shards_faces.json has not been made"),
        ("data", "counts", "no step has run yet; dvc repro crawl@mine begins."),
    ],
)
def test_each_missing_input_leaves_the_rest_standing(project, gone, section, words):
    path = project / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    found, _ = read(project)
    assert f"Not available: {words}" in found.said(section) or words in found.said(section)
    assert "Not available: " in found.said(section)
    assert len(found.text) >= 12


@pytest.mark.parametrize(
    ("file", "section"),
    [
        ("data/evaluation/giraffe/auc.json", "verification"),
        ("data/labels/mine/screen.parquet", "counts"),
        ("data/labels/mine/camera.parquet", "cameras"),
        ("data/previews/screen/mine.png", "sheets"),
        ("data/checkpoints/giraffe/aamnce/curves.csv", "training"),
        ("metrics/shards_faces.json", "counts"),
    ],
)
def test_each_damaged_input_is_named(project, file, section):
    (project / file).write_bytes(b"PK\x00damaged,")
    found, _ = read(project)
    assert "Not available: " in found.said(section)
    assert file.rsplit("/", 1)[1] in found.said(section)


def test_an_empty_project_still_gives_a_page(project):
    for name in ("data", "metrics"):
        shutil.rmtree(project / name)
    (project / "dvc.lock").unlink()
    found, _ = read(project)
    assert "Nothing has been evaluated yet." in found.said("summary")
    assert "not a git checkout" in found.said("machine")


def test_the_pages_own_seconds_do_not_count(project, built):
    work = project / "data/.work/report/data-report-abc123"
    work.mkdir(parents=True)
    (work / "timings.json").write_text('{"stage": "report", "seconds": 600.0, "peak_mb": 1.0}')
    assert read(project)[0].rows["timings"] == built[0].rows["timings"]


def test_timings_are_those_recorded(built):
    found, _ = built
    assert found.row("timings", "crawl")[1:] == ["raw-mine", "61.2", "123"]
    assert "1.0 min" in found.said("summary")
    assert "seconds of screen, detect, train_giraffe are not recorded" in found.said("timings")


def test_hashes_and_checkpoints_are_those_recorded(whole, built):
    from ops.ledger import read_lock

    found, _ = built
    assert found.row("hashes", "crawl@mine")[1] == read_lock(whole)["crawl@mine"].version
    assert found.row("training", "AamNCE")[1:] == ["12", "96", "32", "1,234", "feedc0defeed", "abc1234"]


def test_text_from_outside_cannot_become_markup(project):
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("smoke", "<b>bold</b>"))
    found, text = read(project)
    assert "<of each>" in found.said("lineage")
    assert "<b>bold</b>" in found.said("machine")
    assert "&lt;b&gt;bold" in text


def test_no_path_of_this_machine_gets_in(whole, built):
    _, text = built
    assert str(whole) not in text


def test_same_inputs_same_page(whole, built):
    assert build(whole, ReportParams()) == built[1]


def test_large_pictures_shrink_and_stay_themselves(project):
    found = Page(str(page.picture(project / "data/previews/crawl/mine.png", "a", page.Embedding(200, 80), "crawl")))
    (values,) = [v for n, v in found.elements if n == "img"]
    assert values["src"].startswith("data:image/jpeg")
    small = decode(base64.b64decode(values["src"].split(",")[1])).astype(float)
    assert small.shape == (150, 200, 3)
    whole = decode((project / "data/previews/crawl/mine.png").read_bytes()).astype(float)
    halved = whole.reshape(150, 2, 200, 2, 3).mean((1, 3))
    assert np.abs(small - halved).mean() < 25


def test_revision_of_a_checkout(tmp_path):
    import subprocess

    for words in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    clean = record.revision(tmp_path)
    assert len(clean) == 12
    (tmp_path / "a.py").write_text("")
    subprocess.run(["git", "add", "a.py"], cwd=tmp_path, check=True)
    assert record.revision(tmp_path) == f"{clean} with changes not committed"
