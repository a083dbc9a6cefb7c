"""InvertAvatar's incremental inversion (section 3.3 and 3.4): frames of a person to an avatar that a mesh moves.

The first frame gives a style (E_latent) and with it the prior's textures and static tri-plane: a coarse avatar. Every
frame, the first one too, is compared with the coarse avatar in the same pose; picture and difference, unwrapped to the
chart for E_tex and as they are for E_tri, say how the canonical features should change. What the decoders remember has
one size however many frames there were, and can be read out after any of them::

    state = inverter.start(first)
    for frame in frames:
        state = inverter.add(state, frame)
        avatar = inverter.canonical(state)      # better with every frame
        picture = inverter.render(avatar, surface, label).image

The prior stays as it is. Untrained encoders change nothing: the avatar is then what the prior makes of the style.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from models import fir
from models.avatar import AvatarGenerator, AvatarOutput, Features, SurfaceMap
from models.avatar_mesh import AvatarMesh
from models.config import Config
from models.encoders import LatentConfig, LatentEncoder, Memories, TextureEncoder, TriplaneEncoder, UNet, UNetConfig
from models.irse import BodyFeatures

Unwrap = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Pictures (N, C, H, H) of a posed face to (N, C, S, S) textures over its chart and (N, 1, S, S) visibility."""


class InversionConfig(Config):
    """The three encoders. The styles' number and length are the prior's, whatever ``latent`` says."""

    latent: LatentConfig = LatentConfig()
    texture: UNetConfig = UNetConfig()
    triplane: UNetConfig = UNetConfig()
    # Baselines of the paper's table 4: plain offsets of the tri-plane; posed pictures for E_tex, not unwrapped ones.
    planes: Literal["transforms", "offsets"] = "transforms"
    texture_input: Literal["unwrapped", "posed"] = "unwrapped"
    # Public code: of frames after the first, E_tri sees the head alone (their mask), and must remember the background.
    later_frames: Literal["head", "whole"] = "head"
    # What frames after the first are compared with: the coarse avatar's final picture, as the first one is (public
    # code), or what was rendered before super-resolution, which costs a third of it; unpublished: our choice.
    later_residual: Literal["image", "raw"] = "image"
    # Public code: one or two frames are shown to the recurrent decoders again until they have seen four.
    few: int = 2
    enough: int = 4

    def fused(self, **update: object) -> InversionConfig:
        """The same with another fusion in both decoders, e.g. ``fusion="gru"``."""
        texture, triplane = (unet.model_copy(update=update) for unet in (self.texture, self.triplane))
        return self.model_copy(update={"texture": texture, "triplane": triplane})


class Frame(NamedTuple):
    """A picture of a person and what is known of it.

    image: (N, 3, R, R) in [-1, 1], R the prior's resolution. label: (N, 25) camera in the head's frame. surface: the
    posed mesh. unwrap: brings pictures of this pose to the chart, at the prior's plane resolution S. mask: (N, 1, R, R)
    in [0, 1], the head, for frames after the first; None where the whole picture may be seen.
    """

    image: Tensor
    label: Tensor
    surface: SurfaceMap
    unwrap: Unwrap
    mask: Tensor | None = None


def posed_frame(
    mesh: AvatarMesh, image: Tensor, identity: Tensor, expression: Tensor, label: Tensor, mask: Tensor | None = None
) -> Frame:
    """Pictures (N, 3, R, R) and what was fitted to them: codes of the mesh, and cameras (N, 25) in the head's frame."""

    def unwrap(picture: Tensor) -> tuple[Tensor, Tensor]:
        return mesh.unwrap(picture, identity, expression, label, mesh.config.plane_resolution)

    return Frame(image, label, mesh.surface(identity, expression), unwrap, mask)


class Canonical(NamedTuple):
    """An avatar: ws (N, w_count, w_size), textures and static features as :mod:`models.avatar` has them."""

    ws: Tensor
    textures: tuple[Tensor, ...]
    static: Features


class Stream(NamedTuple):
    """What a decoder keeps of the frames so far.

    memory: of the fusions. window: frames of a fusion's window that is not full yet. first: the first frames, while
    they are so few that they are shown again. features: the decoder's last output. frames: how many were seen.
    """

    memory: Memories | None = None
    window: tuple[BodyFeatures, ...] = ()
    first: tuple[BodyFeatures, ...] = ()
    features: tuple[Tensor, ...] = ()
    frames: int = 0


class State(NamedTuple):
    """An inversion under way: the coarse avatar of the first frame, and what each decoder has seen."""

    coarse: Canonical
    texture: Stream
    triplane: Stream

    @property
    def frames(self) -> int:
        """Frames seen."""
        return self.texture.frames


