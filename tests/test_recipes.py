"""Every shipped recipe of every algorithm that is found parses and builds."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import yaml

from trajlm.core.config import read_yaml
from trajlm.core.discovery import algorithms
from trajlm.core.errors import UsageError
from trajlm.data.sources.synthetic import synthetic
from trajlm.data.store import TrajectoryStore
from trajlm.runs.config import from_run_mapping, resolve
from trajlm.sequence.loader import Loader

RECIPES = [f"{name}/{recipe}" for name, entry in algorithms().items() for recipe in entry.recipes]


@cache
def store() -> TrajectoryStore:
    return synthetic("box", episodes=6, seed=0)


def test_recipes_are_found() -> None:
    assert "decision_transformer/debug" in RECIPES


def test_every_algorithm_has_a_debug_recipe_and_a_summary() -> None:
    for name, entry in algorithms().items():
        assert "debug" in entry.recipes, name
        assert entry.summary.endswith("."), name


@pytest.mark.parametrize("reference", RECIPES)
def test_a_shipped_recipe_parses(reference: str) -> None:
    config = resolve(reference)
    assert config.recipe == reference
    assert from_run_mapping(yaml.safe_load(config.to_yaml())) == config


@pytest.mark.parametrize("reference", RECIPES)
def test_a_shipped_recipe_builds_on_data(reference: str) -> None:
    """The model is built for a dataset's spec and takes a batch of the windows that it asks for."""
    run = resolve(reference)
    algorithm: Any = run.entry.algorithm_class
    prepared = algorithm.prepare(run.model, store())
    spec = prepared.store.spec
    model = algorithm.build(run.model, spec, prepared.fitted)
    loader = Loader(prepared.store, algorithm.windows(run.model, spec), batch_size=2, seed=0)
    with torch.no_grad():
        loss = model(loader.batch(0))
    assert torch.isfinite(loss.value), reference


@pytest.mark.parametrize("reference", RECIPES)
def test_a_recipe_with_a_misspelt_key_is_refused(reference: str) -> None:
    with pytest.raises(UsageError, match=r"model\.contextt_length"):
        resolve(reference, {"model": {"contextt_length": 1}})


def test_recipe_files_hold_no_recipe_that_extends_nothing_known() -> None:
    for entry in algorithms().values():
        recipes = read_yaml(entry.recipes_path)
        for name, delta in recipes.items():
            assert (delta or {}).get("extends", "debug") in recipes, name
