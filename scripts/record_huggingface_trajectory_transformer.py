"""Record what Hugging Face's Trajectory Transformer computes, for the tests of `trajlm.convert`.

transformers 5 deleted the model, so it runs in an environment that is thrown away:

    python -m venv old && old/bin/pip install torch "transformers==4.57.3"
    old/bin/python scripts/record_huggingface_trajectory_transformer.py \
        tests/golden/huggingface_trajectory_transformer.safetensors
"""

from __future__ import annotations

import json
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import TrajectoryTransformerConfig, TrajectoryTransformerModel

OBSERVATION, ACTION, BINS, TRANSITIONS = 3, 2, 10, 5
SLOTS = OBSERVATION + ACTION + 2
BLOCK = TRANSITIONS * SLOTS - 1


def main(path: str) -> None:
    torch.manual_seed(0)
    config = TrajectoryTransformerConfig(
        vocab_size=BINS,
        observation_dim=OBSERVATION,
        action_dim=ACTION,
        transition_dim=SLOTS,
        block_size=BLOCK,
        n_layer=2,
        n_head=4,
        n_embd=32,
    )
    model = TrajectoryTransformerModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    # Tokens up to BINS: the last is the stop token.
    tokens = torch.randint(0, BINS + 1, (3, BLOCK))
    targets = torch.randint(0, BINS + 1, (3, BLOCK))
    mask = torch.ones(3, BLOCK)
    with torch.no_grad():
        whole = model(tokens, targets=targets, attention_mask=mask, return_dict=True)
        part = model(tokens[:, : 2 * SLOTS + 3], return_dict=True)
    weights = {
        f"weight.{name}": tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith(".attn.mask")
    }
    recorded = {
        "tokens": tokens,
        "targets": targets,
        "logits": whole.logits,
        "loss": whole.loss[None],
        "logits_of_part": part.logits,
    }
    facts = {"config": json.dumps(config.to_dict()), "transformers": transformers.__version__}
    tensors = {name: tensor.contiguous() for name, tensor in (recorded | weights).items()}
    save_file(tensors, path, metadata=facts)


if __name__ == "__main__":
    main(sys.argv[1])
