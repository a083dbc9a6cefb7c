"""What the UI shows of a unit's result: its numbers, a small picture of it, the columns of its tables."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from assets.columns import described
from ops import data_versions
from ops.dag import Unit
from ops.runtime.errors import LineamentError
from ops.store import tables

LONGEST_NAME = 30  # characters that fit into the UI's column of names
THUMBNAIL = 320  # px: pictures in metadata live in the event log, so they are small


def describe(root: Path, unit: Unit) -> dict[str, dg.MetadataValue]:
    """Metadata of a unit's present result; parts that are not there are left out."""
    found: dict[str, dg.MetadataValue] = {}
    for path in unit.metrics:
        if path.endswith(".json") and (root / path).is_file():
            named = numbers(json.loads((root / path).read_text()))
            found.update({shown(name): _number(value) for name, value in named})
    for path in unit.outs:
        if path.endswith(".png") and (root / path).is_file():
            found["preview"] = dg.MetadataValue.md(f"![{path}]({thumbnail(root / path)})")
            found["preview file"] = dg.MetadataValue.path(str(root / path))
        elif path.endswith(".parquet") and (root / path).is_file():
            found |= _table(root / path, unit.stage)
        elif (root / path / tables.CRAWL).is_file():
            found |= _table(root / path / tables.CRAWL, unit.stage)
        elif path.startswith(f"{data_versions.SHARDS}/") and (root / path / data_versions.SUMMARY).is_file():
            found |= _changes(root, Path(path))
    return found


def _changes(root: Path, folder: Path) -> dict[str, dg.MetadataValue]:
    """What is new in training shards, beside the version before."""
    try:
        changes = data_versions.changes(root, folder)
    except LineamentError as error:
        return {"changes": dg.MetadataValue.text(f"not known: {error}")}
    values = {f"changes.{name}": _number(value) for name, value in numbers(changes.record())}
    return {"changes": dg.MetadataValue.text(changes.sentence()), **values}


def numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float | int]]:
    """The numbers of a nested mapping under dotted names, e.g. ``reasons.blurred``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + name, value


def shown(name: str) -> str:
    """A number's name as the UI can show it: a long one may break behind its dots."""
    return name if len(name) <= LONGEST_NAME else name.replace(".", ". ")


def thumbnail(path: Path) -> str:
    """A picture of at most 320 px a side as a data URI, as PNG or JPEG, whichever is smaller."""
    from PIL import Image

    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    encoded = []
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 80})):
        buffer = io.BytesIO()
        small.save(buffer, kind, **options)
        encoded.append((len(buffer.getvalue()), kind, buffer.getvalue()))
    _, kind, data = min(encoded)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _number(value: float | int) -> dg.MetadataValue:
    return dg.MetadataValue.int(value) if isinstance(value, int) else dg.MetadataValue.float(value)


def _table(path: Path, stage: str) -> dict[str, dg.MetadataValue]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    columns = [dg.TableColumn(f.name, str(f.type), described(stage, f.name)) for f in file.schema_arrow]
    return {
        "dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(columns)),
        "dagster/row_count": dg.MetadataValue.int(file.metadata.num_rows),
    }
