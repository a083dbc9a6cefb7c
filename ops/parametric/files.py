"""The arrays of a model's file, whatever of the field's four kinds of file it is."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ops.parametric.restricted import load_pickle
from ops.runtime.errors import LineamentError

SUFFIXES = (".pkl", ".npz", ".npy", ".mat")


def read_arrays(path: Path) -> dict[str, Any]:
    """Names to arrays and other plain values.

    Args:
        path: a ``.pkl``, ``.npz``, ``.mat`` (version 5, as scipy reads it) or ``.npy`` that holds one dictionary.

    Raises:
        LineamentError: no such file, another kind of file, damaged, cut, or a pickle with more in it than arrays.
    """
    if not path.is_file():
        raise LineamentError(f"{path}: there is no such file.")
    if path.suffix not in SUFFIXES:
        raise LineamentError(f"{path}: not a model's file; those end in {', '.join(SUFFIXES)}.")
    reader = {".pkl": _pickle, ".npz": _npz, ".npy": _npy, ".mat": _mat}[path.suffix]
    try:
        found = reader(path.read_bytes())
    except LineamentError as error:
        raise LineamentError(f"{path}: {error}") from None
    except (ValueError, OSError, EOFError, KeyError, TypeError, IndexError, zipfile.BadZipFile) as error:
        raise LineamentError(f"{path}: damaged or cut ({error}). Get it again from where it is published.") from None
    if not isinstance(found, dict):
        raise LineamentError(f"{path}: holds a {type(found).__name__} where a model's file holds a dictionary.")
    return found


def _pickle(data: bytes) -> Any:
    return load_pickle(data)


def _npz(data: bytes) -> dict[str, Any]:
    found = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                found[member.removesuffix(".npy")] = _npy(file.read())
    return found


def _npy(data: bytes) -> Any:
    """A number array as numpy reads it; of an array of objects, the pickle behind the header, restricted."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        content = load_pickle(data[file.tell() :])
        return content if shape == () else np.array(content, dtype=object)
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def _mat(data: bytes) -> dict[str, Any]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(io.BytesIO(data))
    except (MatReadError, NotImplementedError) as error:
        raise ValueError(error) from None
    return {name: value for name, value in found.items() if not name.startswith("__")}
