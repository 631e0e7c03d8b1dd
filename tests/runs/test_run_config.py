"""Recipes, files and overrides become one configuration, and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from trajlm.core.errors import UsageError
from trajlm.runs.config import RunConfig, changed_keys, resolve

RECIPE = "decision_transformer/debug"


def test_a_recipe_resolves_with_overrides_over_it() -> None:
    config = resolve(RECIPE, {"training": {"steps": 7}, "data": {"path": "a.hdf5"}, "seed": 3})
    assert (config.training.steps, config.data.path, config.seed) == (7, "a.hdf5", 3)
    assert config.recipe == RECIPE
    assert config.model.width == 32  # the recipe's own


def test_run_yaml_is_a_recipe_that_gives_the_same_run(tmp_path: Path) -> None:
    config = resolve(RECIPE, {"policy": {"target_return": [3.5, 1e-7]}, "seed": 4})
    file = tmp_path / "run.yaml"
    file.write_text(config.to_yaml())
    assert resolve(str(file)) == config


def test_a_file_of_ones_own_extends_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: {RECIPE}\ntraining: {{steps: 9}}\n")
    config = resolve(str(file))
    assert config.training.steps == 9
    assert config.training.batch_size == resolve(RECIPE).training.batch_size


@pytest.mark.parametrize(
    ("reference", "overrides", "named"),
    [
        ("decision_transformer/debgu", {}, "did you mean 'debug'"),
        ("decision_transfomer/debug", {}, "did you mean 'decision_transformer'"),
        ("decision_transformer", {}, "names no recipe"),
        (RECIPE, {"trainig": {}}, "did you mean 'training'"),
        (RECIPE, {"training": {"step": 3}}, "training.step'; did you mean 'steps'"),
        (RECIPE, {"model": {"widht": 3}}, "model.widht'; did you mean 'width'"),
        (RECIPE, {"policy": {"target": [1]}}, "policy.target'; did you mean 'target_return'"),
        (RECIPE, {"training": {"steps": "many"}}, "training.steps"),
        (RECIPE, {"training": {"steps": 0}}, "training.steps"),
        (RECIPE, {"model": 3}, "model: expected a mapping"),
        (RECIPE, {"threads": 0}, "threads"),
        ("nowhere.yaml", {}, "nowhere.yaml"),
    ],
)
def test_what_does_not_exist_is_named(reference: str, overrides: dict, named: str) -> None:
    with pytest.raises(UsageError, match="(?s)" + named.replace(".", r"\.")) as caught:
        resolve(reference, overrides)
    assert "\n" not in str(caught.value)


def test_a_key_written_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"extends: {RECIPE}\nseed: 1\nseed: 2\n")
    with pytest.raises(UsageError, match="written twice"):
        resolve(str(file))


def test_changed_keys_are_dotted() -> None:
    before = resolve(RECIPE)
    now: RunConfig = resolve(RECIPE, {"seed": 1, "model": {"width": 64}})
    assert changed_keys(before, now) == ["model.width", "seed"]
