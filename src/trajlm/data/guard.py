"""What loading does with bad data: refuse it, leave the episodes out, or keep it for the doctor."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Literal

import numpy as np

from trajlm.core.errors import DataError
from trajlm.data.doctor import file_numbers, integrity
from trajlm.data.findings import Finding, as_metadata, findings_of
from trajlm.data.store import TrajectoryStore

OnBad = Literal["refuse", "drop-episode", "keep"]

logger = logging.getLogger(__name__)


def enforce(store: TrajectoryStore, on_bad: OnBad) -> TrajectoryStore:
    """The store under a policy for NaN, lengths that disagree, empty episodes and the like.

    `refuse`: `DataError` with the first finding, which names episode and step. `drop-episode`:
    those episodes are left out, logged and listed in `metadata["dropped"]`; what cannot be left
    out by episodes (wrong totals) is still refused. `keep`: unchanged, for `doctor.check`.
    """
    errors = [f for f in findings_of(store.metadata) if f.severity == "error"]
    if on_bad == "keep" or not errors:
        return store
    stubborn = [finding for finding in errors if not finding.episodes]
    if on_bad == "refuse" or stubborn:
        refused = stubborn[0] if on_bad == "drop-episode" else errors[0]
        more = f" (and {len(errors) - 1} more findings)" if len(errors) > 1 else ""
        hint = (
            "'trajlm data check' lists all"
            if stubborn
            else "'trajlm data check' lists all, on_bad='drop-episode' leaves such episodes out"
        )
        raise DataError(f"{store.name}: {refused.rule}: {refused.message}{more}; {hint}")
    return _without_bad_episodes(store)


def _without_bad_episodes(store: TrajectoryStore) -> TrajectoryStore:
    """Drops until no rule of `integrity` is broken: a finding lists its first episodes only."""
    numbers = file_numbers(store, np.arange(len(store)))
    recorded = findings_of(store.metadata)
    errors = [f for f in recorded if f.severity == "error"]
    notices = [f for f in recorded if f.severity != "error"]
    bad = {episode for finding in errors for episode in finding.episodes}
    kept = store.select(~np.isin(numbers, list(bad)))
    while len(kept) and (found := [f for f in integrity(kept) if f.severity == "error"]):
        more = {episode for finding in found for episode in finding.episodes}
        bad |= more
        kept = kept.select(~np.isin(file_numbers(kept, np.arange(len(kept))), list(more)))
    if len(kept) == 0:
        raise DataError(f"{store.name}: no episode is left once bad ones are dropped")
    logger.warning(
        "%s: %d episodes dropped (%s): %s",
        store.name,
        len(bad),
        ", ".join(sorted({finding.rule for finding in errors})),
        ", ".join(map(str, sorted(bad)[:20])),
    )
    metadata = {**store.metadata, "findings": as_metadata(notices), "dropped": sorted(bad)}
    return replace(kept, metadata=metadata)


def with_verdict(store: TrajectoryStore) -> TrajectoryStore:
    """The store with `integrity`'s findings recorded beside those of the reader."""
    findings: list[Finding] = [*findings_of(store.metadata), *integrity(store)]
    return replace(store, metadata={**store.metadata, "findings": as_metadata(findings)})
