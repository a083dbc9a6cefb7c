"""Stage ``datasheet``: what the data set is made of, for whoever trains on it or answers for it.

Counts by step and reason, views before and after balancing, licences, sources, sizes and what is known to be uneven, as
``datasheet.json`` and ``datasheet.md``, with sheets of what was kept and of what fell. Columns are counted in parts;
memory does not grow with the number of rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from ops.crawl.raw import TABLE
from ops.crawl.sources import load_sources
from ops.curate.sheets import contact_sheet
from ops.evaluate import plots
from ops.report.datasheet_text import biases, markdown
from ops.runtime.errors import LineamentError, PictureError
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.runtime.stage import Stage, stage
from ops.status import step_tables
from ops.store import clips, pictures, tables
from ops.store.pictures import encode_jpeg
from ops.store.reader import ShardDataset
from ops.store.tar import Shard

SHEET_ROWS = 4


class DatasheetParams(Params):
    """How the data sheet counts."""

    view_bin: float = Field(default=15.0, gt=0, le=180, description="degrees of azimuth")  # unpublished: our choice
    shown: int = Field(default=32, ge=1, description="pictures a sheet")  # unpublished: our choice
    hosts: int = Field(default=10, ge=1, description="of addresses, the most frequent")  # unpublished: our choice


@stage("datasheet", DatasheetParams)
def main(s: Stage[DatasheetParams], root: Path, out: Path) -> None:
    """Write what the data set is made of, and what is uneven in it."""
    sheet = collect(root, s.params_file, s.params)
    with publish(out, folder=True) as folder:
        (folder / "datasheet.json").write_text(json.dumps(sheet, indent=2, sort_keys=True) + "\n")
        (folder / "views.png").write_bytes(plots.encode_png(_views_plot(sheet["views"])))
        names = []
        for name, image in _sheets(root, list(sheet["sources"]), s.params.shown):
            (folder / f"{name}.jpg").write_bytes(encode_jpeg(image, 88))
            names.append(name)
        (folder / "datasheet.md").write_text(markdown(sheet, names), encoding="utf-8")
    kept = sum(source["kept"] for source in sheet["sources"].values())
    s.metrics({"sources": len(sheet["sources"]), "crawled": kept, "taken_down": sheet["taken_down"]})
    s.preview(_views_plot(sheet["views"]))
    s.log(f"{out / 'datasheet.md'}: {kept} pictures of {len(sheet['sources'])} sources")


def collect(root: Path, params_file: Path, params: DatasheetParams) -> dict[str, Any]:
    """The data sheet as plain numbers and words."""
    declared = load_sources(params_file)
    sheet: dict[str, Any] = {
        "sources": {name: _source(root, name, one, params) for name, one in declared.items()},
        "steps": {name: _steps(root, name) for name in declared},
        "sizes": _sizes(root, list(declared)),
        "views": _views(root, list(declared), params.view_bin),
        "shards": dict(_shards(root)),
    }
    reasons: Counter[str] = Counter()
    for steps in sheet["steps"].values():
        for counts in steps.values():
            reasons.update(counts["reasons"])
    sheet["taken_down"], sheet["rejected_by_hand"] = reasons["taken_down"], reasons["rejected_by_hand"]
    sheet["biases"] = biases(sheet)
    return sheet


def _source(root: Path, name: str, declared: Any, params: DatasheetParams) -> dict[str, Any]:
    """What one source brought: pictures, bytes, licences, hosts."""
    path = root / "data/raw" / name / TABLE
    if not path.is_file():
        raise LineamentError(f"{path}: no such table. Run `dvc repro crawl@{name}` first.")
    columns = [column for column in ("kept", "bytes", "licence", "url") if column in pq.read_schema(path).names]
    offered = total = size = 0
    licences, hosts = Counter[str](), Counter[str]()
    for table in _parts(path, *columns):
        kept = table.filter(table.column("kept"))
        offered, total = offered + len(table), total + len(kept)
        size += int(pc.sum(kept.column("bytes")).as_py() or 0)
        # what was crawled before the table had the column is under the licence that the source declares
        licence = kept.column("licence") if "licence" in columns else pa.nulls(len(kept), pa.string())
        licences.update(_counted(licence.fill_null(declared.licence)))
        hosts.update(_host(url) for url in (kept.column("url").drop_null().to_pylist() if "url" in columns else ()))
    return {
        "kind": declared.kind,
        "path": declared.path,
        "licence": declared.licence,
        "offered": offered,
        "kept": total,
        "bytes": size,
        "licences": dict(licences),
        "hosts": dict(hosts.most_common(params.hosts)),
    }


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "none"
    except ValueError:
        return "none"


def _counted(column: pa.ChunkedArray | pa.Array) -> dict[str, int]:
    return {str(entry["values"]): entry["counts"] for entry in pc.value_counts(column).to_pylist()}


def _parts(path: Path, *columns: str) -> Iterator[pa.Table]:
    """Some columns of a table, one row group after the other."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, list(columns))


