"""The pages: nothing is fetched, what is missing says why, the numbers are those of the files."""

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


class Parsed(HTMLParser):
    """One page: elements, text by section, and whether tags are closed in order."""

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


class Site:
    """All pages of a project, by file name."""

    def __init__(self, root) -> None:
        self.texts = build(root, ReportParams())
        self.pages = {name: Parsed(text) for name, text in self.texts.items()}

    def __getitem__(self, name: str) -> Parsed:
        return self.pages[f"{name}.html"]

    @property
    def elements(self) -> list[tuple[str, dict[str, str]]]:
        return [element for found in self.pages.values() for element in found.elements]


@pytest.fixture(scope="module")
def built(whole):
    """The pages of the whole project, made once."""
    return Site(whole)


def test_the_command_writes_page_and_preview(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    assert main([".", "data/report", "--preview", "data/previews/report.png"]) == 0
    assert {path.name for path in (project / "data/report").iterdir()} == {"index.html", "data.html", "giraffe.html"}
    for path in (project / "data/report").iterdir():
        assert path.read_text().startswith("<!doctype html>")
    assert decode((project / "data/previews/report.png").read_bytes()).shape[2] == 3
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("report: {}\n")
    assert main(["nowhere", "out"]) == 1
    assert not (tmp_path / "out").exists()


def test_nothing_is_fetched_and_no_script_runs(built):
    pictures = [values for name, values in built.elements if name == "img"]
    assert len(pictures) == 2 + 2 * 2 + 2
    for values in pictures:
        kind, data = values["src"].split(";base64,")
        assert kind in ("data:image/png", "data:image/jpeg")
        image = decode(base64.b64decode(data))
        assert image.shape[:2] == (int(values["height"]), int(values["width"]))
        assert values["alt"]
    for name, values in built.elements:
        assert name not in ("script", "link", "iframe", "object", "embed", "base", "form", "use")
        for key, value in values.items():
            assert not key.startswith("on")
            if key in ("src", "href", "srcset", "data", "xlink:href"):
                assert value.startswith(("data:", "#")) or (name == "a" and value in built.texts)
    for text in built.texts.values():
        style = text[text.index("<style>") : text.index("</style>")]
        assert "url(" not in style
        assert "@import" not in style
        assert "http://" not in text
        assert "https://" not in text


def test_every_page_leads_to_every_other_and_to_its_own_sections(built):
    for name, found in built.pages.items():
        links = [values for tag, values in found.elements if tag == "a"]
        assert list(dict.fromkeys(v["href"] for v in links if v["href"][0] != "#")) == list(built.texts)
        assert [v["href"] for v in links if v.get("aria-current") == "page"] == [name]
        sections = [values["id"] for tag, values in found.elements if tag == "section"]
        assert [v["href"] for v in links if v["href"][0] == "#"] == [f"#{anchor}" for anchor in sections]
        assert len(set(sections)) == len(sections)


def test_a_page_without_content_is_not_written_and_the_entry_says_why(built):
    assert "portrait.html" not in built.texts
    said = built["index"].said("summary")
    assert "Portraits has no page: nothing has been trained yet; dvc repro train_portrait does." in said
    assert "Heads has no page: nothing has been trained yet; dvc repro train_heads does." in said
    assert "Labels has no page: the labels have not been compared with the truth" in said
    assert "tables has no page: evaluate_protocols has not run" in said


def test_a_checkpoint_of_another_system_gets_curves_and_grids_the_same_way(project):
    shutil.copytree(project / "data/checkpoints/giraffe/aamnce", project / "data/checkpoints/portrait/no_torso")
    site = Site(project)
    found = site["portrait"]
    assert found.row("training", "no torso")[1:] == site["giraffe"].row("training", "AamNCE")[1:]
    assert len([v for n, v in found.elements if n == "img"]) == 2
    assert "variants trained1 of 1" in found.said("summary")
    assert "portraits have not been evaluated; dvc repro evaluate_portrait does" in found.said("control")
    assert "Portraits: missing: portraits have not been evaluated" in site["index"].said("limits")


def test_light_dark_phone_and_print(built):
    for name, text in built.texts.items():
        viewport = {"name": "viewport", "content": "width=device-width, initial-scale=1"}
        assert viewport in [v for _, v in built.pages[name].elements]
        assert "prefers-color-scheme: dark" in text
        assert "@media print" in text
        assert text.startswith('<!doctype html>\n<html lang="en-GB">')


def test_counts_are_those_of_the_tables(built):
    found = built["data"]
    assert found.row("counts", "crawl")[1:] == ["10", "8", "2", "exact duplicate 2"]
    assert found.row("counts", "screen")[1:] == ["8", "5", "3", "blurred 2, too small 1"]
    assert found.row("counts", "detect")[1:] == ["–", "–", "–", "not run yet"]
    assert found.row("counts", "shards_faces")[1:] == ["4", "3", "1", "turned too far 1"]
    for shown in (found, built["index"]):
        assert "sourcesminefiles crawled10samples, faces shards3" in shown.said("summary")


def test_areas_are_those_of_the_file_beside_the_papers(whole, built):
    found = built["giraffe"]
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
        assert f"mean AUC, {title}{mean}" in built["index"].said("summary")
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
    site = Site(project)
    for name, section in (("index", "summary"), ("index", "limits"), ("giraffe", "summary"), ("giraffe", "limits")):
        assert "AamNCE hardly turns." in site[name].said(section)
    assert "AamNCE hardly turns." in site["giraffe"].said("verification")


def test_curves_pass_through_the_files_points(whole, built):
    """The drawn path of a ROC curve, taken back through the axes, is the curve of roc.csv."""
    found = built["giraffe"]
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
    found, text = built["giraffe"], built.texts["giraffe.html"]
    assert "InfoNCE has no checkpoint; dvc repro train_giraffe@infonce trains it." in found.said("training")
    assert "InfoNCE: no checkpoint of it." in found.said("verification")
    assert "strips_infonce.png of evaluate_giraffe has not been made" in found.said("views")
    reasons = page.absences(text[: text.index('id="limits"')])
    assert reasons
    for reason in reasons:
        assert f"Missing above: {reason}" in found.said("limits")
        assert f"GIRAFFE: missing: {reason}" in built["index"].said("limits")
    assert "InfoNCE is ahead of AamNCE at L60" in found.said("limits")
    assert "Training saw 96 pictures" in found.said("limits")


@pytest.mark.parametrize(
    ("gone", "section", "words"),
    [
        ("data/evaluation", "verification", "auc.json has not been made; dvc repro makes it."),
        ("data/evaluation", "views", "evaluate_giraffe has not run"),
        ("data/evaluation/giraffe/roc.csv", "verification", "roc.csv has not been made."),
        ("data/checkpoints", "training", "nothing has been trained yet; dvc repro train_giraffe does"),
        ("data/labels", "cameras", "no picture has a camera label yet"),
        ("data/previews/crawl/mine.png", "sheets", "mine.png of crawl@mine has not been made"),
        ("data/.work", "timings", "not recorded on this machine"),
        ("dvc.lock", "hashes", "dvc.lock records nothing yet"),
        ("metrics/shards_faces.json", "counts", "no shards have been made; dvc repro shards_faces makes"),
    ],
)
def test_each_missing_input_leaves_the_rest_standing(project, gone, section, words):
    path = project / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    site = Site(project)
    said = [found.said(section) for found in site.pages.values() if section in found.text]
    assert any(f"Not available: {words}" in text for text in said)
    assert list(site.texts) == ["index.html", "data.html", "giraffe.html"]


@pytest.mark.parametrize(
    ("file", "section"),
    [
        ("data/evaluation/giraffe/auc.json", "verification"),
        ("data/labels/mine/screen.parquet", "counts"),
        ("data/labels/mine/camera.parquet", "cameras"),
        ("data/previews/screen/mine.png", "sheets"),
        ("data/checkpoints/giraffe/aamnce/curves.csv", "training"),
        ("data/checkpoints/giraffe/aamnce/config.json", "training"),
        ("metrics/shards_faces.json", "counts"),
    ],
)
def test_each_damaged_input_is_named(project, file, section):
    (project / file).write_bytes(b"PK\x00damaged,")
    (said,) = [found.said(section) for found in Site(project).pages.values() if section in found.text]
    assert "Not available: " in said
    assert file.rsplit("/", 1)[1] in said


def test_an_empty_project_still_gives_a_page(project):
    for name in ("data", "metrics"):
        shutil.rmtree(project / name)
    (project / "dvc.lock").unlink()
    site = Site(project)
    assert list(site.texts) == ["index.html"]
    assert "Data set has no page: no step has run yet; dvc repro crawl@mine begins." in site["index"].said("summary")
    assert "GIRAFFE has no page: nothing has been trained yet" in site["index"].said("summary")
    assert "not a git checkout" in site["index"].said("machine")


def test_the_pages_own_seconds_do_not_count(project, built):
    work = project / "data/.work/report/data-report-abc123"
    work.mkdir(parents=True)
    (work / "timings.json").write_text('{"stage": "report", "seconds": 600.0, "peak_mb": 1.0}')
    assert Site(project)["index"].rows["timings"] == built["index"].rows["timings"]


def test_timings_are_those_recorded(built):
    found = built["index"]
    assert found.row("timings", "crawl")[1:] == ["raw-mine", "61.2", "123"]
    assert "1.0 minutes" in found.said("summary")
    assert "seconds of screen, detect, train_giraffe are not recorded" in found.said("timings")


def test_hashes_and_checkpoints_are_those_recorded(whole, built):
    from ops.ledger import read_lock

    assert built["index"].row("hashes", "crawl@mine")[1] == read_lock(whole)["crawl@mine"].version
    assert built["giraffe"].row("training", "AamNCE")[1:] == ["12", "96", "32", "1,234", "feedc0defeed", "abc1234"]


def test_text_from_outside_cannot_become_markup(project):
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("smoke", "<b>bold</b>"))
    site = Site(project)
    found, text = site["index"], site.texts["index.html"]
    assert "<of each>" in found.said("lineage")
    assert "<b>bold</b>" in found.said("machine")
    assert "&lt;b&gt;bold" in text


def test_no_path_of_this_machine_gets_in(whole, built):
    for text in built.texts.values():
        assert str(whole) not in text


def test_same_inputs_same_pages(whole, built):
    assert build(whole, ReportParams()) == built.texts


def test_large_pictures_shrink_and_stay_themselves(project):
    found = Parsed(str(page.picture(project / "data/previews/crawl/mine.png", "a", page.Embedding(200, 80), "crawl")))
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
