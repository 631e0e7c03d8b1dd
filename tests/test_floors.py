"""The house keeps its floors: a module imports its own folder and lower floors, and nothing else.

The table is that of docs/architecture.md. Every import counts, wherever in the file it stands;
only the third-party rule `at_top` looks at the module's top alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "trajlm"

# What a folder may import of the project, besides itself. A dotted name is that module alone.
FLOORS: dict[str, set[str]] = {
    "core": set(),
    "data": {"core"},
    "envs": {"core"},
    "sequence": {"core", "data", "envs"},
    "nn": {"core"},
    "planning": {"core", "nn"},
    "algorithms": {
        "core",
        "data.store",
        "data.columns",
        "data.statistics",
        "sequence.batch",
        "nn",
        "planning",
        "algorithms.base",
    },
    "training": {"core", "data", "envs", "sequence", "nn", "planning", "algorithms.base"},
    "evaluation": {"core", "data", "envs", "sequence", "nn", "planning", "algorithms.base"},
    "collect": {"core", "data", "envs"},
    "report": {"core", "evaluation.scores", "evaluation.protocol"},
}
FLOORS["convert"] = {"core", "data", "training", "algorithms.base"}
FLOORS["runs"] = set(FLOORS) - {"report", "convert"}
BELOW = set(FLOORS)
FLOORS["bench"] = BELOW - {"report", "convert"}
FLOORS["reproduce"] = BELOW - {"convert"}
FLOORS["cli"] = {*FLOORS, "cli"}

# Third-party packages by the modules (files or folders under src/trajlm) that may import them.
EVERYWHERE = {"numpy", "trajlm"}
THIRD_PARTY: dict[str, set[str]] = {
    "yaml": {"core/config.py", "runs"},
    "torch": {
        "sequence",
        "nn",
        "planning",
        "algorithms",
        "training",
        "evaluation",
        "convert",
        "runs",
        "bench",
        "reproduce",
        "cli",
    },
    "safetensors": {"training", "collect", "convert", "data"},
    "gymnasium": {"envs", "evaluation", "data/sources/minari.py", "cli"},
    "h5py": {"data/sources", "bench"},
    "minari": {"data/sources/minari.py"},
    "minigrid": {"envs/minigrid.py"},
    "gymnasium_robotics": {"envs/robotics.py"},
    "mujoco": {"envs", "evaluation", "cli", "runs"},
    "PIL": {"evaluation"},
    "imageio": {"evaluation/video.py"},
    "imageio_ffmpeg": {"evaluation/video.py"},
    "matplotlib": {"report", "reproduce"},
    "tyro": {"cli"},
    "rich": {"cli", "training/metrics.py"},
    "tensorboard": {"training/metrics.py"},
    "transformers": {"bench"},
}
TORCH_FREE_AT_TOP = ("core", "data", "envs", "collect", "report", "reproduce", "cli")


@dataclass(frozen=True, kw_only=True)
class Import:
    """`name` is imported by the file `path` (relative to the package) at `line`."""

    path: str
    line: int
    name: str
    at_top: bool

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.name}"


def imports_of(tree: ast.Module, path: str) -> Iterator[Import]:
    """Every import in a file, with `from a import b` read as `a.b`."""
    deferred = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _for_types_only(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the whole name, no dots"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            at_top = id(node) not in deferred
            yield Import(path=path, line=node.lineno, name=name, at_top=at_top)


def _for_types_only(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def all_imports() -> list[Import]:
    return [
        found
        for path in sorted(SOURCE.rglob("*.py"))
        for found in imports_of(ast.parse(path.read_text()), path.relative_to(SOURCE).as_posix())
    ]


def floor_fault(found: Import) -> str | None:
    """What is wrong with an import inside the project, or None."""
    folder = found.path.split("/")[0]
    if folder == "__init__.py" or not found.name.startswith("trajlm."):
        return None  # the facade stands above all floors
    if folder not in FLOORS:
        return f"{found}, but {folder!r} has no floor in this table"
    target = found.name.removeprefix("trajlm.")
    if target == "__version__":
        return None
    own = "/".join(found.path.split("/")[:2]) if folder == "algorithms" else folder
    if target.split(".")[0] == folder and folder != "algorithms":
        return None
    if folder == "algorithms" and target.startswith(own.replace("/", ".") + "."):
        return None
    if any(target == allowed or target.startswith(allowed + ".") for allowed in FLOORS[folder]):
        return None
    return f"{found}: {own} may import {sorted(FLOORS[folder])}"


def third_party_fault(found: Import, standard_library: frozenset[str]) -> str | None:
    package = found.name.split(".")[0]
    if package in standard_library or package in EVERYWHERE:
        return None
    if package == "torch" and found.at_top:
        name = found.path.split("/")[-1]
        if name in ("__init__.py", "config.py") or found.path.startswith(TORCH_FREE_AT_TOP):
            return f"{found}: torch may not be imported at this module's top"
    allowed = THIRD_PARTY.get(package, set())
    if any(found.path == place or found.path.startswith(place + "/") for place in allowed):
        return None
    return f"{found}: only {sorted(allowed)} may"


def test_a_module_imports_its_own_folder_and_lower_floors() -> None:
    faults = [fault for found in all_imports() if (fault := floor_fault(found))]
    assert not faults, "\n".join(faults)


def test_third_party_packages_stay_where_they_belong() -> None:
    import sys

    faults = [
        fault
        for found in all_imports()
        if (fault := third_party_fault(found, sys.stdlib_module_names))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("core/spec.py", "from trajlm.data.store import TrajectoryStore"),
        ("data/store.py", "def f():\n    import trajlm.sequence.batch"),
        ("training/trainer.py", "from trajlm.evaluation.rollout import rollout"),
        ("training/trainer.py", "from trajlm.algorithms.decision_transformer import model"),
        ("algorithms/one/model.py", "from trajlm.algorithms.two.config import Config"),
        ("algorithms/one/model.py", "from trajlm.data.load import load_dataset"),
        ("report/page.py", "from trajlm.evaluation.evaluate import evaluate"),
        ("runs/offline.py", "from trajlm.convert.huggingface import load"),
        ("attic/page.py", "from trajlm.core.errors import DataError"),
    ],
)
def test_an_import_upwards_or_sideways_is_found(path: str, line: str) -> None:
    assert any(floor_fault(found) for found in imports_of(ast.parse(line), path))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("core/spec.py", "def f():\n    import h5py"),
        ("data/load.py", "import torch"),
        ("algorithms/one/config.py", "from torch import nn"),
        ("evaluation/scores.py", "import matplotlib.pyplot"),
        ("nn/heads.py", "import a_package_nobody_declared"),
    ],
)
def test_a_third_party_import_out_of_place_is_found(path: str, line: str) -> None:
    import sys

    found = list(imports_of(ast.parse(line), path))
    assert any(third_party_fault(one, sys.stdlib_module_names) for one in found)


# The one module that opens foreign weights, and it asks for tensors alone.
TENSORS_ALONE = {"convert/tensors.py"}


def unsafe_calls(tree: ast.Module, path: str) -> Iterator[str]:
    """Ways for a file to run code: pickles in any dress, and calls that switch a guard off."""
    for found in imports_of(tree, path):
        if found.name.split(".")[0] in {"pickle", "cloudpickle", "dill", "joblib", "marshal"}:
            yield str(found)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        where, called = f"{path}:{node.lineno}", ast.unparse(node.func)
        keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        tensors_alone = path in TENSORS_ALONE and keywords.get("weights_only") is True
        if called == "torch.load" and not tensors_alone:
            yield f"{where}: torch.load; artefacts are safetensors and JSON"
        if called in {"np.load", "numpy.load"} and keywords.get("allow_pickle") is not False:
            yield f"{where}: np.load without allow_pickle=False"
        if keywords.get("allow_pickle", False) is not False:
            yield f"{where}: allow_pickle"
        if keywords.get("weights_only", True) is not True:
            yield f"{where}: weights_only"
        if keywords.get("trust_remote_code", False) is not False:
            yield f"{where}: trust_remote_code"
        if called in {"eval", "exec", "compile", "os.system", "yaml.unsafe_load"}:
            yield f"{where}: {called}"


def test_nothing_is_unpickled_and_no_file_runs_code() -> None:
    faults = [
        fault
        for path in sorted(SOURCE.rglob("*.py"))
        for fault in unsafe_calls(ast.parse(path.read_text()), path.relative_to(SOURCE).as_posix())
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "read(path, weights_only=False)",
        "exec(text)",
    ],
)
def test_an_unsafe_call_is_found(line: str) -> None:
    assert list(unsafe_calls(ast.parse(line), "data/load.py"))


def test_every_room_has_a_name_of_its_own() -> None:
    nameless = {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"}
    assert not [path for path in SOURCE.rglob("*.py") if path.name in nameless]
