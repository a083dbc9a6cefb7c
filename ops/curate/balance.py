"""Stage ``balance``: how often each head is to be seen, so that all sides of the head are seen about as often.

SphereHead eq. 10: pictures are grouped by azimuth; in a group of n pictures each counts once when n reaches T, and
ceil(T / n) times when it does not. A cap keeps the few pictures of a rare view from being learnt by heart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pydantic import Field

from ops.crawl.sources import load_sources
from ops.runtime.errors import LineamentError
from ops.runtime.params import Params
from ops.runtime.stage import Stage, stage
from ops.store import tables
from ops.store.inorder import InOrder
from ops.store.seen import Seen

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


def copies(sizes: np.ndarray, params: BalanceParams) -> np.ndarray:
    """(G,) int how often each picture of a group counts, from the groups' sizes (eq. 10); an empty group does not."""
    wanted = np.where(sizes >= params.target, 1, -(-params.target // np.maximum(sizes, 1)))
    return np.minimum(wanted, params.cap) * (sizes > 0)


@stage("balance", BalanceParams)
def main(s: Stage[BalanceParams], labels: Path, out: Path) -> None:
    """Say how often each head counts in training, so that all views count about as much."""
    sources, width = list(load_sources(s.params_file)), s.params.bin_width
    count = int(np.ceil(360 / width))
    edges, start = np.linspace(-180, 180, count + 1), np.zeros(count, int)
    sizes = sum((np.bincount(groups(yaw, width), minlength=count) for *_, yaw in heads_of(labels, sources)), start)
    times = copies(sizes, s.params)
    drawn = np.zeros((2, count))  # as they are, and as they count

    def rows() -> Iterator[pa.Table]:
        yield SCHEMA.empty_table()
        for source, keys, yaw in heads_of(labels, sources):
            where, many = groups(yaw, width), len(keys)
            for row, weights in zip(drawn, (None, times[where])):
                row += np.histogram(yaw, edges, weights=weights)[0]
            said = {"id": keys, "source": [source] * many, "yaw": yaw, "bin": where, "duplicates": times[where]}
            yield pa.table({**said, "kept": [True] * many, "reason": [None] * many}, schema=SCHEMA)

    tables.write(out, rows(), s.name)
    s.metrics({"pictures": int(sizes.sum()), "with_copies": int((sizes * times).sum())})
    s.metrics({"evenness_before": _evenness(sizes), "evenness_after": _evenness(sizes * times)})
    s.preview(_histogram(edges, *drawn))


def heads_of(labels: Path, sources: Sequence[str]) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """Source, ids and azimuths (degrees, float64) of the heads to be seen, some thousand at a time; a picture of two
    sources counts for the first."""
    seen = Seen()
    for number, source in enumerate(sources):
        parsed = InOrder(labels / source / "parse.parquet", [], kept=True)
        for heads in tables.parts(labels / source / "heads.parquet", [*tables.NAMES, "yaw"]):
            keys = parsed.take(heads.column("id").combine_chunks())
            if not len(keys):
                continue
            part = heads.filter(pc.is_in(heads.column("id"), value_set=keys.column("id").combine_chunks()))
            if len(part) != len(keys):
                raise LineamentError(f"{parsed.path}: keeps samples that have no head. Run the stage heads again.")
            names, yaw = part.column("id").to_pylist(), part.column("yaw").to_numpy().astype(np.float64)
            fresh = [number == 0 or key not in seen for key in names]
            if number + 1 < len(sources):
                seen.update(names)
            yield source, list(itertools.compress(names, fresh)), yaw[fresh]
        parsed.end()


def _evenness(counts: np.ndarray) -> float | None:
    """The smallest group by the largest: 1 where all groups are equal."""
    return round(float(counts.min() / counts.max()), 4) if counts.any() else None


def _histogram(edges: np.ndarray, sizes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pictures over azimuth, as they are and as they count, (H, W, 3) uint8."""
    figure = Figure(figsize=(8, 3), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.hist(edges[:-1], edges.tolist(), weights=counts, color="#9ecae1", label="as they count")
    axes.hist(edges[:-1], edges.tolist(), weights=sizes, color="#08519c", label="pictures")
    axes.set(xlabel="azimuth, degrees", ylabel="pictures", xlim=(-180, 180), xticks=range(-180, 181, 45))
    axes.legend(loc="upper right", frameon=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


if __name__ == "__main__":
    raise SystemExit(main())