class Inverter(nn.Module):
    """A frozen prior and its three encoders, see the module's text.

    Args:
        prior: the generator; it gets no gradients and stays in evaluation mode.
        config: of the encoders. Without a fusion, features of further frames are averaged (a baseline).

    Attributes:
        latent, texture, triplane: the encoders, to be trained and saved apart.
    """

    def __init__(self, prior: AvatarGenerator, config: InversionConfig):
        super().__init__()
        self.config, self.prior = config, prior.requires_grad_(False).eval()
        channels = prior.config.plane_channels
        styles = {"styles": prior.w_count, "w_size": prior.config.mapping.w_size}
        self.latent = LatentEncoder(config.latent.model_copy(update=styles))
        inputs = 7 if config.texture_input == "unwrapped" else 6
        self.texture = TextureEncoder(prior.config.texture_channels, config.texture, inputs)
        offsets = 3 * channels if config.planes == "offsets" else 0
        self.triplane = TriplaneEncoder(prior.config.backbone, config.triplane, offsets)

    def train(self, mode: bool = True) -> Self:
        """As of any module; the prior never trains."""
        super().train(mode)
        self.prior.eval()
        return self

    def having(self, **encoders: nn.Module) -> Inverter:
        """The same prior with other encoders of the same shapes, e.g. averaged ones."""
        other = copy(self)
        other._modules = {**self._modules, **encoders}
        return other

    # --- the coarse avatar ---

    def styles(self, image: Tensor, enabled: int | None = None) -> Tensor:
        """Pictures (N, 3, R, R) in [-1, 1] to styles (N, w_count, w_size), of which ``enabled`` may differ."""
        average = self.prior.mapping.average
        assert average is not None
        return average + self.latent(fir.resize(image, self.latent.config.resolution), enabled)

    def coarse(self, ws: Tensor) -> Canonical:
        """What the prior makes of styles."""
        textures = self.prior.texture_features(ws, "const")
        return Canonical(ws, textures, self.prior.static_features(ws, "const"))

    # --- frame after frame ---

    def start(self, frame: Frame) -> State:
        """Begin with a first frame."""
        return self.add(self.begin(self.styles(frame.image)), frame)

    def begin(self, ws: Tensor) -> State:
        """Begin with styles, before any frame."""
        with torch.no_grad():
            return State(self.coarse(ws), Stream(), Stream())

    def add(self, state: State, *frames: Frame) -> State:
        """The state after further frames: the same whether they come together or one by one."""
        for frame in frames:
            if not state.frames or self.config.later_frames == "whole":
                frame = frame._replace(mask=None)
            raw = state.frames > 0 and self.config.later_residual == "raw"
            picture = self.compare(state.coarse, frame, raw)
            texture = self._watch(self.texture.unet, state.texture, self._texture_input(frame, picture))
            triplane = self._watch(self.triplane.unet, state.triplane, self._triplane_input(frame, picture))
            state = State(state.coarse, texture, triplane)
        return state

    @torch.no_grad()
    def compare(self, coarse: Canonical, frame: Frame, raw: bool = False) -> Tensor:
        """(N, 6, R, R): a frame's picture, and what it has that the coarse avatar in its pose has not.

        Args:
            raw: of the avatar, enlarge what is rendered, without super-resolution.
        """
        shown = self.render(coarse, frame.surface, frame.label, finish=not raw).image
        return torch.cat([frame.image, frame.image - fir.resize(shown, frame.image.shape[-1])], dim=1)

    def _texture_input(self, frame: Frame, picture: Tensor) -> Tensor:
        if self.config.texture_input == "posed":
            return fir.resize(picture, self.prior.config.plane_resolution)
        return torch.cat(frame.unwrap(picture), dim=1)

    def _triplane_input(self, frame: Frame, picture: Tensor) -> Tensor:
        if frame.mask is not None:
            picture = picture * frame.mask
        # Rows of the front plane run with +y: turned over, a frontal picture lies on it texel by texel.
        return fir.resize(picture, self.prior.config.plane_resolution).flip(-2)

    def _watch(self, unet: UNet, stream: Stream, x: Tensor) -> Stream:
        seen, count = unet.encode(x), stream.frames + 1
        first = (*stream.first, seen) if count <= self.config.few else ()
        return self._merge(unet, stream, seen)._replace(first=first)

    def _merge(self, unet: UNet, stream: Stream, seen: BodyFeatures) -> Stream:
        count, fusion = stream.frames + 1, unet.config.fusion
        if fusion is None:
            features, _ = unet.decode(seen)
            if stream.features:
                features = tuple(old + (new - old) / count for old, new in zip(stream.features, features))
            return Stream(features=features, frames=count)
        window = (*stream.window, seen)
        together = BodyFeatures(*(torch.stack(parts, dim=1).flatten(0, 1) for parts in zip(*window)))
        features, memory = unet.decode(together, len(window), stream.memory)
        full = len(window) == (unet.config.window if fusion in ("conv", "attention") else 1)
        kept: dict[str, object] = {"memory": memory, "window": ()} if full else {"window": window}
        return stream._replace(features=features, frames=count, **kept)  # type: ignore[arg-type]

    def _read(self, unet: UNet, stream: Stream) -> tuple[Tensor, ...]:
        """A decoder's output, after the first frames were shown again if they are few."""
        first = stream.first if unet.config.fusion == "gru" else ()
        for n in range(stream.frames, self.config.enough if first else 0):
            stream = self._merge(unet, stream, first[n % len(first)])
        return stream.features

    # --- the avatar ---

    def canonical(self, state: State) -> Canonical:
        """The avatar so far.

        Raises:
            ValueError: before the first frame.
        """
        if not state.frames:
            raise ValueError("an avatar is made of at least one frame")
        ws = state.coarse.ws
        offsets = self.texture.changes(self._read(self.texture.unet, state.texture))
        changes = self.triplane.changes(self._read(self.triplane.unet, state.triplane))
        static = state.coarse.static
        if changes.transforms:
            static = self.prior.static_features(ws, "const", changes.transforms)
        if changes.offset is not None and static.picture is not None:
            static = static._replace(picture=static.picture + changes.offset)
        return Canonical(ws, tuple(t + o for t, o in zip(state.coarse.textures, offsets)), static)

    def render(
        self,
        avatar: Canonical,
        surface: SurfaceMap,
        label: Tensor,
        neural_resolution: int | None = None,
        chunk: int | None = None,
        finish: bool = True,
    ) -> AvatarOutput:
        """Avatars in poses (N meshes), seen from cameras (N, 25); options as in `AvatarGenerator.synthesise`."""
        ws, textures, static = avatar
        return self.prior.synthesise(
            ws, label, surface, textures, static, "const", neural_resolution, jitter=False, chunk=chunk, finish=finish
        )
