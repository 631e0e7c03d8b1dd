"""Open-loop predictions of a body beside the truth, measured: what long-horizon's parts hold.

Legend: N windows, H horizon, O observation entries, S samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trajlm.core.protocols import Policy, Prediction, WorldModel
from trajlm.core.seeding import normal
from trajlm.evaluation.predictions import (
    Recorded,
    distance,
    errors,
    gaussian_log_likelihoods,
    log_likelihoods,
    medians,
    recorded_windows,
)
from trajlm.evaluation.scores import bootstrap_interval, wilson_interval

if TYPE_CHECKING:
    from trajlm.algorithms.base import Algorithm
    from trajlm.data.store import TrajectoryStore
    from trajlm.evaluation.physics import Measured, Physics, Plain

NUDGE_STREAM, SAMPLE_SEED = 0x4D6E, 1_000_003
DIGITS = 5
Curve = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a body's predictions are measured on and by.

    `mean` and `std` (O,), `reached` (2, O), lowest and highest: of the training data. `plain`: what true states hardly leave; `true`: of
    the states that truly followed (N x H). `shown`: the window that pictures show.
    """

    recorded: Recorded
    mean: np.ndarray
    std: np.ndarray
    reached: np.ndarray
    physics: Physics
    plain: Plain
    true: Measured
    nudge: float
    apart: np.ndarray
    shown: int

    @classmethod
    def of(cls, env_id: str, *, train: str, truth: str, settings: Mapping[str, Any]) -> Scene:
        """From the data that models are trained on, and fresh episodes of the same behaviours."""
        from trajlm.data.load import load_dataset
        from trajlm.data.statistics import column_statistics
        from trajlm.evaluation.physics import Physics, Plain

        learnt = load_dataset(train)
        statistics = column_statistics(learnt, "observations")
        recorded = recorded_windows(
            load_dataset(truth),
            known=settings["known"],
            horizon=settings["horizon"],
            count=settings["starts"],
        )
        physics = Physics(env_id)
        true = physics.measure(recorded.observations.reshape(-1, recorded.observations.shape[-1]))
        nudge = float(settings["nudge"])
        apart = _chaos(physics, recorded, std=statistics.std, nudge=nudge)
        # The window in which truth itself is of middling sensitivity: models have no say in it.
        final = apart[:, -1]
        return cls(
            recorded=recorded,
            mean=statistics.mean,
            std=statistics.std,
            reached=_reached(learnt),
            physics=physics,
            plain=Plain.of(true),
            true=true,
            nudge=nudge,
            apart=apart,
            shown=int(np.argsort(final, kind="stable")[len(final) // 2]),
        )


def _reached(store: TrajectoryStore) -> np.ndarray:
    """(2, O): the lowest and the highest value of each entry of observations."""
    rows = [np.asarray(segment.columns["observations"]) for segment in store.segments]
    lowest = np.min([each.min(axis=0) for each in rows], axis=0)
    return np.stack([lowest, np.max([each.max(axis=0) for each in rows], axis=0)])


def _chaos(physics: Physics, recorded: Recorded, *, std: np.ndarray, nudge: float) -> np.ndarray:
    """(N, H): the error of two true rollouts under the recorded actions, whose starts are `nudge`
    deviations apart in each entry."""
    count, size = recorded.present.shape
    moved = normal(np.arange(count), np.zeros(count, int), lanes=size, stream=NUDGE_STREAM)
    near = recorded.present + nudge * std * moved
    pairs = [
        np.stack([physics.replay(one, acted), physics.replay(other, acted)])
        for one, other, acted in zip(recorded.present, near, recorded.actions, strict=True)
    ]
    both = np.stack(pairs)  # (N, 2, H, O)
    return errors(both[:, 1], both[:, 0], std=std)


def truth(scene: Scene) -> dict[str, Any]:
    """The chaos floor, what the data's own deviations say, and the true bodies."""
    recorded = scene.recorded
    likelihood = gaussian_log_likelihoods(recorded.observations, mean=scene.mean, std=scene.std)
    return {
        "windows": len(recorded.present),
        "nudge": scene.nudge,
        "error": curve(scene.apart),
        "log_likelihood": curve(likelihood),
        **_worth(scene, scene.true, seeds=1),
        "plain": {
            "energy": list(scene.plain.energy),
            "overshoot": scene.plain.overshoot,
        },
        "shown": _shown(scene, recorded.observations),
    }


def rollouts(
    scene: Scene,
    models: Sequence[Algorithm],
    *,
    policies: Sequence[Policy | None] = (),
    chosen: bool,
    samples: int,
    bounded: bool = False,
) -> dict[str, Any]:
    """Predictions of one method, a model a seed, from all windows: error, likelihood under recorded
    actions, plausibility where the whole state is predicted.

    `chosen`: the actions are the model's own, or those of the seed's policy; else as recorded.
    `bounded`: no state may leave the range of the data, which bins never do.
    """
    recorded = scene.recorded
    drivers = list(policies) or [None] * len(models)
    found: dict[str, Any] = {}
    apart, density, points = [], [], []
    for number, (model, driver) in enumerate(zip(models, drivers, strict=True)):
        world: Any = model.world_model()
        world = replace(world, within=scene.reached) if bounded else world
        point = _predict(world, scene, actions=_actions(world, scene, chosen, driver))
        size = point.observations.shape[-1]
        true, std = recorded.observations[..., :size], scene.std[:size]
        points.append(point.observations)
        apart.append(errors(point.observations, true, std=std))
        if not chosen:
            drawn = _drawn(world, scene, draws=samples * number + np.arange(samples))
            density.append(log_likelihoods(drawn, true, std=std))
    found["error"] = curve(np.concatenate(apart))
    if density:
        found["log_likelihood"] = curve(np.concatenate(density))
    moving = points[0].shape[-1] == len(scene.std)
    measured = scene.physics.measure(_whole_states(points, size=len(scene.std)))
    found |= _worth(scene, measured, seeds=len(models), moving=moving)
    if moving:
        found["shown"] = _shown(scene, points[0])
    return found


def _whole_states(points: Sequence[np.ndarray], *, size: int) -> np.ndarray:
    """Predictions (N, H, O') of each seed as states (M, `size`), standing still in entries unseen."""
    every = np.concatenate(points)
    unseen = np.zeros((*every.shape[:-1], size - every.shape[-1]))
    return np.concatenate([every, unseen], axis=-1).reshape(-1, size)


def in_bins(scene: Scene, model: Any) -> dict[str, Any]:
    """The true dynamics under the recorded actions, each state rounded to the bins of `model`: what a
    perfect model of such tokens that sees one state can do."""
    import torch

    bins, recorded = model.discretizer, scene.recorded

    def rounded(observation: np.ndarray) -> np.ndarray:
        tokens = bins.encode(torch.from_numpy(observation)[None])
        return np.asarray(bins.decode(tokens)[0].double().numpy())

    with torch.inference_mode():
        followed = np.stack(
            [
                scene.physics.replay(present, acted, rounded=rounded)
                for present, acted in zip(recorded.present, recorded.actions, strict=True)
            ]
        )
    measured = scene.physics.measure(followed.reshape(-1, followed.shape[-1]))
    apart = errors(followed, recorded.observations, std=scene.std)
    return {"error": curve(apart), **_worth(scene, measured, seeds=1)}


def _actions(
    world: WorldModel, scene: Scene, chosen: bool, driver: Policy | None
) -> np.ndarray | Policy | None:
    if not chosen:
        return scene.recorded.actions
    return None if world.models_actions else driver


def _predict(world: WorldModel, scene: Scene, *, actions: Any) -> Prediction:
    """The likeliest future of every window."""
    past, horizon = scene.recorded.past.last(world.context), scene.recorded.observations.shape[1]
    return world.predict(past, horizon=horizon, actions=actions)


def _drawn(world: WorldModel, scene: Scene, *, draws: np.ndarray) -> np.ndarray:
    """(S, N, H, O): futures of every window under the recorded actions, of these draws (S,); all at
    once, for a pass of few rows costs as much as one of many."""
    recorded = scene.recorded
    count, horizon = recorded.observations.shape[:2]
    rows = np.tile(np.arange(count), len(draws))
    seeds = SAMPLE_SEED * (np.repeat(draws, count) + 1) + rows
    found = world.predict(
        recorded.past.last(world.context).select(rows),
        horizon=horizon, actions=recorded.actions[rows], seeds=seeds,
    )  # fmt: skip
    return found.observations.reshape(len(draws), count, horizon, -1)


def _worth(scene: Scene, measured: Measured, *, seeds: int, moving: bool = True) -> dict[str, Any]:
    """Which share of bodies is plausible, by step and over the later half; how far their heights and
    speeds are from the true ones' there. Of bodies not `moving` energy and speed say nothing."""
    count, horizon = len(scene.recorded.present), scene.recorded.observations.shape[1]
    plausible = scene.plain.plausible(measured, moving=moving).reshape(seeds * count, horizon)
    later = np.zeros((count, horizon), bool)
    later[:, horizon // 2 :] = True
    predicted = np.tile(later, (seeds, 1)).ravel()
    own = plausible[:, horizon // 2 :].mean(axis=1)
    found = {
        "plausible": _shares(plausible),
        "plausible_later": {"share": float(own.mean()), "interval": bootstrap_interval(own)},
        "healthy_later": float(measured.healthy[predicted].mean()),
        "within_limits_later": float(
            (measured.overshoot[predicted] <= scene.plain.overshoot).mean()
        ),
        "height_apart": distance(measured.height[predicted], scene.true.height[later.ravel()]),
    }
    if moving:
        apart = distance(measured.speed[predicted], scene.true.speed[later.ravel()])
        found["speed_apart"] = apart
    return found


def _shares(held: np.ndarray) -> Curve:
    """In which share of rows (N, H) it held, by step, with the ends of the intervals."""
    intervals = [wilson_interval(int(n), len(held)) for n in held.sum(axis=0)]
    return {
        "value": _rounded(held.mean(axis=0)),
        "low": _rounded([low for low, _ in intervals]),
        "high": _rounded([high for _, high in intervals]),
    }


def curve(values: np.ndarray) -> Curve:
    """Medians over windows (N, H) with the ends of their intervals, as plain lists."""
    named = zip(("value", "low", "high"), medians(values), strict=True)
    return {name: _rounded(each) for name, each in named}


def _shown(scene: Scene, observations: np.ndarray) -> list[list[float]]:
    """The shown window's observations (H + 1, O), the present one first."""
    chosen = np.concatenate([scene.recorded.present[scene.shown][None], observations[scene.shown]])
    return [_rounded(row) for row in np.clip(np.nan_to_num(chosen), -1e6, 1e6)]


def _rounded(values: Any) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in np.asarray(values, np.float64)]


def best_model(run: Path) -> Algorithm:
    """The checkpoint of the best held-out loss; the last one where nothing was held out."""
    from trajlm.training.checkpoint import artefact_folder, load_artefact

    held_out = (run / "checkpoints" / "best").exists()
    return load_artefact(artefact_folder(run, which="best" if held_out else "last"))
