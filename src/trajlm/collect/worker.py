"""Runs episodes on request: in this process, or as a program that a `WorkerPool` talks to.

    python -m trajlm.collect.worker

A task is one line of JSON on stdin, its answer a frame on stdout: one byte `R` (result) or `E`
(error), eight bytes of length (big-endian), then safetensors or UTF-8 text. The program ends when
its stdin does, so it never outlives the process that started it. A program of its own, and not
`multiprocessing`, so that scripts without a main guard and notebooks can collect, BLAS reads its
one thread from the environment before NumPy loads, and no pickle is read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from safetensors.numpy import load, save

from trajlm.collect.behaviour import BehaviourPolicy, load_behaviour
from trajlm.collect.episodes import SLOTS, run_episodes
from trajlm.core.errors import TrajlmError
from trajlm.core.trajectory import Trajectory
from trajlm.envs.make import make_vector
from trajlm.envs.vector import VectorEnvironment

RESULT, ERROR = b"R", b"E"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """Episodes `first, ..., first + count - 1` of one behaviour, within one block of SLOTS."""

    body: str
    behaviour: str
    seed: int
    first: int
    count: int


class Runner:
    """Runs tasks one after another; keeps the behaviours and environments it has made."""

    def __init__(self) -> None:
        self._policies: dict[str, BehaviourPolicy] = {}
        self._environments: dict[str, VectorEnvironment] = {}

    def run(self, task: Task) -> list[Trajectory]:
        name = f"{task.body}/{task.behaviour}"
        if name not in self._policies:
            self._policies[name] = load_behaviour(task.body, task.behaviour)
        policy = self._policies[name]
        env_id = str(policy.facts["env_id"])
        if env_id not in self._environments:
            self._environments[env_id] = make_vector(env_id, num_envs=SLOTS)
        return run_episodes(
            policy,
            self._environments[env_id],
            behaviour=name,
            seed=task.seed,
            first=task.first,
            count=task.count,
        )

    def close(self) -> None:
        for environment in self._environments.values():
            environment.close()


def pack(episodes: Sequence[Trajectory]) -> bytes:
    """Episodes as safetensors, laid end to end. Lossless."""
    arrays = {
        name: np.concatenate([episode.columns[name] for episode in episodes])
        for name in episodes[0].columns
    }
    arrays["lengths"] = np.array([len(episode) for episode in episodes], np.int64)
    arrays["seeds"] = np.array([episode.seed for episode in episodes], np.int64)
    arrays["terminated"] = np.array([episode.terminated for episode in episodes])
    return save(arrays)


def unpack(payload: bytes) -> list[Trajectory]:
    """Inverse of `pack`."""
    arrays = load(payload)
    lengths, seeds = arrays.pop("lengths"), arrays.pop("seeds")
    terminated = arrays.pop("terminated")
    episodes = []
    stops = np.cumsum(lengths)
    for number, (stop, length) in enumerate(zip(stops, lengths, strict=True)):
        columns = {
            name: column[stop - length + number : stop + number + 1]
            if name == "observations"
            else column[stop - length : stop]
            for name, column in sorted(arrays.items())
        }
        ended = bool(terminated[number])
        episodes.append(
            Trajectory(
                columns=columns, terminated=ended, truncated=not ended, seed=int(seeds[number])
            )
        )
    return episodes


def serve(tasks: BinaryIO, answers: BinaryIO) -> None:
    """Answer every task until `tasks` ends."""
    runner = Runner()
    for line in tasks:
        try:
            kind, payload = RESULT, pack(runner.run(Task(**json.loads(line))))
        except TrajlmError as error:
            kind, payload = ERROR, str(error).encode()
        answers.write(kind + len(payload).to_bytes(8, "big") + payload)
        answers.flush()
    runner.close()


def main() -> None:
    # Whatever a library prints goes to stderr; frames keep stdout to themselves.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(sys.stdin.buffer, answers)
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()
