"""What the bins of a model leave of a behaviour: it sees and acts in them itself, its network unchanged.

Legend: N slots, A action entries, B bins.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trajlm.core.protocols import Condition, Step
from trajlm.evaluation.config import EvaluationConfig
from trajlm.evaluation.scores import bootstrap_interval

if TYPE_CHECKING:
    from trajlm.collect.behaviour import GaussianBehaviour
    from trajlm.data.store import TrajectoryStore
    from trajlm.nn.discretizer import Discretizer

LEAST = 1e-12


@dataclass(frozen=True, kw_only=True, eq=False)
class BinnedBehaviour:
    """A `Policy`: the likeliest bin of each action entry, for the observation that the bins leave."""

    behaviour: GaussianBehaviour
    bins: Discretizer

    def initial(self, num_envs: int, condition: Condition | None = None) -> Any:
        return self.behaviour.initial(num_envs, condition)

    def act(self, carry: Any, step: Step) -> tuple[Any, np.ndarray]:
        """Actions (N, A)."""
        import torch

        assert isinstance(step.observation, np.ndarray)
        likeliest = self.probabilities(step.observation).argmax(axis=-1)
        tokens = torch.from_numpy(likeliest)
        action = self.bins.decode(tokens, first=self._first).numpy()
        return carry.advanced(), action.astype(np.float32)

    @property
    def _first(self) -> int:
        """The entries of an observation come before those of an action."""
        return len(self.behaviour.actor.mean)

    def probabilities(self, observation: np.ndarray) -> np.ndarray:
        """(N, A, B) of the behaviour's clipped Gaussian, for observations as their bins represent
        them; what is clipped lies in the bin of the bound."""
        import torch

        actor = self.behaviour.actor
        entries = torch.tensor(observation, dtype=torch.float32)
        mean = actor(self.bins.decode(self.bins.encode(entries)).numpy())
        deviation = np.exp(actor.log_std)
        size = len(deviation)
        low, high = (np.asarray(each, np.float32) for each in (actor.low, actor.high))
        edges = self.bins.edges[self._first : self._first + size].numpy()
        edges = np.clip(edges, low[:, None], high[:, None])
        edges[:, 0], edges[:, -1] = low, high
        apart = (edges.astype(np.float64) - mean[..., None]) / deviation[:, None]
        below = torch.special.ndtr(torch.from_numpy(apart)).numpy()
        found = np.diff(below, axis=-1)
        for bound, clipped in ((low, below[..., 0]), (high, 1 - below[..., -1])):
            token = self.bins.encode(torch.from_numpy(bound)[None], first=self._first)[0].numpy()
            found[:, np.arange(size), token] += clipped
        return np.asarray(found)

    def nats(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """(N, A): what its own actions cost, token by token. A perfect model costs less: it would
        average over the states of a bin, of which one stands for all here."""
        import torch

        tokens = self.bins.encode(torch.tensor(actions), first=self._first).numpy()
        own = np.take_along_axis(self.probabilities(observations), tokens[..., None], axis=-1)
        return np.asarray(-np.log(np.maximum(own[..., 0], LEAST)))


def ceiling(
    run: Path, data: str, *, body: str, behaviour: str, episodes: int, mean: float
) -> dict[str, Any]:
    """What the behaviour returns in the bins of the run's model, in percent of `mean`, and what an
    action token of held-out episodes costs it and the model, in nats."""
    from trajlm.collect.behaviour import load_behaviour
    from trajlm.data.load import load_dataset
    from trajlm.evaluation.evaluate import evaluate
    from trajlm.training.checkpoint import artefact_folder, load_artefact

    model: Any = load_artefact(artefact_folder(run, which="last"))
    actor: Any = load_behaviour(body, behaviour)
    binned = BinnedBehaviour(behaviour=actor, bins=model.discretizer)
    store = load_dataset(data)
    found = evaluate(
        binned, spec=None, env_id=str(store.env_id), targets=[None],
        config=EvaluationConfig(episodes=episodes),
    )  # fmt: skip
    shares = 100.0 * np.array([each.record.episode_return for each in found.episodes]) / mean
    return {
        "share": float(shares.mean()),
        "interval": bootstrap_interval(shares),
        "episodes": episodes,
        "nats": _held_out_nats(binned, store, run),
        "model_nats": _model_nats(run),
    }


def _held_out_nats(binned: BinnedBehaviour, store: TrajectoryStore, run: Path) -> float | None:
    """Of an action token of the episodes that the run held out; None where it held out none."""
    from trajlm.runs.assembly import hold_out
    from trajlm.runs.folder import read_run

    _, held_out = hold_out(store, fraction=read_run(run).training.validation_fraction)
    found = [
        binned.nats(
            store.rows("observations", episode)[: store.lengths[episode]],
            store.rows("actions", episode),
        )
        for episode in held_out.tolist()
    ]
    return float(np.concatenate(found).mean()) if found else None


def _model_nats(run: Path) -> float | None:
    """Of an action token of held-out episodes after the last update; None where none were held out."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = [line["validation/action_nats"] for line in lines if "validation/action_nats" in line]
    return float(found[-1]) if found else None
