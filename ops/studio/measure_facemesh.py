"""Measures where FaceMesh's 468 landmarks lie on the mean head: ``models/parametric/facemesh_canonical.json``.

    python -m ops.studio.measure_facemesh face_landmark.tflite [OUT.json]

The mean head is rendered from near-front views with plain paint (lips, irises, brows) and grey light; FaceMesh runs
on each view; its 2-D points are lifted to the surface that the rasteriser found at that pixel; points are averaged
over views and made symmetric. The result is in the head frame (y up, +z front, +x the subject's left), 2.7 units a
metre.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from models.camera import intrinsics, pack_label, pose_on_sphere
from models.parametric.anny import Anny, load_anny
from models.render import raster

SIDE = 768  # pixels of a view
FOCAL = 2.7 / 0.85  # 0.85 world units (31 cm) across at the head
INPUT = 192  # FaceMesh's input side
MARGIN = 1.5  # MediaPipe: the landmarker's square is 1.5 times the box of the face
AZIMUTHS = (-24, -12, 0, 12, 24)  # degrees
ELEVATIONS = (-8, 2, 12)


class FaceMesh:
    """The landmark network on a picture and a first guess of the face's box."""

    def __init__(self, model: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._net = Interpreter(model_path=str(model), num_threads=1)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        outputs = self._net.get_output_details()
        self._points = next(o["index"] for o in outputs if int(np.prod(o["shape"])) == 468 * 3)
        self._score = next(o["index"] for o in outputs if int(np.prod(o["shape"])) == 1)

    def __call__(self, image: np.ndarray, centre: np.ndarray, side: float, rounds: int = 3) -> tuple[np.ndarray, float]:
        """Points (468, 2) in pixels and the face score; the square is refined to the points' own box each round."""
        for _ in range(rounds):
            scale = INPUT / side
            warp = np.array([[scale, 0, INPUT / 2 - centre[0] * scale], [0, scale, INPUT / 2 - centre[1] * scale]])
            crop = cv2.warpAffine(image, warp, (INPUT, INPUT), flags=cv2.INTER_AREA)
            self._net.set_tensor(self._input, crop[None].astype(np.float32) / 255)
            self._net.invoke()
            raw = self._net.get_tensor(self._points).reshape(468, 3)[:, :2]
            points = (raw - INPUT / 2) / scale + centre
            centre = (points.min(0) + points.max(0)) / 2
            side = float((points.max(0) - points.min(0)).max()) * MARGIN
        logit = float(self._net.get_tensor(self._score).reshape(-1)[0])
        return points, 1 / (1 + float(np.exp(-logit)))


def paint(model: Anny, vertices: torch.Tensor, position: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """Albedo (H, W, 3) from rest positions (H, W, 3) and part shares (H, W, 2: lips, eyes)."""
    lips, eye = part[..., 0:1], part[..., 1:2]
    colour = torch.tensor([0.80, 0.62, 0.52]).expand_as(position)
    colour = colour * (1 - lips) + torch.tensor([0.66, 0.34, 0.33]) * lips
    x, y = position[..., 0].abs(), position[..., 1]
    centre = vertices[model.parts_of("eye_left")].mean(0)
    arch = centre[1] + 0.062 - 2.2 * (x - centre[0] - 0.012) ** 2
    brow = ((x - centre[0] - 0.005).abs() < 0.062) & ((y - arch).abs() < 0.011) & (position[..., 2] > 0.1)
    colour = torch.where(brow.unsqueeze(-1), torch.tensor([0.25, 0.17, 0.12]), colour)
    radius = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2).sqrt().unsqueeze(-1)
    iris = torch.where(radius < 0.0065, torch.tensor([0.03, 0.03, 0.03]), torch.tensor([0.33, 0.21, 0.12]))
    ball = torch.where(radius < 0.0160, iris, torch.tensor([0.93, 0.92, 0.90]))
    return torch.where(eye > 0.5, ball, colour)


def render(model: Anny, vertices: torch.Tensor, azimuth: float, elevation: float) -> tuple[np.ndarray, np.ndarray]:
    """A view (SIDE, SIDE, 3) uint8 and the head-frame position (SIDE, SIDE, 3) of each pixel, NaN off the head."""
    angles = torch.deg2rad(torch.tensor([[azimuth, elevation]], dtype=torch.float32))
    camera = pack_label(pose_on_sphere(angles[:, 0], angles[:, 1]), intrinsics(FOCAL))
    screen = raster.to_screen(vertices[None], camera, SIDE, SIDE)
    seen = raster.rasterise(screen, model.triangles, SIDE, SIDE)
    corners = vertices[model.triangles]
    facing = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = torch.zeros_like(vertices).index_add_(0, model.triangles.reshape(-1), facing.repeat_interleave(3, 0))
    normals = torch.nn.functional.normalize(normals, dim=-1)
    eyes = torch.zeros(len(vertices))
    eyes[model.parts_of("eye_left")] = eyes[model.parts_of("eye_right")] = 1
    part = torch.stack([model.get_buffer("uv_lips"), eyes], dim=-1)
    channels = raster.interpolate(torch.cat([vertices, normals, part], dim=-1), model.triangles, seen)[0]
    position, normal, part = channels.split([3, 3, 2], dim=-1)
    light = 0.45 + 0.55 * (normal @ torch.tensor([0.25, 0.45, 0.85])).clamp_min(0)
    picture = paint(model, vertices, position, part) * light.unsqueeze(-1)
    mask = seen.mask[0].unsqueeze(-1)
    picture = torch.where(mask, picture, torch.tensor([0.55, 0.58, 0.62]))
    lifted = torch.where(mask, position, torch.full_like(position, torch.nan))
    return (picture.clamp(0, 1) * 255).byte().numpy(), lifted.numpy()


def lift(lifted: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(468, 3) surface positions at picture points; a point just off the head takes the nearest pixel within 3 %."""
    seen = np.isfinite(lifted[..., 0])
    distance, label = cv2.distanceTransformWithLabels(
        (~seen).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    where = np.zeros((label.max() + 1, 2), dtype=int)
    rows, columns = np.nonzero(seen)
    where[label[rows, columns]] = np.stack([rows, columns], axis=1)
    pixel = np.clip(np.floor(points).astype(int), 0, SIDE - 1)
    nearest = where[label[pixel[:, 1], pixel[:, 0]]]
    result = lifted[nearest[:, 0], nearest[:, 1]].copy()
    result[distance[pixel[:, 1], pixel[:, 0]] > 0.03 * SIDE] = np.nan
    return result


def measure(model_file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Canonical points (468, 3) and their spread over the views (468,), world units."""
    net = FaceMesh(model_file)
    model = load_anny()
    vertices = model.rest(model.mean_identity[None])[0][0]
    lifts = []
    for elevation in ELEVATIONS:
        for azimuth in AZIMUTHS:
            image, lifted = render(model, vertices, azimuth, elevation)
            points, score = net(image, np.array([SIDE / 2, SIDE / 2 + 20.0]), 0.65 * SIDE)
            if score < 0.5:
                raise ValueError(
                    f"FaceMesh sees no face at azimuth {azimuth}, elevation {elevation}: score {score:.2f}"
                )
            lifts.append(lift(lifted, points))
    stack = np.stack(lifts)
    points = np.nanmedian(stack, axis=0)
    spread = np.nanmedian(np.linalg.norm(stack - points, axis=-1), axis=0)
    pairs = mirror_pairs(points)
    return (points + points[pairs] * [-1, 1, 1]) / 2, spread


def mirror_pairs(points: np.ndarray) -> np.ndarray:
    """(468,) index of each landmark's mirror image, found from points (468, 3) of an all but symmetric face."""
    cost = np.linalg.norm(points[:, None] - points * [-1, 1, 1], axis=-1)
    return linear_sum_assignment(cost + cost.T)[1]


def main(arguments: list[str]) -> int:
    model_file = Path(arguments[0])
    default = Path(__file__).resolve().parents[2] / "models" / "parametric" / "facemesh_canonical.json"
    out = Path(arguments[1]) if len(arguments) > 1 else default
    points, spread = measure(model_file)
    rows = ",\n".join(json.dumps([round(float(value), 4) for value in point]) for point in points)
    out.write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    print(f"{out}: 468 points; median spread over views {np.median(spread) / 2.7 * 1000:.1f} mm", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
