"""The door: what `import trajlm` and the help load, and what the facade promises."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import trajlm

SOURCE = Path(trajlm.__file__).parent
HEAVY = {"torch", "gymnasium", "matplotlib", "mujoco", "h5py", "minari", "PIL", "imageio"}


def modules_after(code: str) -> set[str]:
    """Top names in sys.modules after `code` ran in a fresh interpreter."""
    program = f"import sys\n{code}\nimport json; print('@' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("@")
    return {name.split(".")[0] for name in json.loads(last[1:])}


def run_main(*arguments: str) -> str:
    return (
        "from trajlm.cli.main import main\n"
        f"try: status = main({list(arguments)!r})\n"
        "except SystemExit as stop: status = stop.code\n"
        "assert not status, status"
    )


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not modules_after("import trajlm") & {*HEAVY, "numpy"}


@pytest.mark.parametrize(
    "arguments",
    [
        *(("--help",), ("list",), ("train", "--help"), ("evaluate", "--help")),
        *(("reproduce",), ("reproduce", "--help")),
    ],
)
def test_help_and_list_load_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert not modules_after(run_main(*arguments)) & HEAVY


def test_config_modules_load_without_torch() -> None:
    code = (
        "from trajlm.core.discovery import algorithms\n"
        "for entry in algorithms().values(): entry.config_module, entry.recipes, entry.summary"
    )
    assert "torch" not in modules_after(code)


def test_every_name_of_the_facade_exists_and_says_what_it_does() -> None:
    for name in trajlm.__all__:
        value = getattr(trajlm, name)
        assert name == "__version__" or (value.__doc__ or "").strip(), name


def test_the_facade_names_what_it_does_not_have() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lode_dataset'"):
        _ = trajlm.lode_dataset


def test_importing_a_package_hides_no_name_of_the_facade() -> None:
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert not packages & set(trajlm.__all__)


def test_the_package_says_that_it_is_typed() -> None:
    assert (SOURCE / "py.typed").is_file()


def untyped(tree: ast.Module, path: str) -> list[str]:
    """Public functions and methods with an argument or result that has no type."""
    faults = []
    for scope in [tree, *(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef))]:
        for node in scope.body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            every = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            plain = [a.arg for a in every if a.annotation is None and a.arg not in ("self", "cls")]
            if plain or node.returns is None:
                faults.append(f"{path}:{node.lineno} {node.name} {plain or 'has no result type'}")
    return faults


def test_public_names_are_typed() -> None:
    faults = [
        fault
        for path in sorted(SOURCE.rglob("*.py"))
        for fault in untyped(ast.parse(path.read_text()), str(path.relative_to(SOURCE)))
    ]
    assert not faults, "\n".join(faults)
