"""The studio and what it stands on: pictures a second, and the rasteriser against its plain reference."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

import torch

from benchmarks.harness import Row, alternate, at_least, speedup

PROCESSES = 2


def rows() -> list[Row]:
    return [_rasteriser(), _pictures()]


def _rasteriser() -> Row:
    """A head and shoulders of 15k triangles at 32 pixels: the reference is too slow for more."""
    from models.camera import intrinsics, pack_label, pose_on_sphere
    from models.parametric.anny import load_anny
    from models.render import raster

    model = load_anny()
    vertices = model.rest(model.mean_identity[None])[0]
    camera = pack_label(pose_on_sphere(torch.tensor([0.4]), torch.tensor([0.1])), intrinsics(2.0))
    screen = raster.to_screen(vertices, camera, 32, 32)
    fast, slow = alternate(
        lambda: raster.rasterise(screen, model.triangles, 32, 32, backend="warp"),
        lambda: raster.rasterise(screen, model.triangles, 32, 32, backend="torch"),
        repeats=1,
    )
    return speedup("studio/rasteriser, 15k triangles at 32 px", fast, slow, 10)


def _pictures() -> Row:
    """Pictures of 512 px in two processes, encoding and rubbish included, people made on the way, start-up not."""
    context = multiprocessing.get_context("spawn")
    ready, go = context.Barrier(PROCESSES + 1), context.Barrier(PROCESSES + 1)
    queue = context.Queue()
    workers = [context.Process(target=_render, args=(place, ready, go, queue)) for place in range(PROCESSES)]
    for worker in workers:
        worker.start()
    ready.wait()
    start = time.perf_counter()
    go.wait()
    count = sum(queue.get() for _ in workers)
    elapsed = time.perf_counter() - start
    for worker in workers:
        worker.join()
    return at_least("studio/512 px pictures a second", count / elapsed, "1/s", 20)


def _render(place: int, ready: Any, go: Any, queue: Any) -> None:
    from ops.studio.crawl import StudioParams, picture_count, render_pictures

    torch.set_num_threads(1)
    params = StudioParams(people=12, views=10)
    list(render_pictures(params, [0]))  # compiled kernels, unwrapping
    half = picture_count(params) // PROCESSES
    ready.wait()
    go.wait()
    queue.put(sum(1 for _ in render_pictures(params, range(place * half, (place + 1) * half))))


if __name__ == "__main__":
    for row in rows():
        print(row)
