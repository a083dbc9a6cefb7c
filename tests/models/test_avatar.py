import pytest
import torch

from models import camera
from models.avatar import AvatarConfig, AvatarGenerator, SurfaceMap, shrink
from models.config import Config
from models.mapping import MappingConfig
from models.next3d import Next3DConfig, Next3DGenerator, Views, _cut, _paste
from models.planes import PlaneField
from models.render.volume import RenderConfig

TINY: dict[str, Config | int | str | tuple[int, int]] = {
    "resolution": 32,
    "neural_resolution": 8,
    "mapping": MappingConfig(z_size=8, w_size=8),
    "plane_resolution": 32,
    "plane_channels": 8,
    "channel_base": 256,
    "channel_max": 16,
    "decoder_channels": 8,
    "render": RenderConfig(coarse=4, fine=4),
    "superresolution_channels": (8, 8),
    "superresolution_precision": "float32",
}


def generator(**options):
    torch.manual_seed(0)
    return AvatarGenerator(AvatarConfig(**{**TINY, **options}))  # type: ignore[arg-type]


def label(n=1, azimuth=0.2):
    angle = torch.full((n,), azimuth)
    return camera.pack_label(camera.pose_on_sphere(angle, 0 * angle), camera.intrinsics())


def surface(n=1, size=32, radius=0.8, mouth=0.0):
    """A disc that carries the whole chart, with a hole for a mouth."""
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    alpha = (x.square() + y.square() < radius**2) & ~(x.square() + (y + 0.2).square() < mouth**2)
    uv = torch.stack([x, y], dim=-1).expand(n, -1, -1, -1)
    return SurfaceMap(uv.contiguous(), alpha.float().expand(n, 1, -1, -1).contiguous())


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_the_public_networks_have_as_many_parameters():
    """specs: the papers' 84.21 and 164.81 "M" are units of 2**20."""
    with torch.device("meta"):
        avatar = AvatarGenerator(AvatarConfig(layout="release"))
        next3d = Next3DGenerator(Next3DConfig(layout="release"))
        lean = AvatarGenerator(AvatarConfig())
    assert count(avatar) == 88_301_010
    assert count(next3d) == 172_815_807
    assert count(next3d.mouth) == 68_999_661
    assert count(next3d.blend) == 44_334_573
    unused = 2 * 800_768 + count(avatar.texture.blocks[-1])
    assert count(lean) == count(avatar) - unused


def test_lean_and_release_make_the_same_picture():
    """What the release layout adds is never used."""
    lean, release = generator().eval(), generator(layout="release").eval()
    known = release.state_dict()
    lean.load_state_dict({name: known[name] for name in lean.state_dict()})
    z, c, s = torch.randn(1, 8), label(), surface()
    with torch.no_grad():
        one, other = (g(z, c, s, noise="const") for g in (lean, release))
    assert torch.equal(one.image, other.image)


def test_without_a_mesh_the_planes_are_the_static_ones():
    g = generator().eval()
    ws = g.mapping(torch.randn(1, 8), label())
    static = g.static_features(ws, "const")
    nothing = SurfaceMap(surface().uv, torch.zeros(1, 1, 32, 32))
    planes = g.planes(ws, nothing, g.texture_features(ws, "const"), static, "const")
    assert torch.equal(planes, static.picture)


def test_the_face_replaces_its_box_of_the_front_plane_where_the_mesh_is():
    g = generator().eval()
    ws = g.mapping(torch.randn(1, 8), label())
    static = g.static_features(ws, "const")
    shape = surface()
    planes = g.planes(ws, shape, g.texture_features(ws, "const"), static, "const")
    changed = (planes - static.picture).abs().amax(dim=1)[0] > 0
    rows, columns = g.config.face.pixels(32)
    assert not (planes - static.picture)[:, 8:].any(), "side planes stay static"
    cells = torch.nn.functional.avg_pool2d(shape.alpha, 2)[0, 0]
    assert changed[rows, columns][cells == 1].all()
    near = torch.nn.functional.max_pool2d(cells[None], 3, stride=1, padding=1)[0]  # shrinking looks one texel further
    assert not changed[rows, columns][near == 0].any()
    changed[rows, columns] = False
    assert not changed.any()


