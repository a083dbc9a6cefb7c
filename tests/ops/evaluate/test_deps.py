"""Stages of evaluation name the code they run: a change in it must run them again, a change elsewhere must not."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]


def imported(module: str) -> set[str]:
    """Files of ops/evaluate that a module there imports, at its top or in its functions, directly or through others."""
    found: set[str] = set()
    todo = [module]
    while todo:
        path = Path(*todo.pop().split(".")).with_suffix(".py")
        if path.as_posix() in found or not (ROOT / path).is_file():
            continue
        found.add(path.as_posix())
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ops.evaluate"):
                todo += [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
    return found


STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
MODULES = {name: entry["cmd"].split()[2] for name, entry in STAGES.items() if "cmd" in entry}


@pytest.mark.parametrize("stage", [name for name, module in MODULES.items() if module.startswith("ops.evaluate.")])
def test_a_stage_depends_on_the_evaluation_code_that_it_imports(stage):
    entry, module = STAGES[stage], MODULES[stage]
    declared = {dep for dep in entry["deps"] if dep.startswith("ops/evaluate")}
    used = imported(module)
    assert f"{module.replace('.', '/')}.py" in used
    missing = {path for path in used if not any(path == dep or path.startswith(f"{dep}/") for dep in declared)}
    assert not missing
    assert {dep for dep in declared if dep.endswith(".py")} <= used