def _steps(root: Path, source: str) -> dict[str, Any]:
    """In, kept, rejected and why, step by step; steps that have not run are left out."""
    return {
        step: tables.counts(_parts(path, "kept", "reason"))
        for step, path in step_tables(source, root).items()
        if path.is_file() and {"kept", "reason"} <= set(pq.read_schema(path).names)
    }


def _sizes(root: Path, sources: list[str]) -> dict[str, Any]:
    """Quantiles of the shorter side of the pictures that screening kept, in pixels."""
    counts = np.zeros(1, np.int64)  # of pictures, by side
    for source in sources:
        path = root / "data/labels" / source / "screen.parquet"
        for table in _parts(path, "width", "height", "kept") if path.is_file() else ():
            table = table.filter(table.column("kept"))
            found = np.bincount(pc.min_element_wise(table.column("width"), table.column("height")).to_numpy())
            counts, found = (np.pad(each, (0, max(len(counts), len(found)) - len(each))) for each in (counts, found))
            counts = counts + found
    ends = np.cumsum(counts)
    if not ends[-1]:
        return {}
    marks = {mark: mark / 100 * (ends[-1] - 1) for mark in (0, 5, 25, 50, 75, 95, 100)}
    return {str(mark): int(np.interp(at, *_beside(at, ends))) for mark, at in marks.items()}


def _beside(at: float, ends: np.ndarray) -> tuple[list[int], list[int]]:
    """The places before and after one between two, in sorted values that ``ends`` counts; the values there."""
    places = [int(np.floor(at)), int(np.ceil(at))]
    return places, np.searchsorted(ends, places, "right").tolist()


def _views(root: Path, sources: list[str], width: float) -> dict[str, Any]:
    """Pictures by azimuth: as they are, and as often as training sees them."""
    edges = np.linspace(-180, 180, max(1, round(360 / width)) + 1)
    balance = root / "data/balance.parquet"
    counts = np.zeros((2, len(edges) - 1), int)
    if balance.is_file():
        of = "heads"
        for table in _parts(balance, "yaw", "duplicates"):
            yaw, times = table.column("yaw").to_numpy(), table.column("duplicates").to_numpy()
            counts += [np.histogram(yaw, edges)[0], np.histogram(yaw, edges, weights=times)[0].astype(int)]
    else:
        of = "camera"
        for source in sources:
            path = root / "data/labels" / source / "camera.parquet"
            for table in _parts(path, "yaw", "kept") if path.is_file() else ():
                counts += np.histogram(table.filter(table.column("kept")).column("yaw").to_numpy(), edges)[0]
    return {"of": of, "edges": edges.tolist(), "before": counts[0].tolist(), "after": counts[1].tolist()}


