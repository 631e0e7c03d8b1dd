"""Train the behaviour policies that `trajlm` ships, with Stable-Baselines3's PPO.

    python scripts/train_behaviours.py train halfcheetah --seed 0 --output behaviours
    python scripts/train_behaviours.py select halfcheetah --output behaviours --package src/trajlm/collect/behaviours

`train` writes a snapshot every `snapshot_every` steps: the actor's weights, its log standard
deviation and the running observation normaliser, as safetensors, with the mean return of ten
episodes sampled from its own Gaussian. `select` picks, from all seeds, what the package ships:
the best seed's best snapshot (expert), the snapshot nearest a third of its return whose noise
costs it little (medium) and eight snapshots along the expert's way (replay). It can be run again
whenever a seed finishes; `record` adds a late seed's record to the index and leaves the choice as
it is.

A model that predicts the mean action repeats a policy without its noise. Where noise halves what
a medium policy returns, no such model can be asked for the data's return, so its medium comes
from a training with less of it: HalfCheetah's from `--seed 3 --log-std-init -2.5
--snapshot-every 25000`, stopped after half a million steps.

Hyperparameters start from RL Baselines3 Zoo's published PPO settings for MuJoCo; they differ in
the network (64x64), in the number of parallel environments and in the larger batches (fewer,
larger gradient steps: three times the steps per second on one core).
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from trajlm.collect.behaviour import RANDOM, UniformBehaviour, read_behaviour
from trajlm.collect.episodes import SLOTS, run_episodes
from trajlm.core.protocols import Policy
from trajlm.envs.make import make_environment, make_vector
from trajlm.envs.worlds import HUMANOID

ENVIRONMENTS = {
    "halfcheetah": "HalfCheetah-v5",
    "hopper": "Hopper-v5",
    "humanoid": HUMANOID,
    "walker2d": "Walker2d-v5",
}
ACTIVATIONS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}
SETTINGS: dict[str, dict[str, Any]] = {
    "halfcheetah": {
        "total_steps": 2_000_000,
        "activation": "relu",
        "log_std_init": -1.5,
        "gamma": 0.98,
        "gae_lambda": 0.92,
        "ent_coef": 4e-4,
        "max_grad_norm": 0.8,
        "vf_coef": 0.58,
    },
    "hopper": {
        "total_steps": 2_000_000,
        "activation": "tanh",
        "log_std_init": 0.0,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "ent_coef": 0.0,
        "max_grad_norm": 0.5,
        "vf_coef": 0.5,
    },
    "humanoid": {
        "total_steps": 1_500_000,
        "activation": "relu",
        "log_std_init": -2.0,
        "gamma": 0.95,
        "gae_lambda": 0.9,
        "ent_coef": 2e-3,
        "max_grad_norm": 2.0,
        "vf_coef": 0.43,
    },
    "walker2d": {
        "total_steps": 2_500_000,
        "activation": "tanh",
        "log_std_init": 0.0,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "ent_coef": 0.0,
        "max_grad_norm": 0.5,
        "vf_coef": 0.5,
    },
}
SHARED: dict[str, Any] = {
    "num_envs": 8,
    "n_steps": 512,
    "batch_size": 256,
    "n_epochs": 10,
    "clip_range": 0.2,
    "learning_rate": 4e-4,
}


def settings_of(body: str, *, log_std_init: float | None = None) -> dict[str, Any]:
    """The body's settings, with another first deviation where one is given."""
    settings = SHARED | SETTINGS[body]
    return settings if log_std_init is None else settings | {"log_std_init": log_std_init}


def actor_tensors(model: PPO, normalizer: VecNormalize) -> dict[str, np.ndarray]:
    """The actor's arrays under the names that `trajlm.collect` reads."""
    layers = [m for m in model.policy.mlp_extractor.policy_net if isinstance(m, torch.nn.Linear)]
    layers.append(model.policy.action_net)
    tensors: dict[str, np.ndarray] = {}
    for index, layer in enumerate(layers):
        tensors[f"layers.{index}.weight"] = layer.weight.detach().numpy().copy()
        tensors[f"layers.{index}.bias"] = layer.bias.detach().numpy().copy()
    tensors["log_std"] = model.policy.log_std.detach().numpy().copy()
    rms = normalizer.obs_rms
    tensors["observation_mean"] = rms.mean.astype(np.float32)
    tensors["observation_std"] = np.sqrt(rms.var + normalizer.epsilon).astype(np.float32)
    tensors["observation_clip"] = np.float32([normalizer.clip_obs])
    return tensors


