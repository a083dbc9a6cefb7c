"""A tiny animatable generator and encoders as published checkpoints, untrained, on the real face model."""

import torch

from models.avatar import AvatarConfig, AvatarGenerator
from models.encoders import LatentConfig, UNetConfig
from models.inversion import InversionConfig, Inverter
from models.irse import BodyConfig
from models.mapping import MappingConfig
from models.parametric.person import load_person
from models.render.volume import RenderConfig
from ops.apply.avatars import load_prior
from ops.apply.inverters import save_inverter
from ops.train import checkpoint
from ops.train.checkpoint import Checkpoint
from tests.ops.train.test_portrait_objective import prior

CONFIG = AvatarConfig(
    resolution=64,
    neural_resolution=16,
    mapping=MappingConfig(z_size=8, w_size=8),
    plane_resolution=64,
    plane_channels=8,
    channel_base=512,
    channel_max=16,
    decoder_channels=8,
    render=RenderConfig(coarse=4, fine=4),
    superresolution_channels=(8, 8),
    superresolution_precision="float32",
)
BODY = BodyConfig(widths=(8, 8, 8, 8, 8), units=(1, 1, 1, 1), squeeze=2)
UNET = UNetConfig(body=BODY, decoder=(8, 8, 8, 8))
INVERSION = InversionConfig(latent=LatentConfig(body=BODY, resolution=64), texture=UNET, triplane=UNET)


def write_priors(folder):
    folder.mkdir(parents=True)
    people = {name: value for name, value in load_person().named_buffers() if name != "mean_identity"}
    prior().save(folder, people, expression_names=load_person().expression_names)


def write_generator(folder, seed=0, variant="avatar", net=None):
    """A checkpoint as training publishes it."""
    torch.manual_seed(seed)
    net = AvatarGenerator(CONFIG) if net is None else net
    with torch.no_grad():
        net.decoder.out.bias[0] += 3  # something to see and to mesh
    folder.mkdir(parents=True)
    record = {"system": "avatar", "variant": variant, "params": {"model": net.config.model_dump(mode="json")}}
    record |= {"data": "none", "step": 0, "images": 0}
    checkpoint.write_into(folder, "config.json", Checkpoint({"generator": dict(net.state_dict())}, record))


def write_encoders(folder, generator, priors, seed=0, fusion="gru"):
    """Encoders with random outputs, so that frames matter."""
    torch.manual_seed(seed)
    found = load_prior(generator, priors)
    inverter = Inverter(found.generator, INVERSION.fused(fusion=fusion))
    with torch.no_grad():
        for encoder in (inverter.latent, inverter.texture, inverter.triplane):
            for weight in encoder.parameters():
                weight.add_(0.05 * torch.randn_like(weight))
    folder.mkdir(parents=True)
    save_inverter(folder, inverter, found.digest, variant="recurrent")


def write_project(root):
    """A project's folder with priors, generator and encoders."""
    write_priors(root / "data/priors")
    write_generator(root / "data/checkpoints/avatar/avatar")
    write_encoders(root / "data/checkpoints/recurrent", root / "data/checkpoints/avatar/avatar", root / "data/priors")
