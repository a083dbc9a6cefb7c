"""What generators and encoders see of a face mesh: against independent drawing, round trips, and what moves what."""

import cv2
import numpy as np
import pytest
import torch

from models.avatar import AvatarConfig, AvatarGenerator, shrink
from models.avatar_mesh import EYE, WIDTH, AvatarMesh
from models.camera import intrinsics, mirror_label, pack_label, pose_on_sphere, project
from models.mapping import MappingConfig
from models.parametric.person import EXPRESSION, IDENTITY, Person, load_person
from models.render import raster, texture
from models.render.volume import RenderConfig

CONFIG = AvatarConfig(
    resolution=32,
    neural_resolution=8,
    mapping=MappingConfig(z_size=8, w_size=8),
    plane_resolution=64,
    plane_channels=8,
    channel_base=256,
    channel_max=16,
    decoder_channels=8,
    render=RenderConfig(coarse=4, fine=4),
    superresolution_channels=(8, 8),
    superresolution_precision="float32",
)


@pytest.fixture(scope="module")
def person() -> Person:
    return load_person()


@pytest.fixture(scope="module")
def mesh(person) -> AvatarMesh:
    return AvatarMesh(person, CONFIG)


def codes(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, IDENTITY, generator=g), torch.rand(count, EXPRESSION, generator=g) * 0.3


def unit(person: Person, **values: float) -> torch.Tensor:
    expression = torch.zeros(1, EXPRESSION)
    for name, value in values.items():
        expression[0, person.expression_names.index(name)] = value
    return expression


def camera_at(azimuth: float, elevation: float = 0.1) -> torch.Tensor:
    return pack_label(pose_on_sphere(torch.tensor([azimuth]), torch.tensor([elevation])), intrinsics(3.47))


def test_the_face_is_the_persons_face(mesh, person):
    identity, expression = codes(2)
    whole = person.vertices(identity, expression)
    torch.testing.assert_close(mesh.landmarks68(identity, expression), whole[:, person.landmarks68])
    nearest = torch.cdist(mesh.vertices(identity, expression).double(), whole.double()).amin(-1)
    assert nearest.max() < 1e-5


def test_faces_of_all_sorts_lie_in_the_face_box(mesh, person):
    """Chins with open jaws, raised brows: what moves must not leave the box that shows it."""
    identity = torch.cat([codes(32)[0], torch.zeros(1, IDENTITY)])
    x, y, side = CONFIG.face.window(CONFIG.box)
    for expression in (unit(person), unit(person, jawOpen=0.8, browInnerUp=1, browOuterUpLeft=1)):
        points = mesh.landmarks68(identity, expression.expand(33, -1))[..., :2]
        inside = ((points > torch.tensor([x, y])) & (points < torch.tensor([x + side, y + side]))).all(-1)
        assert inside.float().mean() > 0.98


def test_a_pixel_of_the_surface_is_where_its_ray_meets_the_mesh(mesh):
    """Every triangle met by a straight line, in double precision, by Cramer's rule."""
    identity, expression = codes(1)
    seen = mesh.surface(identity, expression)
    size = CONFIG.plane_resolution
    assert seen.uv.shape == (1, size, size, 2)
    assert seen.alpha.shape == (1, 1, size, size)
    corners = mesh.vertices(identity, expression)[0][mesh.triangles].double().numpy()
    places = mesh.uv[mesh.triangles].double().numpy()
    x0, y0, side = CONFIG.face.window(CONFIG.box)
    checked = 0
    for row in range(3, size, 7):
        for column in range(3, size, 7):
            spot = np.array([x0 + (column + 0.5) / size * side, y0 + (row + 0.5) / size * side])
            one, two = corners[:, 1, :2] - corners[:, 0, :2], corners[:, 2, :2] - corners[:, 0, :2]
            away = spot - corners[:, 0, :2]
            area = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]
            b = (away[:, 0] * two[:, 1] - away[:, 1] * two[:, 0]) / area
            c = (one[:, 0] * away[:, 1] - one[:, 1] * away[:, 0]) / area
            weights = np.stack([1 - b - c, b, c], -1)
            hit = (weights >= 0).all(-1)
            if (np.abs(weights[hit]).min(initial=1) < 1e-3) or hit.sum() == 0:  # an edge: either side will do
                assert hit.sum() or seen.alpha[0, 0, row, column] == 0
                continue
            nearest = np.flatnonzero(hit)[np.argmax((weights[hit] * corners[hit, :, 2]).sum(-1))]
            u, v = weights[nearest] @ places[nearest]
            assert seen.alpha[0, 0, row, column] == 1
            np.testing.assert_allclose(seen.uv[0, row, column].numpy(), [2 * u - 1, 1 - 2 * v], atol=1e-4)
            checked += 1
    assert checked > 20


