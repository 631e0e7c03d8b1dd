"""The Decision Transformer beside behaviour cloning where observations and actions are integers.

    python scripts/discrete_worlds.py results/discrete

collects `trajlm/WORLD/mixed-v0` from behaviours of mixed skill, trains every cell (method, world,
seed) and writes `rows.jsonl` (a line a cell, with its command) and `table.md`. A second call goes on.

FrozenLake: greedy policies of one run of Q-learning at several ages. CartPole: linear policies picked
by their return. MiniGrid's lava gap: a planner that avoids the lava, one that does not see it, and a
walker.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from trajlm.core.trajectory import Trajectory
from trajlm.data.sources.minari_form import folder_of
from trajlm.data.sources.minari_writer import write
from trajlm.envs.make import make_environment
from trajlm.envs.spaces import from_gymnasium
from trajlm.runs.cells import Cell, run_cells, told

Behaviour = Callable[[gymnasium.Env[Any, Any], Any], int]
"""(environment, observation) -> action. A scripted one may look into the environment."""
METHODS = {"DT": "decision_transformer/discrete", "BC": "behavior_cloning/discrete"}


# ---- FrozenLake -----------------------------------------------------------------------------------


def frozen_lake(generator: np.random.Generator) -> list[tuple[Behaviour, int]]:
    """(behaviour, episodes): Q-learning's greedy policies at several ages, a fifth of steps random."""
    environment = make_environment("FrozenLake-v1")
    values = np.zeros((16, 4))
    behaviours: list[tuple[Behaviour, int]] = []
    ages = {100: 500, 1_000: 500, 3_000: 300, 20_000: 300}
    for episode in range(max(ages)):
        state, _ = environment.reset(seed=episode)
        done = False
        while not done:
            explore = generator.random() < 0.5
            action = int(generator.integers(4)) if explore else int(values[state].argmax())
            following, reward, terminated, truncated, _ = environment.step(action)
            goal = reward + 0.99 * values[following].max() * (not terminated)
            values[state, action] += 0.05 * (goal - values[state, action])
            state, done = following, terminated or truncated
        if episode + 1 in ages:
            greedy = values.argmax(axis=1)
            behaviours.append((noisy(table_policy(greedy), 4, 0.2, generator), ages[episode + 1]))
    return behaviours


def table_policy(actions: np.ndarray) -> Behaviour:
    return lambda _, observation: int(actions[observation])


# ---- CartPole -------------------------------------------------------------------------------------


def cart_pole(generator: np.random.Generator) -> list[tuple[Behaviour, int]]:
    """Linear policies nearest to four returns, by random search; about equally many steps of each."""
    environment = make_environment("CartPole-v1")
    drawn = generator.normal(size=(400, 4))
    returns = np.array(
        [
            np.mean([episode_return(environment, linear(w), seed) for seed in range(5)])
            for w in drawn
        ]
    )
    behaviours: list[tuple[Behaviour, int]] = []
    for wanted, steps in ((40, 10_000), (100, 10_000), (200, 10_000), (500, 10_000)):
        nearest = np.argsort(np.abs(returns - wanted))[:3]
        for choice in nearest:
            episodes = max(1, int(steps / 3 / returns[choice]))
            behaviours.append((noisy(linear(drawn[choice]), 2, 0.05, generator), episodes))
    return behaviours


def linear(weights: np.ndarray) -> Behaviour:
    return lambda _, observation: int(observation @ weights > 0)


def episode_return(environment: gymnasium.Env[Any, Any], behaviour: Behaviour, seed: int) -> float:
    return roll(environment, behaviour, seed).episode_return


# ---- MiniGrid -------------------------------------------------------------------------------------

LEFT, RIGHT, FORWARD = 0, 1, 2
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def lava_gap(generator: np.random.Generator) -> list[tuple[Behaviour, int]]:
    return [
        (noisy(planner(careful=True), 3, 0.1, generator), 300),
        (noisy(planner(careful=False), 3, 0.1, generator), 900),
        (walker(generator), 100),
    ]


def planner(*, careful: bool) -> Behaviour:
    """The first action of a shortest path to the goal, around the lava or straight through it."""

    def act(environment: gymnasium.Env[Any, Any], _: Any) -> int:
        world: Any = environment.unwrapped
        blocked = {"wall", "lava"} if careful else {"wall"}

        def free(x: int, y: int) -> bool:
            cell = world.grid.get(x, y)
            return cell is None or cell.type not in blocked

        return shortest(tuple(world.agent_pos), int(world.agent_dir), goal_of(world), free)

    return act


def goal_of(world: Any) -> tuple[int, int]:
    cells = ((x, y) for x in range(world.width) for y in range(world.height))
    return next((x, y) for x, y in cells if getattr(world.grid.get(x, y), "type", "") == "goal")


def shortest(
    place: tuple[int, int], facing: int, goal: tuple[int, int], free: Callable[[int, int], bool]
) -> int:
    """Breadth first over places and directions."""
    waiting = deque([((int(place[0]), int(place[1])), facing, -1)])
    seen = set()
    while waiting:
        (x, y), direction, first = waiting.popleft()
        if (x, y) == goal:
            return max(first, LEFT)
        if ((x, y), direction) in seen:
            continue
        seen.add(((x, y), direction))
        ahead = (x + STEPS[direction][0], y + STEPS[direction][1])
        options = [(LEFT, (x, y), (direction - 1) % 4), (RIGHT, (x, y), (direction + 1) % 4)]
        if free(*ahead):
            options.insert(0, (FORWARD, ahead, direction))
        waiting.extend((p, d, action if first < 0 else first) for action, p, d in options)
    return LEFT


