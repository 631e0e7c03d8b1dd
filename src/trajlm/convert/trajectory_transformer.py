"""The Trajectory Transformer between our names and those of its authors and of `transformers`.

Theirs keep query, key and value as three maps, ours as one. Their files hold no bins: those come
from a dataset (`with_bins`), or from our section of a `config.json` that we wrote. What their files
compute beside the weights (the mask of attention) is left out by name.

Legend: D slots of a transition, N bins.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trajlm.algorithms.base import Algorithm
from trajlm.convert.form import (
    SECTION,
    Fitted,
    Form,
    build,
    carried_spec,
    count,
    refuse_names,
    section,
)
from trajlm.core.config import to_mapping
from trajlm.core.errors import CheckpointError, DataError, UsageError
from trajlm.core.spec import Box, DataSpec, Space, leaves
from trajlm.data.store import TrajectoryStore

logger = logging.getLogger(__name__)

NAME, TITLE = "trajectory_transformer", "Trajectory Transformer"
PUBLISHED_HEADS = 4
PUBLISHED_HORIZON = 1000
# The authors model the positions and velocities of Ant alone, without its contact forces.
PUBLISHED_ENTRIES = {"Ant": 27}
WEIGHTS = ("action_weight", "reward_weight", "value_weight")

PREFIX = "trajectory_transformer."
TOKENS, POSITIONS, HEAD = "tok_emb.weight", "pos_emb", "head.weight"
OURS = {TOKENS: "embed_token.weight", HEAD: "head.weight"}
OF_A_BLOCK = {
    "norm_attention": "ln1",
    "norm_mlp": "ln2",
    "attention.output": "attn.proj",
    "mlp_input": "l1",
    "mlp_output": "l2",
}
AUTHORS = {".mlp.0.": ".l1.", ".mlp.2.": ".l2."}
PARTS = ("query", "key", "value")
KINDS = ("weight", "bias")
GOALS = "goal_emb.weight"
BINS = ("edges", "values")


# ---- from theirs --------------------------------------------------------------------------------


def from_huggingface(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    context_length: int | None = None,
    return_scale: float | None = None,
) -> Algorithm:
    """Our model of their configuration and weights, bins included where we wrote them.

    Raises `CheckpointError` where the weights do not fit the configuration, and `UsageError` for
    options of a Decision Transformer.
    """
    if context_length is not None or return_scale is not None:
        raise UsageError(f"--context-length, --return-scale: a {TITLE} has neither")
    ours = section(config)
    settings = _settings(config, ours)
    spec, named = _spec(config, ours), published_names(tensors)
    model, weights = build(NAME, settings, spec, lambda made: _ours(named, made.num_layers))
    bins = {
        f"discretizer.{name}": _numbers(ours, name, model.state_dict()[f"discretizer.{name}"])
        for name in BINS
    }
    model.load_state_dict({**weights, **bins}, strict=True)
    return model.eval()


def recognises(tensors: Mapping[str, Tensor]) -> bool:
    return TOKENS in published_names(tensors)


def infer_config(tensors: Mapping[str, Tensor], data: Fitted | None = None) -> dict[str, Any]:
    """Their configuration from the weights' shapes, and from the data where a transition is split.

    Raises `UsageError` without data, `CheckpointError` for shapes of another model.
    """
    named = published_names(tensors)
    try:
        slots, logits, width = named[HEAD].shape
        block = named[POSITIONS].shape[1]
        num_layers = len({name.split(".")[1] for name in named if name.startswith("blocks.")})
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"no {TITLE}'s weights: {error}") from None
    if not isinstance(data, TrajectoryStore):
        raise UsageError(
            f"these weights have {slots} tokens a transition and no config.json beside them says how "
            "many are observations and how many actions; name their dataset: --data DATASET"
        )
    action = _entries(data.action_space)
    observation = _kept(data, slots - action - 2)
    if slots != observation + action + 2:
        raise DataError(
            f"{data.name}: a transition has {observation} + {action} + 2 tokens (observation, action, "
            f"reward and value), the weights' has {slots}"
        )
    logger.warning(
        "weights without a config.json beside them: taken to have %d heads, as published, and %d of "
        "their %d tokens a transition to be actions, as in the data; put their config.json beside "
        "them where that is wrong",
        PUBLISHED_HEADS,
        action,
        slots,
    )
    return {
        "model_type": NAME,
        "vocab_size": logits - 1,
        "observation_dim": observation,
        "action_dim": action,
        "transition_dim": slots,
        "block_size": block,
        "n_layer": num_layers,
        "n_head": PUBLISHED_HEADS,
        "n_embd": width,
    }


def published_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of the authors' code (`blocks.0.mlp.0...`) as those of `transformers`, masks left out."""
    found = {}
    for name, tensor in tensors.items():
        short = name.removeprefix(PREFIX)
        for theirs, there in AUTHORS.items():
            short = short.replace(theirs, there)
        if not short.endswith(".attn.mask"):
            found[short] = tensor
    return found


