"""What can be wrong with a dataset: the rules' ids, and one finding.

A finding made while a file is read travels in `TrajectoryStore.metadata["findings"]` as plain
JSON, so that it survives the cache and `doctor.check` can report what the store cannot hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]

RULES: Mapping[str, str] = {
    "D001": "NaN or infinite values",
    "D002": "columns of an episode disagree in length",
    "D003": "an episode without steps",
    "D004": "both end flags at one step",
    "D005": "neither end flag at the episode's end",
    "D006": "an end flag before the episode's end",
    "D007": "actions outside the action space",
    "D008": "a dimension that never changes",
    "D009": "an episode longer than the timestep table",
    "D010": "an asked return outside the data's returns",
    "D011": "few finished episodes",
    "D012": "an asked return with few episodes near it",
    "D013": "totals, ids or lengths the file declares are not what it holds",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One rule broken once. `episodes`: the first ones concerned, numbered as in the file."""

    rule: str
    severity: Severity
    message: str
    episodes: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.rule} {self.severity}: {self.message}"

    def to_json(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "severity": self.severity,
            "message": self.message,
            "episodes": list(self.episodes),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Finding:
        return cls(
            rule=value["rule"],
            severity=value["severity"],
            message=value["message"],
            episodes=tuple(value["episodes"]),
        )


def findings_of(metadata: Mapping[str, object]) -> list[Finding]:
    """The findings recorded while the file was read."""
    recorded: Any = metadata.get("findings", ())
    return [Finding.from_json(value) for value in recorded]


def as_metadata(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings as `TrajectoryStore.metadata` keeps them."""
    return [finding.to_json() for finding in findings]
