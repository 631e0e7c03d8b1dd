"""The built wheel, installed into an environment of its own, works without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

LOADS_A_BEHAVIOUR = """
import trajlm
from trajlm.collect.behaviour import behaviour_index, load_behaviour
assert "site-packages" in trajlm.__file__, trajlm.__file__
assert {"halfcheetah", "hopper", "walker2d"} <= set(behaviour_index())
for body in behaviour_index():
    for name in ("expert", "medium", "replay-0"):
        assert load_behaviour(body, name) is not None
"""

BUILDS_A_RECIPE = """
from trajlm.core.config import from_mapping
from trajlm.core.discovery import find_recipe
from trajlm.data.sources.synthetic import synthetic
entry, mapping = find_recipe("decision_transformer/debug")
config = from_mapping(entry.config_module.Config, mapping.get("model", {}))
algorithm = entry.algorithm_class
prepared = algorithm.prepare(config, synthetic("box", episodes=3, seed=0))
print(sum(p.numel() for p in algorithm.build(config, prepared.store.spec, prepared.fitted).parameters()))
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that does not see the checkout."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no `build/` folder of earlier days slips into it."""
    pytest.importorskip("setuptools", minversion="77")
    copy = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(REPOSITORY / "src", copy / "src", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", copy / "dist", ".", cwd=copy)
    return next((copy / "dist").glob("trajlm-*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new environment with the wheel in it.

    Third-party packages are not installed a second time (torch alone takes a minute): a .pth line
    shows this interpreter's site-packages behind the new one's. Python does not read the .pth
    files found there, so an editable install of the checkout stays invisible.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    parents = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(site.strip()) / "parent.pth").write_text("\n".join(sorted(parents)) + "\n")
    return folder / "bin"


def test_the_wheel_holds_what_the_package_reads(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    source = REPOSITORY / "src"
    expected = {
        path.relative_to(source).as_posix()
        for path in (source / "trajlm").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected <= names, sorted(expected - names)
    assert not [name for name in names if name.startswith(("tests", "scripts"))]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_installed_program_lists(environment: Path, tmp_path: Path) -> None:
    listed = run(environment / "trajlm", "list", cwd=tmp_path)
    assert "decision_transformer" in listed
    assert "halfcheetah" in listed
    assert run(environment / "trajlm", "--version", cwd=tmp_path).startswith("trajlm 0.")


def test_the_installed_package_loads_a_behaviour(environment: Path, tmp_path: Path) -> None:
    run(environment / "python", "-c", LOADS_A_BEHAVIOUR, cwd=tmp_path)


def test_the_installed_package_builds_a_recipe(environment: Path, tmp_path: Path) -> None:
    assert int(run(environment / "python", "-c", BUILDS_A_RECIPE, cwd=tmp_path)) > 0
