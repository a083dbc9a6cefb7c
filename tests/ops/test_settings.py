"""params.yaml as people edit it: profiles, sources, and the comments they wrote."""

import shutil
from pathlib import Path

import pytest

from ops import cli, settings
from ops.apply.talking import ReenactPortraitParams
from ops.crawl.__main__ import CrawlParams
from ops.crawl.sources import load_sources
from ops.curate.align import AlignParams
from ops.curate.balance import BalanceParams
from ops.curate.camera import CameraParams
from ops.curate.detect import DetectParams
from ops.curate.heads import HeadsParams
from ops.curate.landmarks import LandmarksParams
from ops.curate.lessons import LessonsParams
from ops.curate.parse import ParseParams
from ops.curate.screen import ScreenParams
from ops.curate.segment import SegmentParams
from ops.evaluate.avatar import EvaluateAvatarParams
from ops.evaluate.giraffe import EvaluateGiraffeParams
from ops.evaluate.heads import EvaluateHeadsParams
from ops.evaluate.invert_heads import InvertHeadsParams
from ops.evaluate.labels import EvaluateLabelsParams
from ops.evaluate.portrait import EvaluatePortraitParams
from ops.evaluate.tables import EvaluateProtocolsParams
from ops.fit.body import FitBodyParams
from ops.fit.clips import TrackClipsParams
from ops.fit.face import FitFaceParams
from ops.fit.priors import PriorsParams
from ops.report.__main__ import ReportParams
from ops.report.datasheet import DatasheetParams
from ops.runtime.errors import LineamentError
from ops.runtime.params import load_params, read_yaml
from ops.shards.clips import ClipShardsParams
from ops.shards.faces import FaceShardsParams
from ops.shards.heads import HeadShardsParams
from ops.shards.portraits import PortraitShardsParams
from ops.train.avatar import TrainAvatarParams
from ops.train.coefficients import TrainCoefficientsParams
from ops.train.giraffe import TrainGiraffeParams
from ops.train.headpose import TrainHeadposeParams
from ops.train.heads import TrainHeadsParams
from ops.train.image_encoders import TrainImageEncodersParams
from ops.train.latent_encoder import TrainLatentEncoderParams
from ops.train.parser import TrainParserParams
from ops.train.portrait import TrainPortraitParams
from ops.train.portrait_superresolution import TrainPortraitSuperresolutionParams
from ops.train.recurrent import TrainRecurrentParams
from ops.weights import WeightsParams

