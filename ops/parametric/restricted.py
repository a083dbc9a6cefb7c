"""Reads the arrays out of a licensed model's pickle without running anything that the pickle names.

A pickle is a program: it may call whatever it can name. Here it can name only the few classes below, and each of those
names leads to an inert stand-in of this module, which keeps what it is given. No class or function of numpy, scipy,
chumpy or Python is ever reached; arrays are rebuilt afterwards from their bytes, for plain number types only.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np

from ops.runtime.errors import LineamentError

_NUMBERS = "biuf"  # kinds of array entries that are read: truth values, integers, floats
_DEEPEST = 16  # containers within containers


class _Inert:
    """Keeps its arguments and its state, and does nothing."""

    def __new__(cls, *arguments: Any) -> _Inert:
        made = super().__new__(cls)
        made.arguments = arguments
        made.state = None
        return made

    arguments: tuple[Any, ...]
    state: Any

    def __init__(self, *arguments: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Inert): ...


class _Dtype(_Inert): ...


class _Scalar(_Inert): ...


class _Sparse(_Inert): ...


class _SparseColumns(_Sparse): ...


class _SparseRows(_Sparse): ...


class _Chumpy(_Inert): ...


class _Bytes(_Inert): ...


class _Name(_Inert): ...


_STAND_INS: dict[tuple[str, str], type[_Inert]] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Name,
    ("_codecs", "encode"): _Bytes,  # how Python 3 writes bytes into old pickle protocols
    ("__builtin__", "bytes"): _Bytes,  # of none
    ("copy_reg", "_reconstructor"): _Chumpy,  # Python 2's way to make an object, chumpy's in these files
    ("copyreg", "_reconstructor"): _Chumpy,
    ("__builtin__", "object"): _Name,
    ("builtins", "object"): _Name,
    ("chumpy.ch", "Ch"): _Chumpy,
    ("chumpy.reordering", "Select"): _Chumpy,
}
for _core in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_core}.multiarray", "_reconstruct"] = _Array
    _STAND_INS[f"{_core}.multiarray", "scalar"] = _Scalar
for _package in ("scipy.sparse", "scipy.sparse.csc", "scipy.sparse._csc"):
    _STAND_INS[_package, "csc_matrix"] = _SparseColumns
for _package in ("scipy.sparse", "scipy.sparse.csr", "scipy.sparse._csr"):
    _STAND_INS[_package, "csr_matrix"] = _SparseRows


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_Inert]:
        if (module, name) not in _STAND_INS:
            raise LineamentError(f"it names {module}.{name}, which no file of a model has any use for")
        return _STAND_INS[module, name]

    def persistent_load(self, _: Any) -> Any:
        raise LineamentError("it refers to objects outside the file")


def load_pickle(data: bytes) -> Any:
    """The content of a pickle of plain containers, numbers, strings and number arrays.

    Args:
        data: the file's bytes; protocols 0 to 5, written by Python 2 or 3.

    Returns:
        dicts, lists, tuples, strings and numbers as they are; arrays, sparse matrices (made dense) and chumpy's
        containers as numpy arrays.

    Raises:
        LineamentError: it names anything else, is damaged or cut, or holds what is no array.
    """
    try:
        return _plain(_Unpickler(io.BytesIO(data), encoding="latin1").load(), _DEEPEST)
    except LineamentError as error:
        raise LineamentError(f"the pickle is refused: {error}.") from None
    except RecursionError:
        raise LineamentError("the pickle is refused: it is nested too deeply.") from None
    except Exception as error:  # noqa: BLE001 (a damaged pickle may raise anything, and nothing of it is to be trusted)
        raise LineamentError(f"the pickle is damaged or cut ({type(error).__name__}: {error}).") from None


def _plain(value: Any, depth: int) -> Any:
    """Stand-ins to what they stand for."""
    if depth == 0:
        raise LineamentError("it is nested too deeply")
    if isinstance(value, dict):
        return {str(key): _plain(entry, depth - 1) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(entry, depth - 1) for entry in value)
    if value is None or isinstance(value, (str, bytes, int, float)):
        return value
    if isinstance(value, _Array):
        return _array(value, depth)
    if isinstance(value, _Scalar):
        dtype, raw = value.arguments
        return np.frombuffer(_raw(raw), _dtype(dtype), count=1)[0]
    if isinstance(value, _Sparse):
        return _dense(value, depth)
    if isinstance(value, _Chumpy):
        return _chumpy(value, depth)
    if isinstance(value, _Bytes):
        return _raw(value)
    raise LineamentError(f"it holds a {type(value).__name__.strip('_').lower()}, which is no array")


def _array(array: _Array, depth: int) -> Any:
    _, shape, dtype, columns_first, content = array.state
    shape = tuple(int(side) for side in shape)
    count = math.prod(shape)
    if isinstance(content, list):  # an array of objects: its entries came through the same gate
        if len(content) != count:
            raise LineamentError("an array's entries do not fit its shape")
        entries = [_plain(entry, depth - 1) for entry in content]
        return entries[0] if shape == () else entries
    kind = _dtype(dtype)
    raw = _raw(content)
    if min(shape, default=0) < 0 or len(raw) != count * kind.itemsize:
        raise LineamentError("an array's bytes do not fit its shape")
    return np.frombuffer(raw, kind).reshape(shape, order="F" if columns_first else "C").copy()


def _dtype(value: Any) -> np.dtype[Any]:
    if not isinstance(value, _Dtype):
        raise LineamentError("an array has no type")
    code, state = value.arguments[0], value.state
    named = isinstance(state, tuple) and any(entry is not None for entry in state[2:5])
    if not isinstance(code, str) or code[:1] not in _NUMBERS or not code[1:].isdigit() or named:
        raise LineamentError(f"an array has entries of type {code!r}, which are no plain numbers")
    return np.dtype(code).newbyteorder(">" if isinstance(state, tuple) and state[1] == ">" else "<")


def _raw(content: Any) -> bytes:
    if isinstance(content, _Bytes):
        if not content.arguments:
            return b""
        text, encoding = content.arguments
        if encoding not in ("latin1", "latin-1"):
            raise LineamentError(f"it holds bytes in the encoding {encoding!r}")
        return text.encode("latin1")
    return content if isinstance(content, bytes) else content.encode("latin1")


def _dense(matrix: _Sparse, depth: int) -> np.ndarray:
    state = {key.lstrip("_"): _plain(entry, depth - 1) for key, entry in matrix.state.items()}
    across = isinstance(matrix, _SparseRows)
    shape = tuple(int(side) for side in state["shape"])
    starts, places, values = (np.asarray(state[name]) for name in ("indptr", "indices", "data"))
    lines, length = shape if across else shape[::-1]
    if len(starts) != lines + 1 or starts[0] != 0 or starts[-1] != len(values) or (np.diff(starts) < 0).any():
        raise LineamentError("a sparse matrix does not fit its shape")
    if len(places) != len(values) or (len(places) and not 0 <= places.min() <= places.max() < length):
        raise LineamentError("a sparse matrix has entries outside its shape")
    dense = np.zeros((lines, length), values.dtype)
    np.add.at(dense, (np.repeat(np.arange(lines), np.diff(starts)), places), values)
    return dense if across else dense.T


def _chumpy(container: _Chumpy, depth: int) -> np.ndarray:
    """The array in a ``Ch``, or the part of one that a ``Select`` picks."""
    state = container.state
    if isinstance(state, dict) and "x" in state:
        return np.asarray(_plain(state["x"], depth - 1))
    if isinstance(state, dict) and {"a", "idxs"} <= state.keys():
        whole, chosen = (np.asarray(_plain(state[name], depth - 1)) for name in ("a", "idxs"))
        picked = whole.ravel()[chosen.astype(np.int64)]
        shape = _plain(state.get("preferred_shape"), depth - 1)
        return picked if shape is None else picked.reshape([int(side) for side in np.asarray(shape)])
    raise LineamentError("it holds a chumpy expression that is not a plain array")
