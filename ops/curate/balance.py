"""Stage ``balance``: how often each head is to be seen, so that all sides of the head are seen about as often.

SphereHead eq. 10: pictures are grouped by azimuth; in a group of n pictures each counts once when n reaches T, and
ceil(T / n) times when it does not. A cap keeps the few pictures of a rare view from being learnt by heart.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pydantic import Field

from ops.crawl.sources import load_sources
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.store import tables

SCHEMA = tables.schema(
    pa.field("source", pa.string()),
    pa.field("yaw", pa.float32()),
    pa.field("bin", pa.int32()),
    pa.field("duplicates", pa.int32()),
)


class BalanceParams(Params):
    target: int = Field(2000, ge=1, description="T: pictures a group should count for")  # SphereHead eq. 10
    bin_width: float = Field(5.0, gt=0, le=360, description="degrees of azimuth a group")  # WildHead.DatProc
    cap: int = Field(8, ge=1, description="most often that one picture counts")  # WildHead.DatProc, an earlier script


def groups(yaw: np.ndarray, width: float) -> np.ndarray:
    """(N,) int the group of each azimuth in degrees; group 0 begins at -180, and +180 is -180."""
    count = int(np.ceil(360 / width))
    return np.floor((np.asarray(yaw, np.float64) + 180) % 360 / width).astype(int) % count


def copies(yaw: np.ndarray, params: BalanceParams) -> np.ndarray:
    """(N,) int how often each picture counts, from all azimuths in degrees (eq. 10)."""
    _, place, size = np.unique(groups(yaw, params.bin_width), return_inverse=True, return_counts=True)
    wanted = np.where(size >= params.target, 1, -(-params.target // size))
    return np.minimum(wanted, params.cap)[place]


@stage("balance", BalanceParams)
def main(s: Stage[BalanceParams], labels: Path, out: Path) -> None:
    """Say how often each head counts in training, so that all views count about as much."""
    rows: dict[str, dict[str, object]] = {}
    for source in load_sources(s.params_file):
        heads = {row["id"]: row for row in tables.read(labels / source / "heads.parquet").to_pylist()}
        for key in tables.kept_ids(labels / source / "parse.parquet"):
            row = {"id": key, "source": source, "yaw": heads[key]["yaw"], "kept": True, "reason": None}
            rows.setdefault(key, row)  # a picture of two sources counts for the first
    yaw = np.array([row["yaw"] for row in rows.values()])
    times = copies(yaw, s.params) if len(rows) else np.zeros(0, int)
    for row, group, time in zip(rows.values(), groups(yaw, s.params.bin_width), times):
        row |= {"bin": int(group), "duplicates": int(time)}
    tables.write(out, pa.Table.from_pylist(list(rows.values()), schema=SCHEMA), s.name)
    s.metrics({"pictures": len(rows), "with_copies": int(times.sum()), **_evenness(yaw, times, s.params.bin_width)})
    s.preview(_histogram(yaw, times, s.params.bin_width))


def _evenness(yaw: np.ndarray, times: np.ndarray, width: float) -> dict[str, float | None]:
    """The smallest group by the largest, before and after: 1 where all groups are equal."""
    result: dict[str, float | None] = {}
    for name, weights in (("before", np.ones(len(yaw))), ("after", times)):
        counts = np.bincount(groups(yaw, width), weights=weights, minlength=int(np.ceil(360 / width)))
        result[f"evenness_{name}"] = round(float(counts.min() / counts.max()), 4) if len(yaw) else None
    return result


def _histogram(yaw: np.ndarray, times: np.ndarray, width: float) -> np.ndarray:
    """Pictures over azimuth, as they are and as they count, (H, W, 3) uint8."""
    figure = Figure(figsize=(8, 3), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    edges = np.linspace(-180, 180, int(np.ceil(360 / width)) + 1).tolist()
    axes.hist(yaw, edges, weights=times, color="#9ecae1", label="as they count")
    axes.hist(yaw, edges, color="#08519c", label="pictures")
    axes.set(xlabel="azimuth, degrees", ylabel="pictures", xlim=(-180, 180), xticks=range(-180, 181, 45))
    axes.legend(loc="upper right", frameon=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


if __name__ == "__main__":
    raise SystemExit(main())
