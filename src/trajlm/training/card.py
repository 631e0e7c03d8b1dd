"""The model card of an artefact: what it is, what it was trained on, how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def model_card(config: Mapping[str, Any], results: Mapping[str, Any] | None) -> str:
    """Markdown with the header the Hugging Face Hub reads; `config` is that of `config.json`."""
    spec = config["spec"]
    facts = {
        "algorithm": config["algorithm"],
        "environment": spec.get("env_id") or "unknown",
        "dataset": spec.get("dataset") or "unnamed",
        "dataset hash": spec.get("data_hash") or "unknown",
        "returns in the data": f"{spec.get('return_min'):.1f} to {spec.get('return_max'):.1f}",
    }
    rows = "\n".join(f"| {key} | `{value}` |" for key, value in facts.items())
    parts = [
        "---\nlibrary_name: trajlm\ntags:\n- reinforcement-learning\n- offline\n---",
        f"# {config['algorithm']}\n\n| | |\n|---|---|\n{rows}",
        "```python\nimport trajlm\n\nmodel = trajlm.load(FOLDER)\npolicy = model.policy()\n```",
        "## Configuration\n\n```json\n" + json.dumps(config["config"], indent=2) + "\n```",
    ]
    if results and results.get("rows"):
        parts.append(_scores(results["rows"]))
    return "\n\n".join(parts) + "\n"


def _scores(rows: list[Mapping[str, Any]]) -> str:
    head = "## Scores\n\n| asked | episodes | mean return | std |\n|---|---|---|---|\n"
    keys = ("target_return", "episodes", "return_mean", "return_std")
    return head + "\n".join(f"| {' | '.join(str(row.get(key)) for key in keys)} |" for row in rows)
