"""The planner's token models, as arguments of a test."""

from __future__ import annotations

import pytest

from trajlm.planning import kernels
from trajlm.planning.cached import CachedModel
from trajlm.planning.compiled import CompiledModel
from trajlm.planning.recompute import RecomputeModel

compiles = pytest.mark.skipif(kernels.compiler() is None, reason="there is no C compiler")
FAST = [CachedModel, pytest.param(CompiledModel, marks=compiles)]
ALL = [RecomputeModel, *FAST]
