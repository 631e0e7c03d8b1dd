"""Which algorithms take part in an experiment, and why another one cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TypeVar

from trajlm.core.discovery import algorithm
from trajlm.core.errors import TrajlmError, UsageError
from trajlm.reproduce.base import Experiment
from trajlm.runs.cells import Cell
from trajlm.runs.config import resolve

Updates = TypeVar("Updates")
USUAL_RECIPE = "small"
TITLES = {
    "decision_transformer": "Decision Transformer",
    "trajectory_transformer": "Trajectory Transformer",
    "behavior_cloning": "BC",
    "percent_behavior_cloning": "%BC",
    "percent_behavior_cloning/ten": "10%BC",
    "percent_behavior_cloning/twenty-five": "25%BC",
    "percent_behavior_cloning/forty": "40%BC",
    "dynamics_ensemble": "single-step ensemble",
    "implicit_q_learning": "IQL",
}


def recipes(experiment: Experiment, asked: Sequence[str]) -> tuple[str, ...]:
    """`asked`, or the experiment's own, as recipes ALGORITHM/RECIPE, each once.

    An algorithm without a recipe means the experiment's recipes of it, else its `small`. Raises
    `UsageError` with the nearest name, and for an algorithm that the experiment cannot take.
    """
    found: dict[str, None] = {}
    for reference in asked or experiment.algorithms:
        for recipe in _recipes_of(experiment, reference):
            resolve(recipe)
            reason = experiment.refuses(recipe)
            if reason is not None:
                raise UsageError(f"{recipe} cannot take part in {experiment.name}: {reason}")
            found[recipe] = None
    return tuple(found)


def _recipes_of(experiment: Experiment, reference: str) -> list[str]:
    if "/" in reference:
        return [reference]
    entry = algorithm(reference)
    own = [recipe for recipe in experiment.algorithms if recipe.split("/")[0] == reference]
    if own or USUAL_RECIPE in entry.recipes:
        return own or [f"{reference}/{USUAL_RECIPE}"]
    raise UsageError(f"{reference!r} names no recipe; write {reference}/{entry.recipes[0]}")


def algorithm_title(recipe: str) -> str:
    """A recipe, or an algorithm's name, as tables and pictures call it."""
    return TITLES.get(recipe) or TITLES.get(recipe.split("/")[0], recipe)


def titles(recipes: Sequence[str]) -> dict[str, str]:
    """What tables and pictures call each of several recipes: with the recipe's own name where there
    are two of one algorithm."""
    own = {recipe: algorithm_title(recipe) for recipe in recipes}
    several = {title for title in own.values() if list(own.values()).count(title) > 1}
    return {
        recipe: f"{title}, {recipe.partition('/')[2]}" if title in several else title
        for recipe, title in own.items()
    }


def first_of_each(recipes: Sequence[str]) -> list[str]:
    """The first recipe of each algorithm, in their order."""
    algorithms = [recipe.split("/")[0] for recipe in recipes]
    return [r for n, r in enumerate(recipes) if algorithms[n] not in algorithms[:n]]


def updates_of(recipe: str, updates: Mapping[str, Updates]) -> Updates:
    """What a scale says of a recipe's updates, by algorithm and for any `other`."""
    return updates.get(recipe.split("/")[0], updates["other"])


def takes_target(recipe: str) -> bool:
    """Whether the recipe's policy is asked for a return."""
    return has_setting(recipe, "policy.target_return")


def has_setting(recipe: str, name: str) -> bool:
    """Whether a recipe has a setting, such as `model.context_length`."""
    section, _, key = name.partition(".")
    return key in {field.name for field in fields(getattr(resolve(recipe), section))}


def predicts(recipe: str) -> bool:
    """Whether the recipe's model predicts states."""
    from trajlm.algorithms.base import Algorithm

    model = resolve(recipe).entry.algorithm_class
    return model.world_model is not Algorithm.world_model


def offers_critic(recipe: str) -> bool:
    """Whether the recipe's model is a critic too, so that it can guide another's plans."""
    from trajlm.runs.guide import critics

    return resolve(recipe).algorithm in critics()


def takes_guide(recipe: str) -> bool:
    """Whether the recipe's policy searches for what returns most, so that a critic can guide it."""
    return getattr(resolve(recipe).policy, "search", None) == "reward"


def refuse_misfits(cells: Sequence[Cell]) -> None:
    """Raise `UsageError` where a cell's algorithm cannot be built for the spaces of its data, or has
    no policy and is to be scored."""
    for recipe in sorted({cell.arguments[0] for cell in cells if cell.scored}):
        if not resolve(recipe).entry.algorithm_class.acts:
            raise UsageError(f"{recipe} cannot take part: it has no policy to score")
    pairs = {(cell.arguments[0], data_of(cell)) for cell in cells}
    for recipe, data in sorted(pairs):
        _refuse_misfit(recipe, data)


def data_of(cell: Cell) -> str:
    """What a training is trained on: a path or another reference."""
    return cell.arguments[cell.arguments.index("--data") + 1]


def _refuse_misfit(recipe: str, data: str) -> None:
    from trajlm.data.load import load_dataset

    config = resolve(recipe)
    spec = load_dataset(data).spec
    model = config.entry.algorithm_class
    try:
        model.windows(config.model, spec)
        model.build(config.model, spec, {})
    except Exception as error:  # an installed algorithm may raise anything
        kind = "" if isinstance(error, TrajlmError) else f"{type(error).__name__}: "
        raise UsageError(
            f"{recipe} cannot take part: it does not fit {spec.dataset or data}: {kind}{error}"
        ) from error