def test_fast_and_reference_see_the_same_surface(mesh):
    identity, expression = codes(2)
    fast, slow = (mesh.surface(identity, expression, backend) for backend in ("warp", "torch"))
    assert (fast.alpha == slow.alpha).float().mean() > 0.999
    assert ((fast.uv - slow.uv).abs().amax(-1) < 1e-4).float().mean() > 0.995


@pytest.mark.parametrize("size", [64, 200])
def test_contours_are_the_lines_between_landmarks(mesh, size):
    """Against OpenCV's lines at eight times the size."""
    identity, expression = codes(1)
    camera = camera_at(0.4)
    drawn = mesh.contours(identity, expression, camera, size)
    assert drawn.shape == (1, 1, size, size)
    assert -1 <= drawn.min() < drawn.max() <= 1
    points, _ = project(camera, mesh.landmarks68(identity, expression))
    big = (points[0].numpy() * size * 8 * 16 - 8).round().astype(np.int32)  # OpenCV: sixteenths, pixel centres whole
    canvas = np.zeros((size * 8, size * 8), np.uint8)
    for first, end, closed in ((0, 17, 0), (17, 22, 0), (22, 27, 0), (27, 31, 0), (31, 36, 0)):
        cv2.polylines(canvas, [big[first:end]], bool(closed), 255, round(max(WIDTH * size, 1) * 8), cv2.LINE_AA, 4)
    for first, end in ((36, 42), (42, 48), (48, 60), (60, 68)):
        cv2.polylines(canvas, [big[first:end]], True, 255, round(max(WIDTH * size, 1) * 8), cv2.LINE_AA, 4)
    wanted = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    found = drawn[0, 0].numpy() / 2 + 0.5
    assert np.abs(found - wanted).mean() < 0.01
    assert np.abs(found - wanted).max() < 0.5
    at = (points[0] * size).long().clamp(0, size - 1)
    assert (drawn[0, 0, at[:, 1], at[:, 0]] > -0.6).all()


