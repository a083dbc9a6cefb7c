"""The part of a parametric face that animatable generators paint on, and what they see of it.

InvertAvatar (Zhao et al. 2024, section 3.2) drives its generator by a fitted face mesh in three ways: rasterised to a
UV map on the front plane, where neural textures are laid on it; drawn as the contours of its landmarks, which the
discriminator compares with the picture; and as the place where a photograph's pixels are read back to the UV chart,
for the encoders. All three know the head's own frame alone: how the head is turned lies in the camera.

The chart is made here, of the mean face: its skin seen from a vertical axis within the head, so that a texture looks
like an unrolled face, and each eyeball as a disc in a lower corner, so that an iris moves with its eye. The inside of
the mouth has no mesh: the generator completes it. Nothing here waits for the device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.avatar import AvatarConfig, SurfaceMap
from models.camera import project
from models.next3d import Views
from models.parametric.anny import PARTS
from models.parametric.person import Person, combine
from models.render import raster, texture
from models.render.raster import Backend, Fragments

# The face on the mean head, unpublished: our choice: from jaw to jaw, from under the chin to above the brows.
CENTRE = -0.1  # height of its middle, world units
HALF = (0.21, 0.22)  # half its width and height, world units
DEEPEST = 0.13  # world units before the head's centre: ears and neck lie behind
CORNERS = 3.0  # exponent of the outline: 2 an ellipse, more a rounded rectangle
MARGIN = 0.02  # of the chart, left free about the face
EYE = 0.06  # radius of an eye's disc on the chart
EYE_ANGLE = 120.0  # degrees from the eye's front to the disc's edge: what turning eyes can show

MOUTH = 1.5  # side of Next3D's cut-out mouth, in the lips' width or height; unpublished: our choice
WIDTH = 1 / 128  # of a contour, picture sides; unpublished: our choice
_OPEN = ((0, 17), (17, 22), (22, 27), (27, 31), (31, 36))  # jaw, brows, bridge and foot of the nose
_CLOSED = ((36, 42), (42, 48), (48, 60), (60, 68))  # eyes, outer and inner lips
_AT_ONCE = 8  # segments drawn at once; bounds memory


class AvatarMesh(nn.Module):
    """The face of a parametric person with a chart of its own.

    Args:
        person: its bases; see :func:`ops.train.priors.load_people`.
        config: of the generator: its face box, the side of its volume and its textures' resolution.

    Attributes:
        triangles: (F, 3) corners, indices of this mesh's own vertices and of ``uv``.
        uv: (V, 2) in [0, 1], v upwards.
        identity_size, expression_size: lengths of the codes.
    """

    mean: Tensor
    identity_basis: Tensor
    expression_basis: Tensor
    triangles: Tensor
    uv: Tensor
    landmarks: Tensor
    segments: Tensor

    def __init__(self, person: Person, config: AvatarConfig) -> None:
        super().__init__()
        self.config = config
        self.identity_size, self.expression_size = len(person.identity_basis), len(person.expression_basis)
        uv, inside = _chart(person)
        chosen = person.triangles[inside[person.triangles].all(1)]
        # Where skin folds on the chart, texels belong to what lies in front: equal depths go to the first triangle.
        chosen = chosen[person.mean[chosen][..., 2].mean(1).argsort(descending=True, stable=True)]
        used = torch.cat([chosen.flatten(), person.landmarks68]).unique()
        number = torch.full((len(person.mean),), -1, device=used.device).scatter(
            0, used, torch.arange(len(used)).to(used)
        )
        parts = {
            "mean": person.mean[used],
            "identity_basis": person.identity_basis[:, used],
            "expression_basis": person.expression_basis[:, used],
            "triangles": number[chosen],
            "uv": uv[used],
            "landmarks": number[person.landmarks68],
            "segments": _segments().to(used),
        }
        for name, value in parts.items():
            self.register_buffer(name, value.contiguous(), persistent=False)
        self._layouts: dict[tuple[int, torch.device], Fragments] = {}

    def vertices(self, identity: Tensor, expression: Tensor) -> Tensor:
        """(N, identity_size) and (N, expression_size) codes to (N, V, 3), head frame, world units.

        Raises:
            ValueError: a code of another length.
        """
        moved = combine(identity, self.identity_basis, "identity")
        return self.mean + moved + combine(expression, self.expression_basis, "expression")

    def surface(self, identity: Tensor, expression: Tensor, backend: Backend = "auto") -> SurfaceMap:
        """The faces seen from the front without perspective, through the generator's face box.

        Args:
            identity, expression: codes, see :meth:`vertices`.
            backend: of the rasteriser.

        Returns:
            maps as wide as the generator's planes, rows with +y.
        """
        x, y, side = self.config.face.window(self.config.box)
        at = texture.frontal_uv_map(
            self.vertices(identity, expression),
            self.triangles,
            self.uv,
            self.triangles,
            self.config.plane_resolution,
            extent=side,
            shift=(x + side / 2, y + side / 2),
            backend=backend,
            check=False,
        )
        return to_surface(at)

    def views(self, identity: Tensor, expression: Tensor, backend: Backend = "auto") -> Views:
        """The faces from Next3D's four sides, each through the whole volume; arguments as of :meth:`surface`."""
        vertices = self.vertices(identity, expression)
        x, y, z = torch.eye(3, device=vertices.device).unbind()
        # Seen from the front and from the left, the planes' rows run upwards on the screen.
        sides = [(x, -y, True), (y, -z, True), (y, z, False), (x, z, False)]
        front, left, right, above = (self._seen_along(vertices, *side, backend) for side in sides)
        lips = vertices[:, self.landmarks[48:], :2] / self.config.box + 0.5
        low, high = lips.amin(1), lips.amax(1)
        centre, half = (low + high) / 2, (high - low).amax(1, keepdim=True) * MOUTH / 2
        return Views(front, left, right, above, torch.cat([centre - half, centre + half], dim=1))

    def _seen_along(self, vertices: Tensor, right: Tensor, down: Tensor, flip: bool, backend: Backend) -> SurfaceMap:
        size, pose = self.config.plane_resolution, torch.eye(4, device=vertices.device)
        pose[:3, :3] = torch.stack([right, down, torch.linalg.cross(right, down)], dim=1)
        pose = pose.expand(len(vertices), 4, 4)
        screen = raster.to_screen_orthographic(vertices, pose, self.config.box, size, size)
        seen = raster.rasterise(screen, self.triangles, size, size, perspective=False, backend=backend, check=False)
        return to_surface(texture.uv_map(seen, self.uv, self.triangles), flip)

    def rendering(
        self, identity: Tensor, expression: Tensor, camera: Tensor, size: int, backend: Backend = "auto"
    ) -> Tensor:
        """The meshes as Next3D shows them to its discriminator, coloured by the place on the mean face.

        Arguments as of :meth:`contours`.

        Returns:
            (N, 3, size, size) in [-1, 1], -1 beside the mesh. No gradients.
        """
        with torch.no_grad():
            screen = raster.to_screen(self.vertices(identity, expression), camera, size, size)
            seen = raster.rasterise(screen, self.triangles, size, size, backend=backend, check=False)
            low, high = self.mean.amin(0), self.mean.amax(0)
            colour = raster.interpolate((self.mean - low) / (high - low), self.triangles, seen)
            return colour.permute(0, 3, 1, 2) * 2 - 1

    def landmarks68(self, identity: Tensor, expression: Tensor) -> Tensor:
        """(N, 68, 3) iBUG's landmarks, head frame, world units."""
        return self.vertices(identity, expression)[:, self.landmarks]

    def contours(self, identity: Tensor, expression: Tensor, camera: Tensor, size: int) -> Tensor:
        """The landmarks' contour map (section 3.2): jaw, brows, nose, eyes and lips as lines.

        Args:
            identity, expression: codes, see :meth:`vertices`.
            camera: (N, 25) labels in the head's frame.
            size: side of the map in pixels.

        Returns:
            (N, 1, size, size) in [-1, 1]: 1 on the lines, which fade over a pixel. No gradients.
        """
        with torch.no_grad():
            points, depth = project(camera, self.landmarks68(identity, expression))
            return draw_lines(points, depth > 0, self.segments, size)

    def unwrap(
        self, image: Tensor, identity: Tensor, expression: Tensor, camera: Tensor, size: int, backend: Backend = "auto"
    ) -> tuple[Tensor, Tensor]:
        """Pictures of fitted faces read back to the chart.

        Args:
            image: (N, C, H, W).
            identity, expression, camera: as for :meth:`contours`.
            size: side of the texture.
            backend: of the rasteriser.

        Returns:
            (N, C, size, size) textures, zero where hidden; (N, 1, size, size) visibility in [0, 1], the cosine between
            surface and view. See :func:`models.render.texture.unwrap`.
        """
        layout = self._layout(size, backend)
        vertices = self.vertices(identity, expression)
        seen, visible = texture.unwrap(image, camera, vertices, self.triangles, layout, backend=backend, check=False)
        return seen, visible.unsqueeze(1)

    def _layout(self, size: int, backend: Backend) -> Fragments:
        key = size, self.uv.device
        if key not in self._layouts:
            self._layouts[key] = texture.uv_fragments(self.uv, self.triangles, size, backend=backend)
        return self._layouts[key]


