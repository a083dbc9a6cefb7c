"""ONNX files of a few nodes, written byte by byte: no package that writes them is needed."""

from __future__ import annotations

import struct

import numpy as np


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _field(number: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, array: np.ndarray) -> bytes:
    data = np.ascontiguousarray(array)
    kind = 7 if data.dtype == np.int64 else 1
    data = data if kind == 7 else data.astype("<f4")
    return b"".join(_field(1, d) for d in data.shape) + _field(2, kind) + _field(8, name) + _field(9, data.tobytes())


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(_field(1, _field(1, d)) for d in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, dims)))


def _attribute(name: str, value: int | float | list[int]) -> bytes:
    if isinstance(value, float):
        return _field(1, name) + _varint(2 << 3 | 5) + struct.pack("<f", value) + _field(20, 1)
    if isinstance(value, int):
        return _field(1, name) + _field(3, value) + _field(20, 2)
    return _field(1, name) + b"".join(_field(8, v) for v in value) + _field(20, 7)


def node(kind: str, inputs: list[str], outputs: list[str], **attributes: int | float | list[int]) -> bytes:
    """A NodeProto."""
    parts = [_field(1, i) for i in inputs] + [_field(2, o) for o in outputs]
    parts += [_field(3, outputs[0]), _field(4, kind)]
    return b"".join(parts + [_field(5, _attribute(n, v)) for n, v in attributes.items()])


def model(
    nodes: list[bytes],
    constants: dict[str, np.ndarray],
    inputs: dict[str, tuple[int, ...]],
    outputs: dict[str, tuple[int, ...]],
) -> bytes:
    """A ModelProto of opset 13."""
    graph = b"".join(_field(1, n) for n in nodes) + _field(2, "g")
    graph += b"".join(_field(5, _tensor(n, a)) for n, a in constants.items())
    graph += b"".join(_field(11, _value(n, s)) for n, s in inputs.items())
    graph += b"".join(_field(12, _value(n, s)) for n, s in outputs.items())
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13))
