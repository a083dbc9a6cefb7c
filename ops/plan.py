"""``lineament plan``: the networks of all systems as a profile declares them, built on the meta device.

Nothing is computed and no memory is taken: parameters are counted, and one picture goes through as shapes alone, which
tells the operations and what autograd would keep for the backward pass. Published counts stand beside them where the
profile declares the published network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.avatar import AvatarConfig, SurfaceMap
from models.discriminators import Discriminator, Shown
from models.encoders import LatentConfig, LatentEncoder, TextureEncoder, TriplaneEncoder, UNetConfig
from models.features import LightCNN29
from models.giraffe import Generator as Giraffe
from models.giraffe import GiraffeConfig
from models.giraffe_discriminator import Discriminator as GiraffeDiscriminator
from models.next3d import Next3DConfig, Views
from models.portrait import PortraitConfig, PortraitGenerator
from models.portrait_discriminators import CoordDiscriminator
from models.portrait_discriminators import DiscriminatorConfig as CoordConfig
from models.portrait_fields import RadianceConfig
from models.spherehead import HeadConfig, HeadGenerator
from ops.runtime.params import load_params
from ops.train.avatar import TrainAvatarParams
from ops.train.giraffe import TrainGiraffeParams
from ops.train.heads import TrainHeadsParams
from ops.train.objectives.avatar import check_variant, generator_of
from ops.train.objectives.avatar import model_of as avatar_model
from ops.train.objectives.heads import HeadVariant, model_of
from ops.train.settings import TrainerParams

SPEED = 12.5  # TFLOP/s a device: what EG3D's and SphereHead's published 24 s/kimg on eight devices come to
DEVICES = 8  # EG3D and SphereHead

# Parameters of the public networks: NVlabs/eg3d 7cf1fd1, SizheAn/PanoHead 17ad915, lhyfst/SphereHead 7b39501,
# autonomousvision/giraffe fc8d450, microsoft/GRAM 5a5ac8e, YueWuHKUST/AniPortraitGAN 5783d53, MrTornado24/Next3D
# a99dc06, XChenZ/invertAvatar 2e71361, AlfredXiangWu/LightCNN 7b38a6f.
PUBLISHED: dict[str, tuple[int | None, int | None]] = {
    "EG3D": (30_662_136, 31_359_744),
    "PanoHead": (53_741_548, 31_359_808),
    "SphereHead": (54_730_944, 31_361_088),
    "GIRAFFE": (748_497, 2_802_432),
    "GRAM": (1_950_621, 12_391_827),
    "AniPortraitGAN": (5_570_696, None),
    "InvertAvatar": (88_301_010, 31_359_552),
    "Next3D": (172_815_807, None),
}
ENCODERS = {"E_latent": 209_450_688, "E_tex, GRU": 68_518_304, "E_tri, GRU": 82_784_960}
LIGHTCNN = 12_573_280
# What was published on training: EG3D's supplement; nvlabs/eg3d issue 107; SphereHead Sec. 5.1, computed.
TRAINING = {
    "EG3D": "24 s/kimg on 8 V100; 8.7 GB a device that holds 4 pictures",
    "SphereHead": "24.2 s/kimg, 7 days, on 8 A100",
    "InvertAvatar": "2 days at 64² rays and 2 days at 128², batch 16, on 4 RTX 3090, from EG3D's weights",
}


@dataclass(frozen=True)
class Network:
    """One network: how many parameters it has, how many the public one has, and why they differ if they do."""

    system: str
    name: str
    parameters: int
    published: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Cost:
    """What a picture costs: operations and kept activations of generator and discriminator, forward.

    Attributes:
        planes: the representation in words.
        operations: FLOP, generator and discriminator; kept: bytes.
        weights: parameters of both.
    """

    system: str
    planes: str
    trainer: TrainerParams
    operations: tuple[float, float]
    kept: tuple[float, float]
    weights: tuple[int, int]
    published: str | None = None

    @property
    def operations_a_picture(self) -> float:
        """FLOP of training on one picture.

        The generator's update runs both networks forward and backward, three times a forward pass; the
        discriminator's runs the generator forward, and itself on a real and a generated picture. R1, every 16th
        step, is about six passes more.
        """
        g, d = self.operations
        return 3 * (g + d) + g + 3 * 2 * d + 6 / 16 * d

    @property
    def state(self) -> int:
        """Bytes of weights, gradients, Adam's two moments and, of the generator, the average; all float32."""
        return 4 * (4 * sum(self.weights) + self.weights[0])

    def activations(self, devices: int) -> float:
        """Bytes kept at once on a device: the whole generator's update of its share of a batch."""
        share = self.trainer.micro_batch or max(1, self.trainer.batch // devices)
        return sum(self.kept) * share


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _measure(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """FLOP of a call, bytes autograd keeps of it, and its result."""
    kept: dict[int, Any] = {}  # by address: a storage counts once, and stays, so that none takes its address

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = call()
    return float(counter.get_total_flops()), float(sum(storage.nbytes() for storage in kept.values())), result


def plan(profile: Path) -> list[Network | Cost]:
    """The networks of a profile and what training them costs, system by system.

    Raises:
        LineamentError: the profile cannot be read.
    """
    giraffe = load_params(TrainGiraffeParams, "train_giraffe", profile)
    heads = load_params(TrainHeadsParams, "train_heads", profile)
    avatars = load_params(TrainAvatarParams, "train_avatar", profile)
    with torch.device("meta"):
        features = Network("evaluation", "LightCNN-29", _count(LightCNN29()), LIGHTCNN)
        return [*_giraffe(giraffe), *_heads(heads), *_portraits(), *_avatars(avatars), features]


def _heads(params: TrainHeadsParams) -> Iterator[Network | Cost]:
    known = {"eg3d": "EG3D", "panohead": "PanoHead", "spherehead": "SphereHead"}
    for name in params.variants:
        variant = HeadVariant.parse(name)
        config = model_of(params.model, variant)
        system = known.get(name, name)
        as_published = config == HeadConfig(variant=variant.base, parsing=variant.parsing)
        counts = PUBLISHED[system] if as_published and name in known else (None, None)
        generator = HeadGenerator(config)
        judge = Discriminator(config.discriminator(**params.discriminator.model_dump()))
        yield Network(system, "generator", _count(generator), counts[0])
        yield Network(system, "discriminator", _count(judge), counts[1])
        z, label = torch.zeros(1, config.mapping.z_size), torch.zeros(1, config.label_size)
        *made, out = _measure(partial(generator, z, label))
        stack = Shown(out.image, out.raw, out.mask, out.parsing).stack().detach()
        *judged, _ = _measure(partial(judge, stack, label))
        planes = config.planes
        yield Cost(
            system,
            f"{planes.planes} planes of {planes.channels} x {config.plane_resolution}², {config.neural_resolution}² "
            f"rays of {config.render.coarse} + {config.render.fine} samples, {config.resolution}² pixels",
            params.trainer,
            (made[0], judged[0]),
            (made[1], judged[1]),
            (_count(generator), _count(judge)),
            TRAINING.get(system) if as_published else None,
        )


def _giraffe(params: TrainGiraffeParams) -> Iterator[Network]:
    config = params.model
    counts = PUBLISHED["GIRAFFE"] if config == GiraffeConfig() else (None, None)
    generator, judge = Giraffe(config), GiraffeDiscriminator(config)
    yield Network("GIRAFFE", "generator", _count(generator), counts[0])
    yield Network("GIRAFFE", "discriminator", _count(judge), counts[1])


def _portraits() -> Iterator[Network]:
    gram = PortraitGenerator(PortraitConfig(identity=0, noise=256, radiance=RadianceConfig(features=0)))
    counts = PUBLISHED["GRAM"]
    yield Network("GRAM", "generator", _count(gram.radiance) + _count(gram.manifolds), counts[0])
    yield Network("GRAM", "discriminator", _count(CoordDiscriminator(CoordConfig(angles=2), 256, 256)), counts[1])
    portrait = PortraitGenerator(PortraitConfig(), upsample=True)
    note = "the public one has 1,028 weights that read zeros or that nobody reads, and 3,240 for constant rows"
    yield Network("AniPortraitGAN", "generator", _count(portrait), PUBLISHED["AniPortraitGAN"][0], note)


def _avatars(params: TrainAvatarParams) -> Iterator[Network | Cost]:
    for name in params.variants:
        variant = check_variant(name)
        config = avatar_model(params.model, params.next3d, variant)
        yield from _avatar(params, config, {"avatar": "InvertAvatar", "next3d": "Next3D"}[variant])
    release, system = AvatarConfig(layout="release"), "InvertAvatar"
    gru, note = UNetConfig(fusion="gru"), "the public decoder has its last activation, 1,248 weights, twice"
    yield Network(system, "E_latent", _count(LatentEncoder(LatentConfig())), ENCODERS["E_latent"])
    texture = TextureEncoder(release.texture_channels, gru)
    yield Network(system, "E_tex, GRU", _count(texture), ENCODERS["E_tex, GRU"], note)
    yield Network(system, "E_tri, GRU", _count(TriplaneEncoder(release.backbone, gru)), ENCODERS["E_tri, GRU"], note)


def _avatar(params: TrainAvatarParams, config: AvatarConfig, system: str) -> Iterator[Network | Cost]:
    """A trained variant; beside the published ones, the layout with the parts that nothing reads."""
    next3d = isinstance(config, Next3DConfig)
    generator = generator_of(config)
    shown = {**params.discriminator.model_dump(), "image_channels": 9 if next3d else 7}
    judge = Discriminator(config.discriminator(**shown))
    if config in (AvatarConfig(), Next3DConfig()):
        release = generator_of(config.model_copy(update={"layout": "release"}))
        yield Network(system, "generator", _count(release), PUBLISHED[system][0])
        yield Network(system, "generator, lean", _count(generator), None, "without the parts that nothing reads")
        note = "" if next3d else "the public one is shown 3 channels; section 3.2 has 7, with the landmarks' contours"
        yield Network(system, "discriminator", _count(judge), None if next3d else PUBLISHED[system][1], note)
    else:
        yield Network(system, "generator", _count(generator), None)
        yield Network(system, "discriminator", _count(judge), None)
    side, rays = config.plane_resolution, config.neural_resolution
    surface = SurfaceMap(torch.zeros(1, side, side, 2), torch.zeros(1, 1, side, side))
    pose = Views(surface, surface, surface, surface, torch.zeros(1, 4)) if next3d else surface
    z, label = torch.zeros(1, config.mapping.z_size), torch.zeros(1, config.label_size)
    *made, _ = _measure(partial(generator, z, label, pose))
    stack = torch.zeros(1, shown["image_channels"], config.resolution, config.resolution)
    *judged, _ = _measure(partial(judge, stack, label))
    yield Cost(
        system,
        f"3 planes of {config.plane_channels} x {side}², {rays}² rays of {config.render.coarse} + "
        f"{config.render.fine} samples, {config.resolution}² pixels",
        params.trainer,
        (made[0], judged[0]),
        (made[1], judged[1]),
        (_count(generator), _count(judge)),
        TRAINING.get(system) if config == AvatarConfig() else None,
    )


def table(profile: Path, devices: int = DEVICES, speed: float = SPEED) -> str:
    """The plan as text.

    Args:
        profile: a YAML file with the stages' sections.
        devices: that share a batch.
        speed: sustained TFLOP/s of a device.
    """
    lines = plan(profile)
    networks = [line for line in lines if isinstance(line, Network)]
    costs = [line for line in lines if isinstance(line, Cost)]
    rows = [f"{'system':16} {'network':16} {'parameters':>12} {'published':>12}"]
    for n in networks:
        published = "-" if n.published is None else f"{n.published:,}"
        mark = "" if n.published is None else "  equal" if n.published == n.parameters else "  differs"
        rows.append(
            f"{n.system:16} {n.name:16} {n.parameters:12,} {published:>12}{mark}{f' ({n.note})' * bool(n.note)}"
        )
    rows += [
        "",
        f"Training, on {devices} devices at {speed:g} TFLOP/s each (estimates from shapes; published times beside)",
    ]
    for c in costs:
        t = c.trainer
        seconds = c.operations_a_picture * 1000 / (devices * speed * 1e12)
        rows += [
            f"{c.system}: {c.planes}",
            f"  a picture: {c.operations[0] / 1e9:.0f} + {c.operations[1] / 1e9:.0f} GFLOP forward (generator + "
            f"discriminator), {sum(c.kept) / 1e9:.2f} GB kept for the backward pass",
            f"  {t.images:,} pictures in {t.steps:,} steps of {t.batch}; a device holds {c.state / 1e9:.2f} GB of "
            f"weights and moments and {c.activations(devices) / 1e9:.1f} GB of activations",
            f"  {seconds:.1f} s/kimg, {seconds * t.images / 1000 / 86400:.1f} days"
            + (f"; published: {c.published}" if c.published else ""),
        ]
    return "\n".join(rows)