def to_surface(at: texture.UvMap, flip: bool = True) -> SurfaceMap:
    """A UV map as generators read it: the chart as ``grid_sample`` has it; the rows of a front view run with +y."""
    grid = torch.stack([2 * at.uv[..., 0] - 1, 1 - 2 * at.uv[..., 1]], dim=-1)
    alpha = at.mask.unsqueeze(1).to(at.uv.dtype)
    return SurfaceMap(grid.flip(1), alpha.flip(2)) if flip else SurfaceMap(grid, alpha)


def draw_lines(points: Tensor, valid: Tensor, segments: Tensor, size: int) -> Tensor:
    """Lines between points.

    Args:
        points: (N, L, 2) in [0, 1] of the picture; valid: (N, L) which of them are there.
        segments: (M, 2) pairs of points.
        size: side of the picture in pixels; lines are ``WIDTH`` of it wide, at least a pixel.

    Returns:
        (N, 1, size, size) in [-1, 1].
    """
    place = torch.arange(size, device=points.device, dtype=points.dtype) + 0.5
    ends, there = (points * size)[:, segments], valid[:, segments].all(-1)
    nearest = points.new_full((len(points), size, size), torch.inf)
    for part, known in zip(ends.split(_AT_ONCE, 1), there.split(_AT_ONCE, 1)):
        start, along = part[:, :, 0], part[:, :, 1] - part[:, :, 0]
        x = place - start[..., 0, None, None]  # (N, M, 1, size)
        y = place[:, None] - start[..., 1, None, None]  # (N, M, size, 1)
        step = along / along.square().sum(-1, keepdim=True).clamp_min(1e-9)
        share = (x * step[..., 0, None, None] + y * step[..., 1, None, None]).clamp_(0, 1)
        across = (x - share * along[..., 0, None, None]).square_()
        square = across.add_((y - share * along[..., 1, None, None]).square_())
        square = torch.where(known[..., None, None], square, torch.inf)
        nearest = torch.minimum(nearest, square.amin(1))
    nearest = nearest.sqrt()
    ink = (max(WIDTH * size, 1.0) / 2 + 0.5 - nearest).clamp(0, 1)
    return (ink * 2 - 1).unsqueeze(1)


