"""One head, seen from many cameras: what does not depend on the camera is computed once.

Feature planes, their look-up table and the background are kept, and an occupancy grid leaves samples in empty space
out. A frame then costs the march and super-resolution, which at 512 pixels is most of it: in half precision, as EG3D
runs it, it takes half the time on processors with instructions for that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models import camera
from models.planes import Sphere
from models.render.occupancy import Occupancy, OccupancyConfig, render_occupied
from models.render.volume import render
from models.spherehead import HeadGenerator, HeadOutput
from models.stylegan import Noise, Precision


class HeadCache:
    """One identity of a generator.

    Args:
        net: the generator, in evaluation mode.
        ws: (1, w_count, w_size) its styles.
        noise: of the backbone; the same for all frames.
        sphere: which sphere of a dual sphere answers.
        occupancy: the grid; None renders every sample.
        precision: of super-resolution; the generator's own if None.

    Raises:
        ValueError: several identities.
    """

    @torch.no_grad()
    def __init__(
        self,
        net: HeadGenerator,
        ws: Tensor,
        noise: Noise = "const",
        sphere: Sphere = "fused",
        occupancy: OccupancyConfig | None = OccupancyConfig(),  # noqa: B008  a frozen configuration
        precision: Precision | None = None,
    ) -> None:
        if ws.shape[0] != 1:
            raise ValueError(f"a cache holds one identity, not {ws.shape[0]}")
        self.net, self.ws, self.precision = net, ws, precision
        self.planes = net.planes(ws, noise)
        self.field = net.field(self.planes, sphere)
        self.behind = None if net.background is None else net.background(ws, noise)
        config = net.config
        able = config.render.coarse_pass == "composite" and config.render.fine > 0
        self.occupancy = (
            Occupancy(self.field, config.render, config.box, occupancy, ws.device)
            if occupancy is not None and able
            else None
        )

    @torch.no_grad()
    def view(self, label: Tensor, neural_resolution: int | None = None) -> HeadOutput:
        """The head from one camera.

        Args:
            label: (1, 25) camera, used as it is.
            neural_resolution: rays per side; the configuration's if None.
        """
        config = self.net.config
        side = neural_resolution or config.neural_resolution
        origin, direction = camera.rays(label, side)
        if self.occupancy is None:
            seen = render(self.field, origin, direction, config.render, box=config.box)
        else:
            seen = render_occupied(self.field, self.occupancy, origin, direction, config.box)
        return self.net.finish(seen, self.ws[:, -1], side, self.behind, self.precision)