def _shards(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((root / "data/shards").glob("*/dataset.json")):
        try:
            said = json.loads(path.read_text())
            size = sum(tar.stat().st_size for tar in path.parent.glob("*.tar"))
            facts = {name: said[name] for name in ("samples", "resolution", "hash") if name in said}
        except (OSError, ValueError, TypeError) as error:
            raise LineamentError(f"{path}: cannot be read ({error}).") from None
        yield path.parent.name, {**facts, "bytes": size}


def _views_plot(views: dict[str, Any]) -> np.ndarray:
    canvas, (axes,) = plots.figure(9, 3.2)
    edges = np.array(views["edges"])
    axes.stairs(views["after"], edges, fill=True, color=plots.COLOURS[5], alpha=0.5, label="as training sees them")
    axes.stairs(views["before"], edges, color=plots.COLOURS[0], linewidth=1.6, label="pictures")
    axes.set(xlabel="azimuth of the camera, degrees; 0 is the face, ±180 the back", xlim=(-180, 180), ylim=(0, None))
    axes.set_xticks(range(-180, 181, 45))
    axes.legend(frameon=False, fontsize=9)
    return plots.pixels(canvas)


def _sheets(root: Path, sources: list[str], shown: int) -> Iterator[tuple[str, np.ndarray]]:
    """Contact sheets: what the shards hold, and of each source what fell, one picture a reason in turn."""
    for path in sorted((root / "data/shards").glob("*/dataset.json")):
        if not any(path.parent.glob("*.tar")):
            continue  # a set of clips may be empty
        data = ShardDataset(path.parent)
        images, captions = [], []
        for number in np.unique(np.linspace(0, len(data) - 1, min(shown, len(data))).astype(int)).tolist():
            fields = data.read(number)
            picture = next((fields[name] for name in fields if name.split(".")[-1] in ("jpg", "png", "webp")), None)
            if picture is not None:
                images.append(pictures.decode(picture))
                captions.append(data.key(number)[:8])
        if images:
            yield f"shards_{path.parent.name}", contact_sheet(images, captions)
    for source in sources:
        images, captions = _fallen(root, source, shown)
        if images:
            yield f"fell_{source}", contact_sheet(images, captions)


def _fallen(root: Path, source: str, shown: int) -> tuple[list[np.ndarray], list[str]]:
    """Pictures of a source that fell, and why."""
    chosen: list[tuple[str, str]] = []
    for step, path in step_tables(source, root).items():
        if step == "crawl" or not path.is_file() or not {"id", "reason"} <= set(pq.read_schema(path).names):
            continue
        found: dict[str, list[str]] = {}
        for table in _parts(path, "id", "reason"):
            rows = table.drop_null()
            for reason in rows.column("reason").unique().to_pylist():
                ids = rows.filter(pc.equal(rows.column("reason"), reason)).column("id")[:SHEET_ROWS].to_pylist()
                found[reason] = [*found.get(reason, []), *ids][:SHEET_ROWS]
        for reason in sorted(set(found) - {"taken_down"}):
            chosen += [(tables.picture_of(key), f"{step}: {reason}") for key in found[reason]]
    chosen = [chosen[i] for i in np.unique(np.linspace(0, len(chosen) - 1, min(shown, len(chosen))).astype(int))]
    raw = root / "data/raw" / source
    wanted = [key for key, _ in chosen]
    rows = pq.read_table(raw / TABLE, columns=["id", "shard"], filters=[("id", "in", wanted)]) if wanted else None
    places = dict(zip(rows.column("id").to_pylist(), rows.column("shard").to_pylist())) if rows is not None else {}
    images, captions = [], []
    for key, caption in chosen:
        if places.get(key) is None:
            continue  # a table of clips names frames, which are no samples
        shard = Shard(raw / f"{places[key]}.tar")
        field = next(name for name in shard.fields(key) if name != "json")
        try:
            data = shard.read(key, field)
            images.append(next(clips.decode_clip(data)) if field in clips.EXTENSIONS else pictures.decode(data))
        except PictureError:
            images.append(np.full((64, 64, 3), 160, np.uint8))
        captions.append(caption.split(": ")[1])
    return images, captions


if __name__ == "__main__":
    raise SystemExit(main())