def test_next3ds_front_is_the_surface_in_the_whole_volume(mesh):
    identity, expression = codes(1)
    front, closer = mesh.views(identity, expression).front, mesh.surface(identity, expression)
    rows, columns = CONFIG.face.pixels(CONFIG.plane_resolution)
    half = shrink(closer, CONFIG.plane_resolution // 2)
    both = (half.alpha[0, 0] == 1) & (front.alpha[0, 0, rows, columns] == 1)
    assert both.sum() > 200
    away = (front.uv[0, rows, columns] - half.uv[0]).abs().amax(-1)[both]
    assert away.quantile(0.9) < 0.02  # but for eyes and lips, where a cell straddles two charts
    outside = front.alpha[0, 0].clone()
    outside[rows, columns] = 0
    assert outside.sum() < 0.1 * front.alpha.sum()


def test_next3ds_sides_show_what_looks_their_way(mesh, person):
    identity, expression = codes(1)
    views = mesh.views(identity, expression)
    size = CONFIG.plane_resolution
    for view, sign in ((views.left, 1), (views.right, -1)):
        u = view.uv[0, ..., 0][view.alpha[0, 0] > 0]
        assert (u * sign > -0.1).float().mean() > 0.9
    x, y, z = ((mesh.landmarks68(identity, expression)[0, 30] / CONFIG.box + 0.5) * size).unbind()  # the nose's tip
    for view, row, column in ((views.front, y, x), (views.left, z, y), (views.right, z, y), (views.above, z, x)):
        assert view.alpha[0, 0, int(row) - 2 : int(row) + 1, int(column) - 1 : int(column) + 2].any()
    beyond = views.left.alpha[0, 0, int(z) + 2 :]
    assert not beyond.any(), "nothing is before the nose"
    lips = mesh.landmarks68(identity, expression)[0, 48:, :2] / CONFIG.box + 0.5
    low, high = views.mouth[0, :2], views.mouth[0, 2:]
    torch.testing.assert_close((high - low)[0], (high - low)[1])
    assert ((lips > low) & (lips < high)).all()


def test_a_rendered_mesh_is_coloured_by_the_place_on_the_mean_face(mesh):
    identity, expression = torch.zeros(1, IDENTITY), torch.zeros(1, EXPRESSION)
    camera = camera_at(0.3)
    seen = mesh.rendering(identity, expression, camera, 128)
    assert seen.shape == (1, 3, 128, 128)
    assert (seen[0, :, 0, 0] == -1).all()
    points, _ = project(camera, mesh.landmarks68(identity, expression))
    low, high = mesh.mean.amin(0), mesh.mean.amax(0)
    for number in (30, 8, 51):
        column, row = (points[0, number] * 128).long().tolist()
        wanted = (mesh.mean[mesh.landmarks[number]] - low) / (high - low) * 2 - 1
        near = seen[0, :, row - 1 : row + 2, column - 1 : column + 2].flatten(1).T
        assert (near - wanted).abs().amax(1).min() < 0.06


def test_landmarks_behind_the_camera_draw_nothing(mesh):
    away = camera_at(0.0)
    away[:, 11] = -3.0  # the camera stands behind the head and looks away from it
    assert (mesh.contours(*codes(1), away, 32) == -1).all()


def test_unwrapping_undoes_painting(mesh):
    identity, expression = codes(1)
    camera = camera_at(0.3)
    place = (torch.arange(128) + 0.5) / 128
    v, u = torch.meshgrid(place, place, indexing="ij")
    painted = torch.stack([torch.sin(7 * u), torch.cos(5 * v), u * v])[None]
    vertices = mesh.vertices(identity, expression)
    seen = raster.rasterise(raster.to_screen(vertices, camera, 256, 256), mesh.triangles, 256, 256)
    picture = texture.sample_texture(painted, texture.uv_map(seen, mesh.uv, mesh.triangles))
    found, visible = mesh.unwrap(picture, identity, expression, camera, 128)
    assert found.shape == (1, 3, 128, 128)
    assert visible.shape == (1, 1, 128, 128)
    clear = visible[0, 0] > 0.4
    assert clear.float().mean() > 0.3
    off = (found - painted)[0, :, clear].abs()
    assert off.mean() < 0.01
    assert off.quantile(0.98) < 0.1  # lids, lips and the wings of the nose hide a texel here and there


def test_an_iris_moves_with_its_eye_and_has_texels_of_its_own(mesh, person):
    ahead, aside = unit(person), unit(person, eyeLookOutLeft=1, eyeLookInRight=1)
    identity = torch.zeros(1, IDENTITY)
    fine = AvatarMesh(person, CONFIG.model_copy(update={"plane_resolution": 256}))
    seen = [fine.surface(identity, expression) for expression in (ahead, aside)]
    corner = torch.tensor([[2 * EYE, 1 - 2 * EYE], [1 - 2 * EYE, 1 - 2 * EYE]]) * 2 - 1  # u inner edge, v upper edge
    for side, eye in enumerate(corner):
        place = []
        for one in seen:
            u, v = one.uv[0].unbind(-1)
            of_eye = (one.alpha[0, 0] > 0) & (v > eye[1]) & ((u < eye[0]) if side == 0 else (u > eye[0]))
            assert of_eye.sum() > 40
            centre = (u[of_eye] + 1).mul(0.5).mean()
            place.append(centre)
        assert place[1] < place[0] - 0.006  # 12 degrees: eyes turned to the left show the right of their globes
    owner = texture.uv_fragments(mesh.uv, mesh.triangles, 256).triangle[0]
    globe = torch.cdist(mesh.mean[mesh.triangles].mean(1), person.mean[person.parts == 1]).amin(1) < 2e-2
    box = owner[-round(2 * EYE * 256) :, -round(2 * EYE * 256) :]
    middle = box[box.shape[0] // 4 : -box.shape[0] // 4, box.shape[1] // 4 : -box.shape[1] // 4]
    assert globe[middle].all()


def test_another_expression_changes_the_face_box_alone(mesh, person):
    torch.manual_seed(0)
    generator = AvatarGenerator(CONFIG).eval()
    identity = torch.zeros(1, IDENTITY)
    with torch.no_grad():
        ws = generator.mapping(torch.randn(1, 8), camera_at(0.0))
        textures, static = generator.texture_features(ws, "const"), generator.static_features(ws, "const")
        planes = [
            generator.planes(ws, mesh.surface(identity, expression), textures, static, "const")
            for expression in (unit(person), unit(person, jawOpen=0.7))
        ]
    changed = (planes[0] - planes[1]).abs()
    assert not changed[:, CONFIG.plane_channels :].any()
    rows, columns = CONFIG.face.pixels(CONFIG.plane_resolution)
    assert changed[:, : CONFIG.plane_channels, rows, columns].amax() > 1e-3
    changed[:, :, rows, columns] = 0
    assert not changed.any()


def test_a_mirrored_face_has_mirrored_units_and_the_same_identity(mesh, person):
    """As batches are mirrored: the expression's sides change places, the camera's signs change."""
    identity, expression = codes(2)
    camera = camera_at(0.4).expand(2, -1)
    swapped = expression[:, list(person.mirrored_units)]
    assert (swapped != expression).any()
    assert torch.equal(swapped[:, list(person.mirrored_units)], expression)
    mirrored = mesh.contours(identity, swapped, mirror_label(camera), 128)
    straight = mesh.contours(identity, expression, camera, 128).flip(-1)
    unswapped = mesh.contours(identity, expression, mirror_label(camera), 128)
    assert (mirrored - straight).abs().mean() < 0.1 * (unswapped - straight).abs().mean()


def test_codes_of_another_model_are_refused(mesh):
    identity, expression = codes(1)
    with pytest.raises(ValueError, match=r"identity must be \(N, 80\)"):
        mesh.surface(identity[:, :40], expression)
    with pytest.raises(ValueError, match=r"expression must be \(N, 52\)"):
        mesh.contours(identity, expression[:, :50], camera_at(0.0), 32)