def _spec(config: Mapping[str, Any], ours: Mapping[str, Any]) -> DataSpec:
    spec = carried_spec(ours) or DataSpec(
        observation=Box(shape=(count(config, "observation_dim", 17),)),
        action=Box(shape=(count(config, "action_dim", 6),)),
        horizon=PUBLISHED_HORIZON,
    )
    return replace(spec, has_statistics="bins" in ours)


def _settings(config: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Our `Config` as a mapping. Their defaults are those of their code."""
    observation, action = count(config, "observation_dim", 17), count(config, "action_dim", 6)
    slots, block = count(config, "transition_dim", 25), count(config, "block_size", 249)
    if slots != observation + action + 2:
        raise CheckpointError(
            f"config.json: transition_dim {slots} is not observation_dim {observation} + action_dim "
            f"{action} + 2"
        )
    if (block + 1) % slots:
        raise CheckpointError(
            f"config.json: block_size {block} is not whole transitions of {slots} tokens, less one"
        )
    if isinstance(ours.get("config"), Mapping):
        if ours["config"].get("goal", "none") != "none":
            raise CheckpointError(f"config.json: {SECTION}.config.goal: their form has no goal")
        return dict(ours["config"])
    published = dict(zip(WEIGHTS, (5, 1, 1), strict=True))
    return {
        "transitions": (block + 1) // slots,
        "num_bins": count(config, "vocab_size", 100),
        "bins": "published",
        "width": count(config, "n_embd", 128),
        "num_layers": count(config, "n_layer", 4),
        "num_heads": count(config, "n_head", 4),
        "dropout": config.get("resid_pdrop", 0.1),
        **{name: config.get(name, value) for name, value in published.items()},
        "fidelity": "published",
    }


def _ours(tensors: Mapping[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """Their tensors under our names; what is unknown is refused by name."""
    if GOALS in tensors:
        raise CheckpointError(
            f"weights: {GOALS}: models that are conditioned on a goal cannot be converted"
        )
    wanted = {*OURS, POSITIONS}
    for _, theirs in _pairs(num_layers):
        wanted |= {f"{theirs}.{kind}" for kind in KINDS}
    for _, theirs in _attentions(num_layers):
        wanted |= {f"{theirs}.{part}.{kind}" for part in PARTS for kind in KINDS}
    refuse_names(wanted - set(tensors), set(tensors) - wanted, TITLE)
    if tensors[POSITIONS].shape[:1] != (1,):
        raise CheckpointError(f"weights: {POSITIONS} is {list(tensors[POSITIONS].shape)}")
    found = {ours: tensors[theirs] for theirs, ours in OURS.items()}
    found["position"] = tensors[POSITIONS][0]
    for ours, theirs in _pairs(num_layers):
        found |= {f"{ours}.{kind}": tensors[f"{theirs}.{kind}"] for kind in KINDS}
    for ours, theirs in _attentions(num_layers):
        for kind in KINDS:
            parts = [tensors[f"{theirs}.{part}.{kind}"] for part in PARTS]
            if len({part.shape for part in parts}) > 1:
                raise CheckpointError(f"weights: {theirs}: the maps' shapes differ")
            found[f"{ours}.{kind}"] = torch.cat(parts)
    return {name: tensor.float().contiguous() for name, tensor in found.items()}


def _pairs(num_layers: int) -> list[tuple[str, str]]:
    """(our name, theirs) of every module that is one there and here."""
    return [("transformer.norm", "ln_f")] + [
        (f"transformer.blocks.{n}.{ours}", f"blocks.{n}.{theirs}")
        for n in range(num_layers)
        for ours, theirs in OF_A_BLOCK.items()
    ]


def _attentions(num_layers: int) -> list[tuple[str, str]]:
    """(our name, theirs) of the maps to query, key and value."""
    return [
        (f"transformer.blocks.{n}.attention.input", f"blocks.{n}.attn") for n in range(num_layers)
    ]


def _numbers(ours: Mapping[str, Any], name: str, like: Tensor) -> Tensor:
    """The bins' `name` in our section; `like` where it has no bins."""
    if "bins" not in ours:
        return like
    try:
        found = torch.tensor(ours["bins"][name], dtype=torch.float32)
    except (TypeError, ValueError, KeyError, RuntimeError):
        found = torch.empty(0)
    broken = found.shape != like.shape or not bool(torch.isfinite(found).all())
    if broken or bool((found.diff(dim=-1) < 0).any()):
        raise CheckpointError(
            f"config.json: {SECTION}.bins.{name}: expected {list(like.shape)} finite, rising numbers"
        )
    return found


# ---- to theirs ----------------------------------------------------------------------------------


def to_huggingface(model: Algorithm) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Their `config.json` and weights of our model; with ours beside, nothing is lost.

    Raises `UsageError` for a model that is conditioned on a goal: theirs is not.
    """
    config, spec = model.config, model.spec
    if config.goal != "none":
        raise UsageError(
            f"Hugging Face's {TITLE} has no goal before its sequence; this model's is {config.goal!r}"
        )
    state = {name: tensor.detach().cpu().float() for name, tensor in model.state_dict().items()}
    tensors = {theirs: state[ours] for theirs, ours in OURS.items()}
    tensors[POSITIONS] = state["position"][None]
    for ours, theirs in _pairs(config.num_layers):
        tensors |= {f"{theirs}.{kind}": state[f"{ours}.{kind}"] for kind in KINDS}
    for ours, theirs in _attentions(config.num_layers):
        for kind in KINDS:
            parts = state[f"{ours}.{kind}"].chunk(len(PARTS))
            tensors |= {
                f"{theirs}.{name}.{kind}": part for name, part in zip(PARTS, parts, strict=True)
            }
    observation = config.observation_size or _entries(spec.observation)
    action = _entries(spec.action)
    published = {
        "architectures": ["TrajectoryTransformerModel"],
        "model_type": NAME,
        "vocab_size": config.num_bins,
        "observation_dim": observation,
        "action_dim": action,
        "transition_dim": observation + action + 2,
        "block_size": len(state["position"]),
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_embd": config.width,
        **{f"{part}_pdrop": config.dropout for part in ("resid", "embd", "attn")},
        **{name: getattr(config, name) for name in WEIGHTS},
        SECTION: {"config": to_mapping(config), "spec": spec.to_json()} | _carried(spec, state),
    }
    # A tensor each: views of one storage are refused by safetensors.
    return published, {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def _carried(spec: DataSpec, state: Mapping[str, Tensor]) -> dict[str, Any]:
    if not spec.has_statistics:
        return {}
    return {
        "bins": {name: state[f"discretizer.{name}"].double().tolist() for name in BINS},
    }


# ---- bins ---------------------------------------------------------------------------------------


def with_bins(model: Algorithm, data: Fitted, source: str) -> Algorithm:
    """`model` with bins fitted on a dataset as its configuration says, and the dataset's facts.

    Raises `DataError` where the dataset's entries are not those of the weights, and `UsageError`
    for a model with bins: its weights know no others.
    """
    if model.spec.has_statistics:
        raise UsageError(f"--data {source}: this model has the bins that it was trained with")
    if not isinstance(data, TrajectoryStore):
        raise DataError(f"{source}: a {TITLE}'s bins are fitted on a dataset; name one")
    config, spec = model.config, model.spec
    observation = config.observation_size or _entries(spec.observation)
    action, theirs = _entries(spec.action), _entries(data.action_space)
    entries = _entries(data.observation_space)
    kept = min(entries, config.observation_size or _kept(data, observation))
    if (observation, action) != (kept, theirs):
        raise DataError(
            f"{source}: its observations have {entries} entries and its actions {theirs}, the "
            f"model's {observation} and {action}"
        )
    if kept < entries:
        logger.warning("%s: of %d observed entries the first %d are used", source, entries, kept)
        config = replace(config, observation_size=kept)
    fitted = type(model).prepare(config, data).fitted
    rebuilt: Algorithm = type(model).build(config, data.spec, fitted)
    bins = {n: t for n, t in rebuilt.state_dict().items() if n.startswith("discretizer.")}
    rebuilt.load_state_dict({**model.state_dict(), **bins}, strict=True)
    return rebuilt.eval()


def _kept(data: TrajectoryStore, wanted: int) -> int:
    """How many entries of an observation are modelled: all, or as many as the authors keep."""
    entries = _entries(data.observation_space)
    body = (data.env_id or "").split("-")[0]
    return wanted if wanted == PUBLISHED_ENTRIES.get(body) and wanted <= entries else entries


def _entries(space: Space) -> int:
    """The numbers in a space, each of which has a token."""
    return sum(math.prod(leaf.shape) for leaf in leaves(space, "").values())


FORM = Form(
    name=NAME,
    title=TITLE,
    lacks="bins",
    recognises=recognises,
    infer=infer_config,
    read=from_huggingface,
    write=to_huggingface,
    fit=with_bins,
    card=(
        "- `transformers` has this model up to version 4.57, as `TrajectoryTransformerModel`; "
        "5.0 deleted it: `pip install 'transformers<5'`;\n"
        "- a transition is a row of tokens: observation, action, reward, value;\n"
        "- the token of entry `d` is the number of the bin that holds it, between "
        "`bins.edges[d]`; it stands for `bins.values[d]`; one past the last bin is the end;\n"
        "- the value is the discounted sum of the rewards after a step (`config.discount`).\n"
    ),
)