def walker(generator: np.random.Generator) -> Behaviour:
    """Turns left more often than it walks."""
    return lambda *_: int(generator.choice(3, p=(0.5, 0.2, 0.3)))


# ---- data -----------------------------------------------------------------------------------------

WORLDS: dict[str, tuple[str, Callable[[np.random.Generator], list[tuple[Behaviour, int]]]]] = {
    "frozenlake": ("FrozenLake-v1", frozen_lake),
    "cartpole": ("CartPole-v1", cart_pole),
    "lavagap": ("trajlm/MiniGrid-LavaGapS5-v0", lava_gap),
}


def noisy(
    behaviour: Behaviour, actions: int, share: float, generator: np.random.Generator
) -> Behaviour:
    """`behaviour` with a share of its actions drawn evenly instead."""

    def act(environment: gymnasium.Env[Any, Any], observation: Any) -> int:
        if generator.random() < share:
            return int(generator.integers(actions))
        return behaviour(environment, observation)

    return act


def roll(environment: gymnasium.Env[Any, Any], behaviour: Behaviour, seed: int) -> Trajectory:
    observation, _ = environment.reset(seed=seed)
    observations, actions, rewards = [observation], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        action = behaviour(environment, observation)
        observation, reward, terminated, truncated, _ = environment.step(action)
        observations.append(observation)
        actions.append(action)
        rewards.append(reward)
    columns = {
        "observations": np.array(observations),
        "actions": np.array(actions),
        "rewards": np.array(rewards, np.float32),
    }
    return Trajectory(columns=columns, terminated=terminated, truncated=truncated, seed=seed)


def dataset_of(world: str) -> str:
    return f"trajlm/{world}/mixed-v0"


def collect(world: str) -> None:
    """The dataset, unless it is there."""
    if folder_of(dataset_of(world)).exists():
        return
    env_id, behaviours = WORLDS[world]
    environment = make_environment(env_id)
    chosen = behaviours(np.random.default_rng(0))
    plan = [behaviour for behaviour, episodes in chosen for _ in range(episodes)]
    episodes = [roll(environment, behaviour, 10_000 + n) for n, behaviour in enumerate(plan)]
    at = 0
    for _, count in chosen:
        found = [episode.episode_return for episode in episodes[at : at + count]]
        print(f"{world}: {count} episodes, mean return {np.mean(found):.2f}", flush=True)
        at += count
    write(
        episodes,
        dataset_id=dataset_of(world),
        observation_space=from_gymnasium(environment.observation_space),
        action_space=from_gymnasium(environment.action_space),
        env_id=env_id,
        metadata={"algorithm_name": "behaviours of mixed skill, scripts/discrete_worlds.py"},
    )


# ---- trainings ------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/discrete"))
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    for world in asked.worlds:
        collect(world)
    cells = [
        cell(method, world, seed, asked.episodes)
        for world in asked.worlds
        for seed in range(asked.seeds)
        for method in METHODS
    ]
    rows, failures = run_cells(
        cells, folder=asked.folder, runs=asked.runs, workers=asked.workers, kept=told(print)
    )
    print(*failures, sep="\n")
    (asked.folder / "table.md").write_text(table(rows))


def cell(method: str, world: str, seed: int, episodes: int) -> Cell:
    """The Decision Transformer is asked for the best return in the data."""
    arguments = [METHODS[method], "--data", dataset_of(world), "--seed", str(seed)]
    arguments += ["--threads", "1", "--episodes", str(episodes), "--evaluation.no-video"]
    arguments += ["--training.no-tensorboard"]
    if method == "DT":
        arguments += ["--policy.target-return", "max"]
    return Cell(keys=(method, world, str(seed)), arguments=tuple(arguments))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The mean of each method and world, and which of them is ahead where intervals are apart."""
    lines = ["| world | DT asked for | DT | BC | ahead |", "|---|---:|---:|---:|---|"]
    for world in dict.fromkeys(row["keys"][1] for row in rows):
        found = {m: [r for r in rows if r["keys"][:2] == [m, world]] for m in METHODS}
        if not all(found.values()):
            continue
        asked = found["DT"][0]["rows"][0]["target_return"]
        returns = {m: np.array([row["returns"] for row in each]) for m, each in found.items()}
        ends = {m: interval(each) for m, each in returns.items()}
        ahead = next(
            (a for a, b in (("DT", "BC"), ("BC", "DT")) if ends[a][0] > ends[b][1]), "neither"
        )
        shown = [f"{returns[m].mean():.2f} [{ends[m][0]:.2f}, {ends[m][1]:.2f}]" for m in METHODS]
        lines.append(f"| {world} | {asked:.2f} | {' | '.join(shown)} | {ahead} |")
    seeds, episodes = (int(size) for size in returns["DT"].shape)
    note = (
        f"Mean return over {seeds} training seeds and {episodes} episodes, the same episodes for each "
        "seed. In brackets: 95% intervals, a bootstrap that draws seeds and episodes anew. Each cell's "
        "command stands in rows.jsonl; all of them: `python scripts/discrete_worlds.py "
        "results/discrete`."
    )
    return "\n".join([*lines, "", note]) + "\n"


def interval(returns: np.ndarray, *, resamples: int = 4000) -> tuple[float, float]:
    """Of the mean of `returns` (R, E): the same episodes for every seed, so both are drawn."""
    generator = np.random.default_rng(0)
    seeds, episodes = returns.shape
    means = [
        returns[generator.integers(seeds, size=seeds)][
            :, generator.integers(episodes, size=episodes)
        ].mean()
        for _ in range(resamples)
    ]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


if __name__ == "__main__":
    main()