def test_the_face_box_is_the_same_place_in_texels_and_in_the_world():
    config = AvatarConfig(plane_resolution=64, box=1.3)
    rows, columns = config.face.pixels(64)
    planes = torch.zeros(1, 96, 64, 64)
    planes[:, :32, rows, columns] = 3.0  # the mean over three planes
    x, y, side = config.face.window(1.3)
    steps = torch.linspace(0.04, 0.96, 9)
    grid = torch.cartesian_prod(x + steps * side, y + steps * side)
    points = torch.cat([grid, 0.1 * torch.ones(len(grid), 1)], dim=1)
    found = PlaneField(planes, config.planes).query(points[None])
    torch.testing.assert_close(found, torch.ones_like(found))
    beside = points + torch.tensor([side, 0.0, 0.0])
    assert not PlaneField(planes, config.planes).query(beside[None]).any()


def test_only_the_upper_part_of_an_open_mouth_comes_from_the_static_plane():
    g = generator(upper_mouth=-0.375 + 0.5 * 0.4)  # row 12.8 of 32
    ws = g.mapping(torch.randn(1, 8), label())
    layers = g.layers(g.texture_features(ws), g.static_features(ws), surface(mouth=0.35))
    covered = layers[-1].alpha[0, 0]  # 16 pixels; the hole spans rows 3.6 to 9.2 and columns 5.2 to 10.8
    assert covered[5, 8] < 0.2
    assert covered[8, 8] == 1


def test_shrinking_a_map_keeps_charts_and_counts_coverage():
    fine = surface(size=64, radius=0.9)
    coarse = shrink(fine, 16)
    assert torch.equal(coarse.alpha, torch.nn.functional.avg_pool2d(fine.alpha, 4))
    whole = coarse.alpha[0, 0] == 1
    torch.testing.assert_close(coarse.uv[0][whole], surface(size=16).uv[0][whole])
    with pytest.raises(ValueError, match="cannot be shrunk to 24"):
        shrink(fine, 24)


def test_pixels_without_mesh_do_not_reach_the_textures():
    """Chart positions outside the mesh are undefined: whatever they hold, the layers are the same."""
    g = generator().eval()
    ws = g.mapping(torch.randn(1, 8), label())
    textures, static, shape = g.texture_features(ws, "const"), g.static_features(ws, "const"), surface()
    other = torch.where(shape.alpha.permute(0, 2, 3, 1) > 0, shape.uv, torch.rand(1, 32, 32, 2))
    for one, two in zip(g.layers(textures, static, shape), g.layers(textures, static, SurfaceMap(other, shape.alpha))):
        torch.testing.assert_close(one.feature, two.feature)


@pytest.mark.parametrize("kind", ["avatar", "next3d"])
def test_gradients_reach_every_part(kind):
    torch.manual_seed(0)
    if kind == "avatar":
        network: AvatarGenerator = generator()
        shape: SurfaceMap | Views = surface(2)
    else:
        network = Next3DGenerator(Next3DConfig(**{**TINY, "mouth_side": 16, "blend_lowest": 8}))  # type: ignore[arg-type]
        shape = Views(*[surface(2)] * 4, torch.tensor([[0.3, 0.2, 0.6, 0.5]] * 2))
    out = network(torch.randn(2, 8), label(2), shape)  # type: ignore[arg-type]
    assert out.image.shape == (2, 3, 32, 32)
    out.image.square().mean().backward()
    silent = [n for n, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert silent == []


def test_next3d_without_a_mesh_is_the_static_head_and_has_no_planes_of_eg3d():
    torch.manual_seed(0)
    g = Next3DGenerator(Next3DConfig(**{**TINY, "mouth_side": 16, "blend_lowest": 8})).eval()  # type: ignore[arg-type]
    none = SurfaceMap(surface().uv, torch.zeros(1, 1, 32, 32))
    z, c, box = torch.randn(1, 8), label(), torch.tensor([[0.3, 0.2, 0.6, 0.5]])
    with torch.no_grad():
        out = g(z, c, Views(none, none, none, none, box), noise="const")
        assert torch.equal(out.planes, g.static_features(g.mapping(z, c), "const").picture)
    with pytest.raises(ValueError, match="orthogonal"):
        Next3DGenerator(Next3DConfig(**{**TINY, "plane_axes": "eg3d"}))  # type: ignore[arg-type]


def test_a_mouth_that_is_cut_out_and_pasted_back_changes_nothing():
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")
    picture = torch.stack([x, y, x * y]).expand(2, -1, -1, -1)
    box = torch.tensor([[0.25, 0.5, 0.75, 0.75], [0.1, 0.1, 0.6, 0.9]])
    again = _paste(picture, _cut(picture, box, 32), box)
    torch.testing.assert_close(again, picture, atol=0.012, rtol=0)
    assert torch.equal(again[0, :, :30], picture[0, :, :30])