def sampled_returns(
    tensors: dict[str, np.ndarray], env_id: str, activation: str, *, episodes: int, seed: int
) -> list[float]:
    """Returns of episodes whose actions are sampled from the Gaussian and clipped."""
    env = make_environment(env_id)
    generator = np.random.default_rng(seed)
    low, high = env.action_space.low, env.action_space.high  # type: ignore[attr-defined]
    depth = sum(name.endswith("weight") for name in tensors)
    clip = float(tensors["observation_clip"][0])
    returns = []
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed + episode)
        total, done = 0.0, False
        while not done:
            hidden = (observation - tensors["observation_mean"]) / tensors["observation_std"]
            hidden = np.clip(hidden, -clip, clip)
            for layer in range(depth):
                hidden = (
                    tensors[f"layers.{layer}.weight"] @ hidden + tensors[f"layers.{layer}.bias"]
                )
                if layer < depth - 1:
                    hidden = np.tanh(hidden) if activation == "tanh" else np.maximum(hidden, 0.0)
            noise = np.exp(tensors["log_std"]) * generator.standard_normal(hidden.shape)
            action = np.clip(hidden + noise, low, high)
            observation, reward, terminated, truncated, _ = env.step(action)
            total += float(reward)
            done = terminated or truncated
        returns.append(total)
    env.close()
    return returns


class Snapshots(BaseCallback):
    """Writes a snapshot every `every` environment steps, and one at the end."""

    def __init__(
        self, *, folder: Path, body: str, seed: int, every: int, settings: dict[str, Any]
    ) -> None:
        super().__init__()
        self.folder, self.body, self.seed, self.every = folder, body, seed, every
        self.settings = settings
        self.next_at, self.started = every, time.time()

    def _on_rollout_end(self) -> None:
        if self.num_timesteps >= self.next_at:
            self.next_at += self.every
            self.write()

    def _on_step(self) -> bool:
        return True

    def write(self) -> None:
        settings = self.settings
        tensors = actor_tensors(self.model, self.training_env)  # type: ignore[arg-type]
        returns = sampled_returns(
            tensors, ENVIRONMENTS[self.body], settings["activation"], episodes=10, seed=90_000
        )
        facts = {
            "format": "trajlm.behaviour/1",
            "body": self.body,
            "env_id": ENVIRONMENTS[self.body],
            "algorithm": "PPO",
            "activation": settings["activation"],
            "seed": self.seed,
            "steps": self.num_timesteps,
            "return_mean": round(float(np.mean(returns)), 1),
            "return_std": round(float(np.std(returns)), 1),
            "settings": settings,
        }
        path = self.folder / f"step-{self.num_timesteps:08d}.safetensors"
        save_file(tensors, path, metadata={"trajlm": json.dumps(facts)})
        rate = self.num_timesteps / (time.time() - self.started)
        line = {k: facts[k] for k in ("body", "seed", "steps", "return_mean", "return_std")}
        line |= {"steps_per_s": round(rate), "log_std": round(float(tensors["log_std"].mean()), 2)}
        print(json.dumps(line), flush=True)


def train(
    body: str, *, seed: int, output: Path, snapshot_every: int, log_std_init: float | None
) -> None:
    torch.set_num_threads(1)
    settings = settings_of(body, log_std_init=log_std_init)
    num_envs, total_steps = settings.pop("num_envs"), settings.pop("total_steps")
    activation, log_std = settings.pop("activation"), settings.pop("log_std_init")
    rate = settings.pop("learning_rate")
    env = DummyVecEnv([lambda: make_environment(ENVIRONMENTS[body]) for _ in range(num_envs)])
    normalized = VecNormalize(env, gamma=settings["gamma"])
    model = PPO(
        "MlpPolicy",
        normalized,
        learning_rate=lambda remaining: rate * max(remaining, 0.03),
        policy_kwargs={
            "net_arch": {"pi": [64, 64], "vf": [64, 64]},
            "activation_fn": ACTIVATIONS[activation],
            "log_std_init": log_std,
            "ortho_init": activation == "tanh",
            "optimizer_kwargs": {"fused": True, "eps": 1e-5},
        },
        seed=seed,
        device="cpu",
        **settings,
    )
    folder = output / body / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    snapshots = Snapshots(
        folder=folder,
        body=body,
        seed=seed,
        every=snapshot_every,
        settings=settings_of(body, log_std_init=log_std_init),
    )
    model.learn(total_steps, callback=snapshots)
    snapshots.write()


# ---- select -------------------------------------------------------------------------------------

PACKAGE = Path("src/trajlm/collect/behaviours")
AIMS = {"halfcheetah": 5_500, "hopper": 3_000, "humanoid": 500, "walker2d": 3_500}
SEEDS = 3
NUM_CANDIDATES, NUM_REPLAY = 4, 8
EPISODES, RANDOM_EPISODES = 50, 100
# A medium may lose at most this share of its noiseless return to its own noise.
NOISE_COST = 0.1
# The share of the training's deviation with which a body's shipped behaviours act: noise costs the
# humanoid, which balances, a fifth of its steps.
NOISE = {"humanoid": 0.5}
# Chosen on one set of episodes, reported on another: the best of several is a lucky one.
CHOOSE, REPORT = 1, 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """A snapshot of the training and the mean return of its ten episodes."""

    path: Path
    seed: int
    steps: int
    quick_return: float
    facts: dict[str, Any]


def snapshots(body: str, *, output: Path) -> dict[int, list[Snapshot]]:
    """All snapshots by seed, in the order of their steps."""
    found: dict[int, list[Snapshot]] = {}
    for path in sorted((output / body).glob("seed-*/step-*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            facts: dict[str, Any] = json.loads(file.metadata()["trajlm"])
        quick = Snapshot(
            path=path,
            seed=facts["seed"],
            steps=facts["steps"],
            quick_return=facts["return_mean"],
            facts=facts,
        )
        found.setdefault(quick.seed, []).append(quick)
    return found


def evaluated(
    policy: Policy, env_id: str, *, name: str, seed: int, episodes: int
) -> dict[str, Any]:
    """Return and length over `episodes` sampled episodes with clipped actions."""
    environment = make_vector(env_id, num_envs=SLOTS)
    run = [
        episode
        for first in range(0, episodes, SLOTS)
        for episode in run_episodes(
            policy, environment, behaviour=name, seed=seed, first=first, count=SLOTS
        )
    ]
    environment.close()
    returns = np.array([episode.episode_return for episode in run])
    return {
        "return_mean": round(float(returns.mean()), 1),
        "return_std": round(float(returns.std()), 1),
        "length_mean": round(float(np.mean([len(episode) for episode in run])), 1),
        "episodes": episodes,
    }


def write_behaviour(snapshot: Snapshot, path: Path, *, facts: dict[str, Any]) -> None:
    """The snapshot in the package's form: with the action bounds, readable by everyone."""
    tensors = load_file(snapshot.path)
    body = snapshot.facts["body"]
    if body in NOISE:
        tensors["log_std"] = tensors["log_std"] + np.float32(np.log(NOISE[body]))
    tensors["action_low"], tensors["action_high"] = action_bounds(body)
    save_file(tensors, path, metadata={"trajlm": json.dumps(facts)})
    path.chmod(0o644)  # safetensors writes 0600


def measured(snapshot: Snapshot, *, seed: int) -> dict[str, Any]:
    """`evaluated` of a snapshot, through the code that collects with it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candidate.safetensors"
        write_behaviour(snapshot, path, facts=snapshot.facts)
        policy = read_behaviour(path)
    name = f"{snapshot.seed}/{snapshot.steps}"
    result = evaluated(policy, snapshot.facts["env_id"], name=name, seed=seed, episodes=EPISODES)
    print(json.dumps({"seed": snapshot.seed, "steps": snapshot.steps} | result), flush=True)
    return result


def choose_medium(every: list[Snapshot], *, third: float) -> Snapshot:
    """The snapshot nearest `third` among those whose noise costs little; the nearest where none."""
    near = sorted(every, key=lambda one: abs(one.quick_return - third))
    return next((one for one in near if noise_cost(one) <= NOISE_COST), near[0])


def noise_cost(snapshot: Snapshot) -> float:
    """The share of the noiseless return that is lost by sampling."""
    tensors = load_file(snapshot.path)
    tensors["log_std"] = np.full_like(tensors["log_std"], -np.inf)
    facts = snapshot.facts
    quiet = sampled_returns(
        tensors, facts["env_id"], facts["settings"]["activation"], episodes=10, seed=90_000
    )
    cost = 1.0 - snapshot.quick_return / float(np.mean(quiet))
    print(
        json.dumps({"seed": snapshot.seed, "steps": snapshot.steps, "noise_cost": round(cost, 3)})
    )
    return cost


def along_the_way(way: list[Snapshot]) -> list[Snapshot]:
    """Eight snapshots, first and last among them, with returns as evenly spread as there are."""
    first, *between, last = way
    targets = np.linspace(first.quick_return, last.quick_return, NUM_REPLAY)[1:-1]
    chosen = min(
        itertools.combinations(between, NUM_REPLAY - 2),
        key=lambda some: sum(
            abs(one.quick_return - target) for one, target in zip(some, targets, strict=True)
        ),
    )
    return [first, *chosen, last]


def select(body: str, *, output: Path, package: Path) -> None:
    """Write the body's behaviours and its entry in `index.json`, all at the end."""
    by_seed = snapshots(body, output=output)
    every = sorted(itertools.chain(*by_seed.values()), key=lambda one: -one.quick_return)
    returns = {one: measured(one, seed=CHOOSE)["return_mean"] for one in every[:NUM_CANDIDATES]}
    expert = max(returns, key=returns.__getitem__)
    way = [one for one in by_seed[expert.seed] if one.steps <= expert.steps]
    chosen = {"expert": expert, "medium": choose_medium(every, third=returns[expert] / 3)}
    chosen |= {f"replay-{number}": one for number, one in enumerate(along_the_way(way))}
    results = {one: measured(one, seed=REPORT) for one in set(chosen.values())}
    random = evaluated_random(body)
    folder = package / body
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for name, one in chosen.items():
        path = folder / f"{name}.safetensors"
        write_behaviour(one, path, facts=one.facts | results[one])
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        entries[name] = {"seed": one.seed, "steps": one.steps, **results[one], "sha256": digest}
    write_index(package / "index.json", body, entries=entries, random=random, by_seed=by_seed)


def evaluated_random(body: str) -> dict[str, Any]:
    low, high = action_bounds(body)
    policy = UniformBehaviour(name=RANDOM, low=low, high=high, facts={})
    name = f"{body}/{RANDOM}"
    return evaluated(policy, ENVIRONMENTS[body], name=name, seed=REPORT, episodes=RANDOM_EPISODES)


def action_bounds(body: str) -> tuple[np.ndarray, np.ndarray]:
    """(A,) float32 low and high."""
    space = make_environment(ENVIRONMENTS[body]).action_space
    assert isinstance(space, gymnasium.spaces.Box)
    return space.low, space.high


def write_index(
    path: Path,
    body: str,
    *,
    entries: dict[str, Any],
    random: dict[str, Any],
    by_seed: dict[int, list[Snapshot]],
) -> None:
    """Facts of the body: returns, where they come from, and how each seed ended."""
    low, high = action_bounds(body)
    index = json.loads(path.read_text()) if path.exists() else {}
    index[body] = {
        "env_id": ENVIRONMENTS[body],
        "action_low": low.tolist(),
        "action_high": high.tolist(),
        "random_return": random["return_mean"],
        "random": random,
        "medium_return": entries["medium"]["return_mean"],
        "expert_return": entries["expert"]["return_mean"],
        "expert_aim": AIMS[body],
        "expert_aim_reached": entries["expert"]["return_mean"] >= AIMS[body],
        "snapshots": entries,
        "chosen_from_seeds": sorted(by_seed),
        **seed_records(body, by_seed),
        "settings": SHARED | SETTINGS[body],
        "noise": NOISE.get(body, 1.0),
        "versions": {
            name: version(name)
            for name in ("stable-baselines3", "torch", "gymnasium", "mujoco", "numpy")
        },
        "commands": [
            *(train_command(body, ones[0]) for ones in by_seed.values()),
            f"python scripts/train_behaviours.py select {body}",
        ],
    }
    write_json(path, dict(sorted(index.items())))


def train_command(body: str, snapshot: Snapshot) -> str:
    """The command of the seed that `snapshot` belongs to."""
    command = f"python scripts/train_behaviours.py train {body} --seed {snapshot.seed}"
    first = snapshot.facts["settings"]["log_std_init"]
    return (
        command if first == SETTINGS[body]["log_std_init"] else f"{command} --log-std-init {first}"
    )


def seed_records(body: str, by_seed: dict[int, list[Snapshot]]) -> dict[str, Any]:
    """How each seed went; `provisional` until all of them have finished."""
    records, finished = {}, 0
    for seed, ones in sorted(by_seed.items()):
        best = max(ones, key=lambda one: one.quick_return)
        finished += ones[-1].steps >= SETTINGS[body]["total_steps"]
        records[str(seed)] = {
            "best_return": best.quick_return,
            "best_steps": best.steps,
            "last_return": ones[-1].quick_return,
            "trained_steps": ones[-1].steps,
            "episodes": 10,
        }
    return {"training_seeds": records, "provisional": finished < SEEDS}


def record(body: str, *, output: Path, package: Path) -> None:
    """Add seeds that finished after the choice to the index; the choice stays."""
    path = package / "index.json"
    index = json.loads(path.read_text())
    index[body] |= seed_records(body, snapshots(body, output=output))
    write_json(path, index)


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["train", "select", "record"])
    parser.add_argument("body", choices=sorted(ENVIRONMENTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("behaviours"))
    parser.add_argument("--snapshot-every", type=int, default=100_000)
    parser.add_argument("--log-std-init", type=float, default=None)
    parser.add_argument("--package", type=Path, default=PACKAGE)
    arguments = parser.parse_args()
    if arguments.command == "select":
        select(arguments.body, output=arguments.output, package=arguments.package)
        return
    if arguments.command == "record":
        record(arguments.body, output=arguments.output, package=arguments.package)
        return
    train(
        arguments.body,
        seed=arguments.seed,
        output=arguments.output,
        snapshot_every=arguments.snapshot_every,
        log_std_init=arguments.log_std_init,
    )


if __name__ == "__main__":
    main()
