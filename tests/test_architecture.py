"""The three floors: models <- ops <- assets, never the other way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "models": {"ops", "assets", "dagster", "dvc", "dagster_pipes"},
    "ops": {"assets", "dagster", "dvc"},
    "benchmarks": {"dvc"},
}
RESTRICTED = ROOT / "ops" / "parametric" / "restricted.py"
UNSAFE_OR_ABSENT = {"torchvision", "lpips", "smplx", "pytorch3d", "nvdiffrast"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("floor", FORBIDDEN)
def test_no_floor_imports_from_above(floor):
    wrong = {str(p.relative_to(ROOT)): imported(p) & FORBIDDEN[floor] for p in (ROOT / floor).rglob("*.py")}
    assert {path: names for path, names in wrong.items() if names} == {}


@pytest.mark.parametrize("floor", ["models", "ops", "assets", "benchmarks"])
def test_packages_that_must_not_be_used(floor):
    wrong = {str(p.relative_to(ROOT)): imported(p) & UNSAFE_OR_ABSENT for p in (ROOT / floor).rglob("*.py")}
    assert {path: names for path, names in wrong.items() if names} == {}


@pytest.mark.parametrize("floor", ["models", "ops", "assets", "benchmarks"])
def test_nothing_is_unpickled(floor):
    """``pickle`` may be named for its exception, never to load; torch.load always says weights_only=True.

    One file derives a reader from ``pickle.Unpickler`` that finds no class but its own; tests/ops/parametric tries it.
    """
    wrong = []
    for path in (ROOT / floor).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pickle":
                allowed = {"UnpicklingError"} | ({"Unpickler"} if path == RESTRICTED else set())
                wrong += [f"{path.name}:{node.lineno}"] * (node.attr not in allowed)
            if isinstance(node, ast.ImportFrom) and node.module in {"pickle", "_pickle", "cPickle", "dill"}:
                wrong.append(f"{path.name}:{node.lineno}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
                wrong += [f"{path.name}:{node.lineno}"] * (not safe)
    assert wrong == []


def test_the_restricted_reader_finds_its_own_classes_only():
    """Its one use of pickle is a subclass that overrides how names become objects, without ever asking the parent."""
    tree = ast.parse(RESTRICTED.read_text(encoding="utf-8"))
    derived = [
        n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and "pickle.Unpickler" in map(ast.unparse, n.bases)
    ]
    uses = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n) == "pickle.Unpickler"]
    assert len(derived) == len(uses) == 1
    assert "find_class" in {n.name for n in derived[0].body if isinstance(n, ast.FunctionDef)}
    assert not any(isinstance(n, ast.Call) and ast.unparse(n.func) == "super" for n in ast.walk(derived[0]))
    assert not {"importlib", "os", "sys", "builtins"} & imported(RESTRICTED)
