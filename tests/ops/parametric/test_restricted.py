"""Pickles: what the field's model files hold is read, whatever else a pickle can do is refused and does not happen."""

import builtins
import collections
import copyreg
import io
import os
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
from scipy import sparse

from ops.parametric.restricted import load_pickle
from ops.runtime.errors import LineamentError


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def written_by_python2(arrays: dict[str, np.ndarray]) -> bytes:
    """Protocol 2 with the module names of the years the models are from."""
    data = pickle.dumps(arrays, protocol=2)
    for new, old in ((b"numpy._core.multiarray", b"numpy.core.multiarray"),):
        data = data.replace(b"c" + new, b"c" + old)
    return data


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_arrays_come_back_as_they_were(protocol):
    g = np.random.default_rng(0)
    arrays = {
        "float64": g.normal(size=(3, 4, 2)),
        "float32": g.normal(size=5).astype(np.float32),
        "big": g.normal(size=4).astype(">f8"),
        "whole": g.integers(0, 2**31, (2, 3)).astype(np.uint32),
        "columns": np.asfortranarray(g.normal(size=(3, 4))),
        "truth": np.array([True, False]),
        "empty": np.zeros((0, 3)),
    }
    content = {
        **arrays,
        "name": "lrotmin",
        "numbers": [1, 2.5, None, True],
        "scalar": np.float64(1.5),
        "bytes": b"\xff\0",
    }
    found = load_pickle(pickle.dumps(content, protocol=protocol))
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype.itemsize == array.dtype.itemsize
    assert found["name"] == "lrotmin"
    assert found["numbers"] == [1, 2.5, None, True]
    assert found["scalar"] == 1.5
    assert found["bytes"] == b"\xff\0"


def test_old_module_names_are_read():
    np.testing.assert_array_equal(load_pickle(written_by_python2({"f": np.arange(6.0)}))["f"], np.arange(6.0))


@pytest.mark.parametrize("layout", [sparse.csc_matrix, sparse.csr_matrix])
@pytest.mark.parametrize("module", [None, "scipy.sparse.csc", "scipy.sparse"])
def test_sparse_matrices_come_back_dense(layout, module):
    dense = np.random.default_rng(0).normal(size=(4, 7)) * (np.random.default_rng(1).random((4, 7)) < 0.4)
    data = pickle.dumps(layout(dense), protocol=2)
    if module:
        old = layout.__module__.encode()
        data = data.replace(b"c" + old, b"c" + module.replace("csc", layout.__name__[:3]).encode())
    np.testing.assert_array_equal(load_pickle(data), dense)


@pytest.fixture
def chumpy(monkeypatch):
    """Classes of chumpy's names, so that pickles are written as chumpy writes them."""
    made = {}
    for module, name in (("chumpy", None), ("chumpy.ch", "Ch"), ("chumpy.reordering", "Select")):
        stand_in = types.ModuleType(module)
        if name:
            made[name] = type(name, (), {"__module__": module})
            setattr(stand_in, name, made[name])
        monkeypatch.setitem(sys.modules, module, stand_in)
    return made


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_chumpy_shaped_containers(chumpy, protocol):
    plain, chosen = chumpy["Ch"](), chumpy["Select"]()
    plain.x = np.arange(24.0).reshape(4, 6)
    plain._dirty_vars = None
    chosen.a, chosen.idxs, chosen.preferred_shape = plain, np.array([0, 5, 7, 23]), (2, 2)
    found = load_pickle(pickle.dumps({"v_template": plain, "shapedirs": chosen}, protocol=protocol))
    np.testing.assert_array_equal(found["v_template"], plain.x)
    np.testing.assert_array_equal(found["shapedirs"], [[0, 5], [7, 23]])
    odd = chumpy["Ch"]()
    odd.rows = 3
    with pytest.raises(LineamentError, match="not a plain array"):
        load_pickle(pickle.dumps(odd, protocol=protocol))


