"""Behaviour policies shipped with the package: small Gaussian networks, run in NumPy.

A behaviour is a 64x64 actor trained with PPO and the observation normaliser it was trained with
(`scripts/train_behaviours.py`). `load_behaviour("halfcheetah", "expert")` gives a `Policy`;
`random` is uniform within the action bounds. Draws are keyed by (episode seed, step).

Legend: N slots, D observation size, A action size.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from trajlm.core import seeding
from trajlm.core.errors import CheckpointError, UsageError, suggestion
from trajlm.core.protocols import Condition, Step

FOLDER = Path(__file__).parent / "behaviours"
FORMAT = "trajlm.behaviour/1"
MAX_FILE_BYTES = 1_000_000
ACTIVATIONS = ("relu", "tanh")
RANDOM, REPLAY = "random", "replay-"
TIERS = ("random", "medium", "expert", "replay", "medium-expert")


@dataclass(frozen=True, kw_only=True)
class BehaviourCarry:
    """`step` (N,) int64: the episode step each slot acts at next."""

    step: np.ndarray

    def select(self, index: np.ndarray) -> BehaviourCarry:
        return BehaviourCarry(step=self.step[index])

    def restarted(self, is_first: np.ndarray) -> BehaviourCarry:
        """The carry with slots at step 0 where an episode starts."""
        return BehaviourCarry(step=np.where(is_first, 0, self.step))

    def advanced(self) -> BehaviourCarry:
        return BehaviourCarry(step=self.step + 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Actor:
    """The arrays of a behaviour file, float32.

    `weights[i]` (outputs, inputs), `biases[i]` (outputs,); ReLU or tanh between layers.
    Observations are normalised as (observation - mean) / std and clipped to +-`clip`.
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    log_std: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    clip: float
    low: np.ndarray
    high: np.ndarray
    activation: str

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """The Gaussian's mean: (N, D) -> (N, A) float32."""
        hidden = (np.asarray(observation, np.float32) - self.mean) / self.std
        hidden = np.clip(hidden, -self.clip, self.clip)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = hidden @ weight.T + bias
            hidden = np.tanh(hidden) if self.activation == "tanh" else np.maximum(hidden, 0.0)
        return np.asarray(hidden @ self.weights[-1].T + self.biases[-1])


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianBehaviour:
    """Samples around the actor's mean and clips to the bounds: what is returned is executed."""

    name: str
    actor: Actor
    facts: Mapping[str, Any]
    deterministic: bool = False

    def initial(self, num_envs: int, condition: Condition | None = None) -> BehaviourCarry:
        """A memory for `num_envs` slots. Nothing can be asked of a behaviour."""
        return BehaviourCarry(step=np.zeros(num_envs, np.int64))

    def act(self, carry: BehaviourCarry, step: Step) -> tuple[BehaviourCarry, np.ndarray]:
        """Actions (N, A) float32 within the bounds."""
        carry = carry.restarted(step.is_first)
        action = self.actor(_flat(step, size=len(self.actor.mean), name=self.name))
        if not self.deterministic:
            noise = seeding.normal(step.seed, carry.step, lanes=len(self.actor.low))
            action = action + np.exp(self.actor.log_std) * noise.astype(np.float32)
        return carry.advanced(), np.clip(action, self.actor.low, self.actor.high)


@dataclass(frozen=True, kw_only=True, eq=False)
class UniformBehaviour:
    """Uniform within the bounds `low`, `high` (A,); `deterministic` acts with their middle."""

    name: str
    low: np.ndarray
    high: np.ndarray
    facts: Mapping[str, Any]
    deterministic: bool = False

    def initial(self, num_envs: int, condition: Condition | None = None) -> BehaviourCarry:
        return BehaviourCarry(step=np.zeros(num_envs, np.int64))

    def act(self, carry: BehaviourCarry, step: Step) -> tuple[BehaviourCarry, np.ndarray]:
        """Actions (N, A) float32 within the bounds."""
        carry = carry.restarted(step.is_first)
        if self.deterministic:
            share = np.full((len(carry.step), len(self.low)), 0.5)
        else:
            share = seeding.uniform(step.seed, carry.step, lanes=len(self.low))
        action = (self.low + share * (self.high - self.low)).astype(np.float32)
        return carry.advanced(), np.clip(action, self.low, self.high)


BehaviourPolicy = GaussianBehaviour | UniformBehaviour


def _flat(step: Step, *, size: int, name: str) -> np.ndarray:
    observation = step.observation
    if isinstance(observation, Mapping) or observation.shape[1:] != (size,):
        shape = "a mapping" if isinstance(observation, Mapping) else observation.shape
        raise UsageError(f"behaviour {name!r} takes observations (N, {size}), found {shape}")
    return observation


# ---- what is shipped ----------------------------------------------------------------------------


