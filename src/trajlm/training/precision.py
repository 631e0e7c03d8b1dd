"""Which numbers an update is computed in, and why."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

CPU_FLAGS = {"avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX-BF16", "bf16": "ARM bf16"}


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The chosen arithmetic of matrix products; weights and optimiser stay float32."""

    name: Literal["float32", "bf16"]
    device_type: str
    reason: str

    def autocast(self) -> AbstractContextManager[None]:
        """A fresh context for one forward pass."""
        return torch.autocast(self.device_type, dtype=torch.bfloat16, enabled=self.name == "bf16")

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def choose_precision(
    asked: Literal["auto", "float32", "bf16"], *, device: torch.device | str = "cpu"
) -> Precision:
    """The arithmetic for `device`. "auto" is bf16 only where it is native: emulated it is slower."""
    kind = torch.device(device).type
    if asked != "auto":
        return Precision(name=asked, device_type=kind, reason="as asked")
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        what = torch.cuda.get_device_name(device)
        reason = f"{what} {'multiplies' if native else 'does not multiply'} bf16 natively"
        return Precision(name="bf16" if native else "float32", device_type=kind, reason=reason)
    if kind == "cpu":
        found = native_cpu_bf16()
        if found:
            return Precision(name="bf16", device_type=kind, reason=f"this CPU has {found}")
        reason = "this CPU has no native bf16"
        return Precision(name="float32", device_type=kind, reason=reason)
    return Precision(name="float32", device_type=kind, reason=f"not measured on {kind}")


def native_cpu_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The instruction set that multiplies bf16 on this CPU, or the empty string."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux
        return ""
    lines = [line for line in text.splitlines() if line.lower().startswith(("flags", "features"))]
    words = set(lines[0].split(":", 1)[-1].split()) if lines else set()
    return next((name for flag, name in CPU_FLAGS.items() if flag in words), "")
