"""Random and oracle scores of the project's own worlds, as their modules state them.

python scripts/worlds.py [--random 20000] [--oracle 2000]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from trajlm.envs import key_to_door, shortest_path
from trajlm.envs.make import make_environment

Behaviour = Callable[[Any], int]
"""observation -> action."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--random", type=int, default=20_000)
    parser.add_argument("--oracle", type=int, default=2_000)
    asked = parser.parse_args()
    generator = np.random.default_rng(0)
    doors = make_environment(key_to_door.ENV_ID)
    for name, episodes, act in (
        ("random", asked.random, lambda _: int(generator.integers(4))),
        ("oracle", asked.oracle, key_to_door.oracle),
    ):
        share = np.mean([episode(doors, act, seed)[0] for seed in range(episodes)])
        print(f"{key_to_door.ENV_ID} {name}: {share:.4f} of {episodes} succeed", flush=True)
    graph, edges = make_environment(shortest_path.ENV_ID), shortest_path.edges()
    for name, episodes, walk in (
        ("random", asked.random, lambda _: int(generator.integers(20))),
        ("walk", asked.random, lambda node: int(generator.choice(np.flatnonzero(edges[node])))),
        ("oracle", asked.oracle, lambda node: shortest_path.oracle(int(node))),
    ):
        ends = np.array([arrival(graph, walk, seed) for seed in range(episodes)])
        print(
            f"{shortest_path.ENV_ID} {name}: {ends[:, 0].mean():.4f} of {episodes} arrive, "
            f"{ends[:, 1].mean():.4f} on a shortest path",
            flush=True,
        )


def episode(
    environment: gymnasium.Env[Any, Any], act: Behaviour, seed: int
) -> tuple[float, int, bool]:
    """(return, steps, whether it terminated)."""
    observation, _ = environment.reset(seed=seed)
    total, steps, over = 0.0, 0, False
    while not over:
        observation, reward, terminated, truncated, _ = environment.step(act(observation))
        total, steps, over = total + float(reward), steps + 1, terminated or truncated
    return total, steps, terminated


def arrival(environment: gymnasium.Env[Any, Any], act: Behaviour, seed: int) -> tuple[bool, bool]:
    """Whether the goal was reached, and whether by a shortest path."""
    shortest = environment.reset(seed=seed)[1]["distance"]
    _, steps, arrived = episode(environment, act, seed)
    return arrived, arrived and steps == shortest


if __name__ == "__main__":
    main()