ROOT = Path(__file__).parents[2]
STAGES = {
    "weights": WeightsParams,
    "crawl": CrawlParams,
    "screen": ScreenParams,
    "datasheet": DatasheetParams,
    "detect": DetectParams,
    "landmarks": LandmarksParams,
    "align": AlignParams,
    "camera": CameraParams,
    "segment": SegmentParams,
    "fit_face": FitFaceParams,
    "track_clips": TrackClipsParams,
    "lessons": LessonsParams,
    "train_headpose": TrainHeadposeParams,
    "train_parser": TrainParserParams,
    "train_coefficients": TrainCoefficientsParams,
    "heads": HeadsParams,
    "parse": ParseParams,
    "balance": BalanceParams,
    "fit_body": FitBodyParams,
    "priors": PriorsParams,
    "shards_faces": FaceShardsParams,
    "shards_heads": HeadShardsParams,
    "shards_clips": ClipShardsParams,
    "train_giraffe": TrainGiraffeParams,
    "train_heads": TrainHeadsParams,
    "shards_portraits": PortraitShardsParams,
    "train_portrait": TrainPortraitParams,
    "train_portrait_superresolution": TrainPortraitSuperresolutionParams,
    "train_avatar": TrainAvatarParams,
    "train_latent_encoder": TrainLatentEncoderParams,
    "train_image_encoders": TrainImageEncodersParams,
    "train_recurrent": TrainRecurrentParams,
    "evaluate_giraffe": EvaluateGiraffeParams,
    "evaluate_heads": EvaluateHeadsParams,
    "invert_heads": InvertHeadsParams,
    "evaluate_avatar": EvaluateAvatarParams,
    "evaluate_portrait": EvaluatePortraitParams,
    "reenact_portrait": ReenactPortraitParams,
    "evaluate_labels": EvaluateLabelsParams,
    "evaluate_protocols": EvaluateProtocolsParams,
    "report": ReportParams,
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    return tmp_path


def test_params_hold_the_smoke_profile(project):
    params, smoke = read_yaml(Path("params.yaml")), read_yaml(Path("profiles/smoke.yaml"))
    assert params["profile"] == "smoke"
    assert {name: params[name] for name in smoke} == smoke
    assert set(params) - set(smoke) <= set(settings.NOT_A_STAGE)


@pytest.mark.parametrize("name", ["smoke", "gpu", "paper"])
def test_every_profile_has_valid_values_for_every_stage(project, name):
    settings.use_profile(name)
    assert set(read_yaml(Path("profiles") / f"{name}.yaml")) == set(STAGES)
    for section, cls in STAGES.items():
        load_params(cls, section)
    assert "studio" in load_sources()


@pytest.mark.parametrize("name", ["smoke", "gpu", "paper"])
def test_every_profile_has_all_that_the_lineage_reads(project, name):
    """DVC stops at a parameter that params.yaml lacks, whatever the code's default."""
    settings.use_profile(name)
    values = read_yaml(Path("params.yaml"))
    read = [
        (stage, key)
        for stage, entry in read_yaml(ROOT / "dvc.yaml")["stages"].items()
        for key in entry.get("do", entry).get("params", [])
        if "${" not in key
    ]
    assert ("train_recurrent", "train_recurrent.fusion") in read
    for stage, key in read:
        found = values
        for part in key.split("."):
            assert part in found, f"{stage} reads {key}, which profile {name} does not set"
            found = found[part]


def test_a_profile_leaves_sources_and_comments_alone(project):
    settings.add_source("mine", {"kind": "folder", "path": "photos", "licence": "private"})
    comment = Path("params.yaml").read_text().splitlines()[0]
    settings.use_profile("gpu")
    settings.use_profile("smoke")
    assert Path("params.yaml").read_text().splitlines()[0] == comment
    assert load_sources()["mine"].licence == "private"
    assert read_yaml(Path("params.yaml"))["screen"] == read_yaml(Path("profiles/smoke.yaml"))["screen"]


def test_sources_by_the_command_line(project, capsys):
    assert cli.main(["source", "add", "mine", "--folder", "photos", "--licence", "CC0"]) == 0
    assert cli.main(["source", "list"]) == 0
    assert "mine" in capsys.readouterr().out
    assert cli.main(["source", "remove", "mine"]) == 0
    assert list(load_sources()) == ["studio"]


def test_every_kind_of_source_by_the_command_line(project):
    Path("list.csv").write_text("url\n")
    for kind, path in (("urls", "list.csv"), ("search", "list.csv"), ("video", "photos")):
        assert cli.main(["source", "add", kind, f"--{kind}", path, "--refresh", "0 3 * * *"]) == 0
    assert cli.main(["source", "add", "faces", "--dataset", "photos", "--layout", "ffhq"]) == 0
    kinds = {name: source.kind for name, source in load_sources().items()}
    assert kinds == {"studio": "studio", "urls": "urls", "search": "search", "video": "video", "faces": "dataset"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["source", "add", "mine", "--dataset", "photos"], "layout: is missing"),
        (["source", "add", "mine", "--folder", "photos", "--refresh", "every day"], "no cron line"),
        (["source", "add", "mine", "--urls", "nowhere.csv"], "no such file"),
        (["source", "add", "mine", "--urls", "photos"], "no such file"),
        (["source", "add", "mine", "--folder", "nowhere"], "no such folder"),
        (["source", "add", "My Photos", "--folder", "photos"], "cannot be a source's name"),
        (["source", "add", "studio", "--folder", "photos"], "declared already"),
        (["source", "remove", "none"], "no source 'none'"),
        (["source", "remove", "studio"], "last source"),
        (["profile", "use", "huge"], "no profile 'huge'"),
    ],
)
def test_wrong_words_are_explained_and_change_nothing(project, capsys, words, message):
    before = Path("params.yaml").read_bytes()
    assert cli.main(words) == 1
    assert message in capsys.readouterr().err
    assert Path("params.yaml").read_bytes() == before


def test_an_unknown_kind_is_named(project):
    Path("params.yaml").write_text("sources: {x: {kind: flickr}}")
    with pytest.raises(LineamentError, match="folder, studio"):
        load_sources()