def _segments() -> Tensor:
    pairs = [(i, i + 1) for first, end in (*_OPEN, *_CLOSED) for i in range(first, end - 1)]
    return torch.tensor(pairs + [(end - 1, first) for first, end in _CLOSED])


def _chart(person: Person) -> tuple[Tensor, Tensor]:
    """The chart's (V, 2) places of a person's vertices, and (V,) which of them are on it."""
    x, y, z = person.mean.unbind(1)
    high = (y - CENTRE) / HALF[1]
    skin = (person.parts == PARTS.index("skin")) | (person.parts == PARTS.index("eye_socket"))
    inside = skin & (z > DEEPEST) & ((x.abs() / HALF[0]) ** CORNERS + high.abs() ** CORNERS < 1)
    round_axis = torch.atan2(x, z)
    widest = round_axis[inside].abs().amax()
    uv = torch.stack([round_axis / widest, high], dim=1) * (0.5 - MARGIN) + 0.5
    for name, corner in (("eye_right", EYE + MARGIN / 2), ("eye_left", 1 - EYE - MARGIN / 2)):
        ball = (person.parts == PARTS.index(name)).nonzero().squeeze(1)
        place = person.mean[ball]
        away = torch.nn.functional.normalize(place - (place.amax(0) + place.amin(0)) / 2, dim=1)
        angle = torch.acos(away[:, 2].clamp(-1, 1)) * 180 / math.pi
        flat = away[:, :2] / away[:, :2].norm(dim=1, keepdim=True).clamp_min(1e-6)
        uv[ball] = flat * (angle / EYE_ANGLE * EYE)[:, None] + uv.new_tensor([corner, EYE + MARGIN / 2])
        inside[ball] = angle < EYE_ANGLE
    return uv, inside