@functools.cache
def behaviour_index(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Facts of every body: environment, returns of its behaviours, seeds, versions, commands."""
    path = folder / "index.json"
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: no index of behaviours ({error}); reinstall") from None
    if not isinstance(loaded, dict) or not all(isinstance(v, dict) for v in loaded.values()):
        raise CheckpointError(f"{path}: not a mapping of bodies; reinstall the package")
    return loaded


def body_facts(body: str, *, folder: Path = FOLDER) -> dict[str, Any]:
    """The index entry of `body`. Raises `UsageError` with the nearest name."""
    index = behaviour_index(folder)
    if body not in index:
        near = suggestion(body, index) or f"; known: {', '.join(index)}"
        raise UsageError(f"unknown body {body!r}{near}")
    return index[body]


def load_behaviour(
    body: str, name: str, *, deterministic: bool = False, folder: Path = FOLDER
) -> BehaviourPolicy:
    """The behaviour `name` (`random`, `medium`, `expert`, `replay-0`, ...) of `body`.

    Raises `UsageError` for a name that does not exist, `CheckpointError` for a damaged file.
    """
    facts = body_facts(body, folder=folder)
    snapshots = facts.get("snapshots", {})
    if name == RANDOM:
        low, high = (np.asarray(facts[key], np.float32) for key in ("action_low", "action_high"))
        shown = {"env_id": facts["env_id"], "return_mean": facts["random_return"]}
        return UniformBehaviour(
            name=f"{body}/{RANDOM}", low=low, high=high, facts=shown, deterministic=deterministic
        )
    if name not in snapshots:
        known = [RANDOM, *snapshots]
        near = suggestion(name, known) or f"; known: {', '.join(known)}"
        raise UsageError(f"{body} has no behaviour {name!r}{near}")
    path = folder / body / f"{name}.safetensors"
    policy = read_behaviour(path, sha256=str(snapshots[name].get("sha256", "")))
    if policy.facts["env_id"] != facts["env_id"]:
        raise CheckpointError(f"{path}: made for {policy.facts['env_id']}, not {facts['env_id']}")
    return replace(policy, name=f"{body}/{name}", deterministic=deterministic)


def read_behaviour(path: Path, *, sha256: str | None = None) -> GaussianBehaviour:
    """A behaviour file, fully checked. Raises `CheckpointError` naming the file and the fault."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CheckpointError(f"{path}: larger than {MAX_FILE_BYTES} bytes, no behaviour")
        if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise CheckpointError(f"{path}: differs from its SHA-256 in index.json; reinstall")
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = json.loads(metadata["trajlm"])
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not readable as safetensors: {error}") from None
    except (KeyError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: metadata 'trajlm' is missing or not JSON") from None
    actor = _actor(tensors, _checked_facts(facts, path=path), path=path)
    return GaussianBehaviour(name=path.stem, actor=actor, facts=facts)


def _checked_facts(facts: Any, *, path: Path) -> dict[str, Any]:
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format is not {FORMAT!r}")
    if facts.get("activation") not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise CheckpointError(
            f"{path}: activation {facts.get('activation')!r} is not one of {known}"
        )
    if not isinstance(facts.get("env_id"), str):
        raise CheckpointError(f"{path}: metadata names no env_id")
    return facts


def _actor(tensors: dict[str, np.ndarray], facts: dict[str, Any], *, path: Path) -> Actor:
    """The actor of checked arrays: names, kinds, shapes and values are what they must be."""
    depth = sum(name.endswith(".weight") for name in tensors)
    layers = [f"layers.{i}.{part}" for i in range(depth) for part in ("weight", "bias")]
    others = ["log_std", "action_low", "action_high"]
    normaliser = ["observation_mean", "observation_std", "observation_clip"]
    expected = {*layers, *others, *normaliser}
    if depth == 0 or set(tensors) != expected:
        wrong = sorted(set(tensors) ^ expected) or ["layers.0.weight"]
        raise CheckpointError(f"{path}: arrays missing or unknown: {', '.join(wrong)}")
    for name, array in tensors.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise CheckpointError(f"{path}: {name!r} is not finite float32")
    shapes = _shapes(tensors, depth=depth)
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise CheckpointError(f"{path}: {name!r} has shape {tensors[name].shape}, not {shape}")
    clip = float(tensors["observation_clip"][0])
    if clip <= 0 or (tensors["observation_std"] <= 0).any():
        raise CheckpointError(f"{path}: the normaliser's std and clip must be positive")
    if (tensors["action_low"] >= tensors["action_high"]).any():
        raise CheckpointError(f"{path}: 'action_low' is not below 'action_high'")
    return Actor(
        weights=tuple(tensors[f"layers.{i}.weight"] for i in range(depth)),
        biases=tuple(tensors[f"layers.{i}.bias"] for i in range(depth)),
        log_std=tensors["log_std"],
        mean=tensors["observation_mean"],
        std=tensors["observation_std"],
        clip=clip,
        low=tensors["action_low"],
        high=tensors["action_high"],
        activation=str(facts["activation"]),
    )


def _shapes(tensors: dict[str, np.ndarray], *, depth: int) -> dict[str, tuple[int, ...]]:
    """The shape every array must have, from the biases and the normaliser's mean."""
    inputs = math.prod(tensors["observation_mean"].shape)
    shapes: dict[str, tuple[int, ...]] = {
        "observation_mean": (inputs,),
        "observation_std": (inputs,),
        "observation_clip": (1,),
    }
    for layer in range(depth):
        outputs = math.prod(tensors[f"layers.{layer}.bias"].shape)
        shapes[f"layers.{layer}.weight"] = (outputs, inputs)
        shapes[f"layers.{layer}.bias"] = (outputs,)
        inputs = outputs
    return shapes | dict.fromkeys(("log_std", "action_low", "action_high"), (inputs,))
