"""What the four-rooms experiment measures: who reaches the goals of which episodes, and by which ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trajlm.reproduce.score_tables import share_reached

if TYPE_CHECKING:
    from trajlm.algorithms.base import Algorithm

FIRST_SEED = 1000
"""As in every evaluation: episode k is reset with this seed plus k."""
UNSHOWN_FROM, DRAWN_FROM = 100_000, 200_000
"""Where the seeds of further episodes begin, so that no two measurements share one."""
DRAWN_PAIRS = ((2, 0), (0, 1), (3, 1), (1, 2)), ((0, 3), (3, 0))
"""(from, to) rooms of the ways drawn: pairs that the recordings show, and pairs that they do not."""
DRAWN_DISTANCE = 5.0
DRAWN_BEAMS = 16


def seeds_of(rooms: Sequence[tuple[int, int]], *, number: int, first: int) -> list[int]:
    """The first `number` seeds, from `first` on, whose start and goal lie in one of these pairs of
    rooms."""
    from trajlm.envs.four_rooms import FourRooms, room_of

    world = FourRooms()

    def fits(seed: int) -> bool:
        world.reset(seed=seed)
        return (room_of(world.position), room_of(world.goal)) in rooms

    return list(islice(filter(fits, count(first)), number))


def shown_among(seeds: Sequence[int]) -> list[bool]:
    """Whether the recordings show ways between the rooms of each seed's start and goal."""
    from trajlm.collect.four_rooms import UNSHOWN
    from trajlm.envs.four_rooms import FourRooms, room_of

    world, shown = FourRooms(), []
    for seed in seeds:
        world.reset(seed=seed)
        shown.append((room_of(world.position), room_of(world.goal)) not in UNSHOWN)
    return shown


def reached_by_model(run: Path, *, env_id: str, seeds: Sequence[int]) -> list[float]:
    """Whether the last checkpoint of a run, with its own policy settings, reaches each goal: 1 or 0."""
    from trajlm.evaluation.rollout import rollout

    model, policy = _opened(run)
    found = rollout(model.policy(policy), env_id=env_id, seeds=[[seed] for seed in seeds])
    return [record.episode_return for (record,) in found.episodes]


def reached_by_planner(seeds: Sequence[int]) -> list[float]:
    """The same for the shortest way, walked without noise."""
    from trajlm.envs.four_rooms_planner import towards

    return _reached(seeds, lambda world, generator: towards(world.position, world.goal))


def reached_by_chance(seeds: Sequence[int]) -> list[float]:
    """The same for displacements drawn evenly from the action space."""
    from trajlm.envs.four_rooms import LONGEST_STEP

    return _reached(
        seeds, lambda world, generator: generator.uniform(-LONGEST_STEP, LONGEST_STEP, 2)
    )


def _reached(
    seeds: Sequence[int], act: Callable[[Any, np.random.Generator], np.ndarray]
) -> list[float]:
    from trajlm.envs.four_rooms import ENV_ID
    from trajlm.envs.make import make_environment

    environment = make_environment(ENV_ID)
    found = []
    for seed in seeds:
        generator = np.random.default_rng(seed)
        environment.reset(seed=seed)
        over = False
        while not over:
            action = act(environment.unwrapped, generator)
            _, reward, terminated, truncated, _ = environment.step(action)
            over = terminated or truncated
        found.append(float(reward))
    return found


def drawn_ways(run: Path, *, env_id: str, horizon: int, beam_width: int) -> list[dict[str, Any]]:
    """For each of `DRAWN_PAIRS` an episode: the path walked (T+1, 2), the goal, and the beams of a
    plan from its start, `horizon` steps long, each cut where it reaches the goal or comes nearest to it."""
    from trajlm.envs.make import make_vector
    from trajlm.evaluation.rollout import rollout

    model, policy = _opened(run)
    cases = [(pair, shown) for shown in (0, 1) for pair in DRAWN_PAIRS[shown]]
    seeds = [_far_apart(pair) for pair, _ in cases]
    found = rollout(
        model.policy(policy), env_id=env_id, seeds=[[seed] for seed in seeds], record=True
    )
    environment = make_vector(env_id, num_envs=len(seeds))
    step = environment.reset(seeds=np.array(seeds))
    planner = model.policy(
        policy, window="published", horizon=horizon, beam_width=beam_width,
        context=model.config.transitions,
    )  # fmt: skip
    plans = _futures(planner, step)
    ways = []
    for slot, (_, group) in enumerate(cases):
        (record,) = found.episodes[slot]
        assert record.trajectory is not None and step.goal is not None
        path, goal = record.trajectory.columns["observations"], step.goal[slot]
        beams = [_until(np.concatenate([path[:1], beam]), goal) for beam in plans[slot]]
        ways.append(
            {
                "shown": group == 0,
                "seed": seeds[slot],
                "path": _rounded(path),
                "goal": _rounded(goal),
                "beams": [_rounded(beam) for beam in beams[:DRAWN_BEAMS]],
                "reached": record.terminated,
            }
        )
    return ways


def _opened(run: Path) -> tuple[Algorithm, Any]:
    from trajlm.runs.folder import read_run
    from trajlm.training.checkpoint import load_artefact

    return load_artefact(run), read_run(run).policy


def _far_apart(rooms: tuple[int, int]) -> int:
    """The first seed of `rooms` whose start and goal are far from each other."""
    from trajlm.envs.four_rooms import FourRooms

    world = FourRooms()
    for seed in seeds_of([rooms], number=100, first=DRAWN_FROM):
        world.reset(seed=seed)
        if float(np.hypot(*np.subtract(world.position, world.goal))) > DRAWN_DISTANCE:
            return seed
    raise AssertionError(rooms)


def _futures(planner: Any, step: Any) -> list[np.ndarray]:
    """The places (P, H-1, 2) of every beam of a first plan, slot by slot."""
    from trajlm.planning.futures import Futures

    _, plans = planner.plan(planner.initial(len(step.seed)), step)
    model = planner.model
    return [
        Futures.of(tokens, layout=model.layout, discretizer=model.discretizer).observations
        for tokens in plans.tokens
    ]


def _until(places: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The places up to the first within the success radius of the goal, or else to the nearest:
    recordings end there, so what a plan holds after it means nothing."""
    from trajlm.envs.four_rooms import SUCCESS_RADIUS

    distances = np.linalg.norm(places - goal, axis=1)
    near = np.flatnonzero(distances <= SUCCESS_RADIUS)
    last = near[0] if len(near) else distances.argmin()
    return places[: int(last) + 1]


def _rounded(places: np.ndarray) -> Any:
    return np.asarray(places, np.float64).round(2).tolist()


def sample_of(data: str, number: int) -> list[Any]:
    """The places of the first recordings of a dataset, for the map's background."""
    from trajlm.data.load import load_dataset

    store = load_dataset(data)
    return [_rounded(store.rows("observations", each)) for each in range(min(number, len(store)))]


def summary(method: str, pairs: str, reached: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    """A row of the results; `reached` holds 1 or 0 for each episode, by training seed."""
    return {"method": method, "pairs": pairs, **share_reached(list(reached.values()))}
