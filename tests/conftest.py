"""What every test stands on: datasets and caches in a temporary folder, never in the home folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _folders_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Minari's root, the store's cache and this checkout, for this process and those it starts."""
    root = tmp_path_factory.mktemp("home")
    paths = [str(REPOSITORY / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.environ["MINARI_DATASETS_PATH"] = str(root / "minari")
    os.environ["TRAJLM_CACHE"] = str(root / "cache")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY
