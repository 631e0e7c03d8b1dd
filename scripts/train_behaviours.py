"""Train the behaviour policies that `trajlm` ships, with Stable-Baselines3's PPO.

    python scripts/train_behaviours.py train halfcheetah --seed 0 --output behaviours
    python scripts/train_behaviours.py select halfcheetah --output behaviours --package src/trajlm/collect/behaviours

`train` writes a snapshot every `snapshot_every` steps: the actor's weights, its log standard
deviation and the running observation normaliser, as safetensors, with the mean return of ten
episodes sampled from its own Gaussian. `select` picks, from all seeds, what the package ships:
the best seed's best snapshot (expert), the snapshot nearest a third of its return (medium) and
eight snapshots along the same seed's way (replay).

Hyperparameters start from RL Baselines3 Zoo's published PPO settings for MuJoCo; they differ in
the network (64x64), in the number of parallel environments and in the larger batches (fewer,
larger gradient steps: three times the steps per second on one core).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

ENVIRONMENTS = {"halfcheetah": "HalfCheetah-v5", "hopper": "Hopper-v5", "walker2d": "Walker2d-v5"}
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
    env = gymnasium.make(env_id)
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
                hidden = tensors[f"layers.{layer}.weight"] @ hidden + tensors[f"layers.{layer}.bias"]
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

    def __init__(self, *, folder: Path, body: str, seed: int, every: int) -> None:
        super().__init__()
        self.folder, self.body, self.seed, self.every = folder, body, seed, every
        self.next_at, self.started = every, time.time()

    def _on_rollout_end(self) -> None:
        if self.num_timesteps >= self.next_at:
            self.next_at += self.every
            self.write()

    def _on_step(self) -> bool:
        return True

    def write(self) -> None:
        settings = SHARED | SETTINGS[self.body]
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


def train(body: str, *, seed: int, output: Path, snapshot_every: int) -> None:
    torch.set_num_threads(1)
    settings = SHARED | SETTINGS[body]
    num_envs, total_steps = settings.pop("num_envs"), settings.pop("total_steps")
    activation, log_std = settings.pop("activation"), settings.pop("log_std_init")
    rate = settings.pop("learning_rate")
    env = DummyVecEnv([lambda: gymnasium.make(ENVIRONMENTS[body], disable_env_checker=True) for _ in range(num_envs)])
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
    snapshots = Snapshots(folder=folder, body=body, seed=seed, every=snapshot_every)
    model.learn(total_steps, callback=snapshots)
    snapshots.write()


def read_facts(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        facts: dict[str, Any] = json.loads(file.metadata()["trajlm"])
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["train"])
    parser.add_argument("body", choices=sorted(ENVIRONMENTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("behaviours"))
    parser.add_argument("--snapshot-every", type=int, default=100_000)
    arguments = parser.parse_args()
    train(
        arguments.body,
        seed=arguments.seed,
        output=arguments.output,
        snapshot_every=arguments.snapshot_every,
    )


if __name__ == "__main__":
    main()
