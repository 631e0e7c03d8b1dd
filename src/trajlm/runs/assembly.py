"""A configuration and its dataset become what the trainer is handed.

load -> check -> hold out -> prepare -> build; nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from trajlm.algorithms.base import Algorithm
from trajlm.core.errors import DataError, UsageError
from trajlm.core.seeding import counter_bits, derive
from trajlm.core.spec import DataSpec
from trajlm.data.doctor import check
from trajlm.data.findings import Finding
from trajlm.data.load import load_dataset
from trajlm.data.relabel import with_reward
from trajlm.data.store import TrajectoryStore
from trajlm.envs.robotics import check_goals
from trajlm.runs.config import RunConfig
from trajlm.runs.scoring import dataset_reference, targets_of
from trajlm.sequence.batch import SequenceBatch, WindowRequest
from trajlm.sequence.loader import Loader, validation_batches

IN_MEMORY = "store:"
HOLD_OUT_STREAM = 0x401D
BUILD_STREAM = 0xB01D
HOLD_OUT_AT_LEAST = 20
"""Below this many episodes a held-out share that rounds to none stays none."""


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """Everything the trainer is handed. `held_out` is None where nothing is held out."""

    model: Algorithm
    loader: Loader
    request: WindowRequest
    held_out: TrajectoryStore | None

    def validation(self) -> Iterable[SequenceBatch]:
        """The held-out windows, always the same ones."""
        assert self.held_out is not None
        return validation_batches(self.held_out, self.request, batch_size=self.loader.batch_size)


def load_store(config: RunConfig, store: TrajectoryStore | None = None) -> TrajectoryStore:
    """The configured dataset (or `store`) with the configured reward.

    Raises `UsageError` where none is named, `DataError` where it is broken.
    """
    store = store or _load(config)
    return with_reward(store, scale=config.data.reward_scale, reward=config.data.reward)


def _load(config: RunConfig) -> TrajectoryStore:
    if not config.data.path:
        raise UsageError("no dataset: say which, --data DATASET (trajlm list shows some)")
    if config.data.path.startswith(IN_MEMORY):
        raise UsageError(
            f"the run's data, {config.data.path.removeprefix(IN_MEMORY)!r}, was handed over in "
            "Python; say where it is: --data DATASET"
        )
    return load_dataset(config.data.path, env_id=config.data.env_id, on_bad=config.data.on_bad)


def examine(store: TrajectoryStore, config: RunConfig) -> list[Finding]:
    """The doctor's warnings. Raises `DataError` with its first error."""
    asked = [t for t in targets_of(config.policy, known_spec(store, config)) if t is not None]
    findings = check(store, asked_returns=asked)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise DataError(
            f"{store.name or 'dataset'}: {errors[0]}{more}; trajlm data check shows all, "
            "--data.on-bad drop-episode leaves such episodes out"
        )
    return findings


def hold_out(store: TrajectoryStore, *, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the episodes to train on and of the finished ones held out.

    A keyed permutation that does not depend on the run's seed: runs of one dataset are compared
    on the same held-out episodes.
    """
    finished = np.flatnonzero(~store.unfinished)
    count = int(fraction * len(finished))
    if fraction > 0 and len(finished) >= HOLD_OUT_AT_LEAST:
        count = max(1, count)
    order = np.argsort(counter_bits(HOLD_OUT_STREAM, np.arange(len(finished))), kind="stable")
    held_out = np.sort(finished[order[:count]])
    return np.setdiff1d(np.arange(len(store)), held_out), held_out


def assemble(config: RunConfig, store: TrajectoryStore) -> Assembly:
    """The fresh model and its batches. Statistics are fitted on the training episodes alone."""
    algorithm: type[Algorithm] = config.entry.algorithm_class
    # Facts of the whole dataset: a held-out episode may be the longest.
    spec = known_spec(store, config)
    check_goals(spec)
    kept, held_out = hold_out(store, fraction=config.training.validation_fraction)
    prepared = algorithm.prepare(config.model, store.select(kept))
    request = algorithm.windows(config.model, spec)
    with torch.random.fork_rng():
        torch.manual_seed(derive(config.seed, BUILD_STREAM))
        model = algorithm.build(config.model, spec, prepared.fitted)
    loader = Loader(
        prepared.store,
        request,
        batch_size=config.training.batch_size,
        seed=config.seed,
        early_share=config.training.early_share,
    )
    aside: TrajectoryStore | None = None
    if len(held_out):
        aside = algorithm.prepare_held_out(config.model, store.select(held_out), prepared.fitted)
    return Assembly(model=model, loader=loader, request=request, held_out=aside)


def known_spec(store: TrajectoryStore, config: RunConfig) -> DataSpec:
    """The store's spec, with what only the configuration and the shipped behaviours know."""
    spec = store.spec
    if spec.env_id is None and config.data.env_id is not None:
        spec = replace(spec, env_id=config.data.env_id)
    reference = dataset_reference(spec.env_id) if spec.env_id else None
    if spec.expert_return is None and reference is not None:
        spec = replace(spec, expert_return=reference[1])
    return spec