def attacks(marker) -> dict[str, bytes]:
    touch = f"open({str(marker)!r}, 'w').close()"
    path = str(marker).encode()
    call = Call(os.system, f"touch {marker}")
    dumps = {
        "os.system": call,
        "subprocess": Call(subprocess.check_call, ["touch", str(marker)]),
        "eval": Call(builtins.eval, touch),
        "exec": Call(builtins.exec, touch),
        "open": Call(open, str(marker), "w"),
        "getattr": Call(builtins.getattr, "x", "upper"),
        "numpy.load": Call(np.load, str(marker), None, True),
        "numpy.fromfile": Call(np.fromfile, str(marker)),
        "numpy.memmap": Call(np.memmap, str(marker), "uint8", "w+", 0, (4,)),
        "numpy.savetxt": Call(np.savetxt, str(marker), [1]),
        "functools.partial": Call(__import__("functools").partial, os.system, f"touch {marker}"),
        "operator": Call(__import__("operator").methodcaller, "upper"),
        "importlib": Call(__import__("importlib").import_module, "antigravity"),
        "type": Call(type, "a", (), {}),
        "ordered": collections.OrderedDict(a=1),
        "object array": np.array([call], dtype=object),
        "in a state": Call(
            copyreg._reconstructor, object, object, None, state={"x": Call(os.system, f"touch {marker}")}
        ),
    }
    raw = {
        "numpy.testing": b"cnumpy.testing._private.utils\nrunstring\n(S'" + touch.encode() + b"'\n(dtR.",
        "numpy.f2py": b"cnumpy.f2py.crackfortran\nmyeval\n(S'1'\ntR.",
        "numpy.exec_command": b"cnumpy.distutils.exec_command\nexec_command\n(S'touch " + path + b"'\ntR.",
        "dotted name": b"\x80\x04\x8c\x05numpy\x94\x8c\x11ndarray.__class__\x94\x93.",
        "dotted module": b"cos\npath.os.system\n(S'true'\ntR.",
        "old instance": b"(S'touch " + path + b"'\nios\nsystem\n.",
        "new object": b"\x80\x02csubprocess\nPopen\n(S'true'\nt\x81.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent": b"Pnumber 5\n.",
        "state of a class": b"cchumpy.ch\nCh\n}S'__new__'\nI1\nsb.",
        "item of a class": b"cchumpy.ch\nCh\nS'a'\nI1\ns.",
    }
    return {**{name: pickle.dumps(value, protocol=2) for name, value in dumps.items()}, **raw}


@pytest.mark.parametrize("name", list(attacks("marker")))
def test_malicious_pickles_are_refused_and_nothing_happens(name, tmp_path):
    marker = tmp_path / "touched"
    data = attacks(marker)[name]
    before = set(sys.modules)
    with pytest.raises(LineamentError, match="refused|damaged"):
        load_pickle(data)
    assert not marker.exists()
    assert {"antigravity", "numpy.f2py.crackfortran"}.isdisjoint(set(sys.modules) - before)


def test_the_attacks_would_work_on_a_plain_unpickler(tmp_path):
    """So that the test above tests something."""
    marker = tmp_path / "touched"
    for name in ("os.system", "eval", "old instance", "object array"):
        pickle.load(io.BytesIO(attacks(marker)[name]))
        assert marker.exists(), name
        marker.unlink()


def test_stand_ins_are_not_changed_by_what_they_read(tmp_path):
    good = pickle.dumps({"a": np.arange(3)}, protocol=2)
    for data in attacks(tmp_path / "touched").values():
        with pytest.raises(LineamentError):
            load_pickle(data)
    np.testing.assert_array_equal(load_pickle(good)["a"], np.arange(3))


def test_arrays_that_lie_about_themselves_are_refused():
    honest = pickle.dumps(np.arange(4.0), protocol=2)
    assert load_pickle(honest).shape == (4,)
    longer = honest.replace(b"K\x04\x85", b"K\x40\x85")
    assert longer != honest
    with pytest.raises(LineamentError, match="do not fit its shape"):
        load_pickle(longer)
    matrix = sparse.csc_matrix(np.eye(3))
    matrix.indices[:] = 1000
    with pytest.raises(LineamentError, match="outside its shape"):
        load_pickle(pickle.dumps(matrix))
    with pytest.raises(LineamentError, match="no plain numbers"):
        load_pickle(pickle.dumps(np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])))
    with pytest.raises(LineamentError, match="no plain numbers"):
        load_pickle(pickle.dumps(np.array(["2020-01-01"], dtype="M8[D]")))


def test_cut_and_nested_pickles_are_errors():
    data = pickle.dumps({"a": np.arange(100.0)})
    for length in (0, 1, 10, len(data) // 2, len(data) - 1):
        with pytest.raises(LineamentError):
            load_pickle(data[:length])
    deep: list = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(LineamentError, match="nested"):
        load_pickle(pickle.dumps(deep))
