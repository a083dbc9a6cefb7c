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
UNSAFE_OR_ABSENT = {"torchvision", "lpips", "smplx", "pytorch3d", "nvdiffrast", "pickle"}


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
