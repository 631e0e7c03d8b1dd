"""What a model attends to, recorded while it runs, whatever calls its transformer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from trajlm.nn.transformer import Transformer


@contextmanager
def recorded_attention(model: nn.Module) -> Iterator[list[Tensor]]:
    """The attention weights of every forward of `model`'s transformers inside the block: (B, H, T, T)
    a layer, in their order. The last is (B, H, S, T) where a model asks for S outputs alone."""
    maps: list[Tensor] = []

    def record(
        module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return arguments, {**named, "attention": maps}

    transformers = [each for each in model.modules() if isinstance(each, Transformer)]
    handles = [each.register_forward_pre_hook(record, with_kwargs=True) for each in transformers]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()
