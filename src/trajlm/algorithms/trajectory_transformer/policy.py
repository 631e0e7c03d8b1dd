"""Acting with a Trajectory Transformer: one plan for each slot and step, many slots at once.

The carry holds the tokens of the last transitions and what is left of the last plan; nothing else
is remembered. Slots whose pasts are equally long are planned together; draws are keyed by (episode
seed, step), so a slot plans alike in any company.

Legend: N slots, C context, D slots of a transition, H horizon, A action entries, P beams.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trajlm.algorithms.trajectory_transformer.config import PolicyConfig
from trajlm.core.config import overridden
from trajlm.core.errors import UsageError
from trajlm.core.protocols import Condition, Critic, Step
from trajlm.nn.sampling import Filter
from trajlm.nn.slots import columns_of
from trajlm.planning.beam import (
    Limits,
    Plans,
    Slot,
    keyed_draws,
    likelihood_search,
    scored_search,
)
from trajlm.planning.cached import CachedModel
from trajlm.planning.compiled import CompiledModel
from trajlm.planning.guidance import RewardScorer
from trajlm.planning.tokens import TokenModel
from trajlm.planning.window import Window

if TYPE_CHECKING:
    from trajlm.algorithms.trajectory_transformer.model import Model

PLAN_STREAM = 0x71A9_0000
USUAL_CONTEXT, USUAL_HORIZON = 5, 5
NO_GOALS = "goal: this model was not trained with goals; train with model.goal"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Carry:
    """The past of N slots as tokens.

    `past` (N, C-1, D): the last transitions, newest last. `observation` (N, observation entries)
    and `action` (N, A): tokens of the newest step. `plan` (N, S): what was planned after the newest
    observation, `planned` (N,) transitions of it (fewer than the horizon where the search ended
    before) and `age` (N,) steps acted from it. `steps` (N,): steps seen in this episode. `goal` (N,
    entries of a goal) real, NaN where there is none; `asked` (N,) bool: it was asked for, so that
    an environment's own goals do not replace it.
    """

    past: Tensor
    observation: Tensor
    action: Tensor
    plan: Tensor
    planned: Tensor
    age: Tensor
    steps: Tensor
    goal: Tensor
    asked: Tensor

    def select(self, index: np.ndarray) -> Carry:
        """The memory of the slots at `index` (M,)."""
        rows = torch.as_tensor(index, device=self.steps.device)
        return Carry(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True)
class TrajectoryTransformerPolicy:
    """Plans with `model` and acts the first action. Built by `Model.policy`.

    `token_model` makes the token model of each plan, in place of what the configuration says.
    """

    model: Model
    config: PolicyConfig
    guide: Critic | None = None
    token_model: Callable[..., TokenModel] | None = None

    @classmethod
    def of(
        cls, model: Model, config: PolicyConfig, guide: Critic | None, **overrides: Any
    ) -> TrajectoryTransformerPolicy:
        """Raises `UsageError` where the plan does not fit the model, or its kernels the machine."""
        policy = cls(model.eval(), overridden(config, overrides, name="policy"), guide)
        policy.window.check(horizon=policy.horizon)
        if policy.config.replan_every > policy.horizon:
            raise UsageError(
                f"replan_every: {policy.config.replan_every} steps cannot be acted from a plan of "
                f"horizon {policy.horizon}"
            )
        if policy.config.goal is not None and model.config.goal == "none":
            raise UsageError(NO_GOALS)
        if guide is not None and policy.config.search == "likelihood":
            raise UsageError("guide: a likelihood search takes none; use --policy.search reward")
        if policy.config.kernels == "compiled":
            policy.tokens()
        return policy

    @property
    def window(self) -> Window:
        block = self.model.config.transitions
        return Window(
            kind=self.config.window,
            slots=self.model.layout.size,
            context=self.config.context or max(2, min(USUAL_CONTEXT, block // 2)),
            block=self.model.block_size,
        )

    @property
    def horizon(self) -> int:
        """Transitions planned ahead."""
        if self.config.horizon is not None:
            return self.config.horizon
        if self.config.window == "published":
            return USUAL_HORIZON
        return max(1, min(USUAL_HORIZON, self.model.config.transitions - self.window.past))

    # ---- the contract of a policy -----------------------------------------------------------

    def initial(self, num_envs: int, condition: Condition | None = None) -> Carry:
        """An empty memory. Goals are the condition's (N, ...), else the configuration's one, else
        those that the environment tells in its steps."""
        layout, device = self.model.layout, self.model.position.device
        goal = self._goals(num_envs, condition).to(device)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        return Carry(
            past=zeros(num_envs, self.window.past, layout.size),
            observation=zeros(num_envs, layout.observation_size),
            action=zeros(num_envs, layout.action_size),
            plan=zeros(num_envs, self.horizon * layout.size - layout.observation_size),
            planned=zeros(num_envs),
            age=zeros(num_envs),
            steps=zeros(num_envs),
            goal=goal,
            asked=torch.isfinite(goal).all(1),
        )

    def _goals(self, num_envs: int, condition: Condition | None) -> Tensor:
        size = self.model.goal_size
        given = None if condition is None else condition.goal
        if given is None and self.config.goal is not None:
            given = np.broadcast_to(np.array(self.config.goal), (num_envs, len(self.config.goal)))
        if given is None:
            return torch.full((num_envs, size), torch.nan)
        if self.model.config.goal == "none":
            raise UsageError(NO_GOALS)
        goals = np.array(given, np.float32)
        return torch.from_numpy(_checked_goals(goals, (num_envs, size)))

    def _observed_goals(self, carry: Carry, step: Step) -> Tensor:
        """The goals (N, entries of a goal) with those told at the start of an episode."""
        if self.model.config.goal == "none":
            return carry.goal
        told = torch.as_tensor(step.is_first, device=carry.goal.device) & ~carry.asked
        goal = carry.goal
        if step.goal is not None and bool(told.any()):
            rows = told.cpu().numpy()
            given = _checked_goals(step.goal[rows], (int(rows.sum()), goal.shape[1]))
            goal = goal.clone()
            goal[told] = torch.from_numpy(given).to(goal.device)
        if bool(torch.isnan(goal).any()):
            raise UsageError(
                f"goal: this model is asked for one and the environment tells none; give "
                f"{goal.shape[1]} numbers"
            )
        return goal

    @torch.inference_mode()
    def act(self, carry: Carry, step: Step) -> tuple[Carry, np.ndarray]:
        """The carry with this step in it, and the actions (N, ...) within the bounds."""
        carry = self._observe(carry, step)
        until = carry.planned.clamp(max=self.config.replan_every)
        stale = (carry.age >= until) | (carry.steps == 1)
        if bool(stale.any()):
            carry = self._replan(carry, np.flatnonzero(stale.cpu().numpy()), seed=step.seed)
        layout = self.model.layout
        first = carry.age * layout.size
        places = first[:, None] + torch.arange(layout.action_size, device=first.device)
        tokens = carry.plan.gather(1, places)
        carry = replace(carry, action=tokens, age=carry.age + 1)
        decoded = self.model.discretizer.decode(tokens, first=layout.actions.start)
        return carry, layout.actions_of(decoded.cpu().numpy())

    def _observe(self, carry: Carry, step: Step) -> Carry:
        """The transition that ended joins the past; slots that start afresh have none."""
        model, layout = self.model, self.model.layout
        device = carry.steps.device
        entries = torch.from_numpy(layout.observation_rows(columns_of(step.observation)))
        first = torch.as_tensor(step.is_first, device=device)
        reward = torch.as_tensor(np.asarray(step.reward, np.float32), device=device)
        if model.spec.delayed_reward:  # all of it comes at the end: none was seen before
            reward = torch.zeros_like(reward)
        ended = torch.cat(
            [
                carry.observation,
                carry.action,
                model.discretizer.encode(reward[:, None], first=layout.reward),
                # A value is not known yet; its token is never seen.
                torch.zeros_like(carry.observation[:, :1]),
            ],
            dim=1,
        )
        return replace(
            carry,
            past=torch.cat([carry.past[:, 1:], ended[:, None]], dim=1)[:, -carry.past.shape[1] :]
            if carry.past.shape[1]
            else carry.past,
            observation=model.discretizer.encode(entries.to(device)),
            steps=torch.where(first, 0, carry.steps) + 1,
            age=torch.where(first, 0, carry.age),
            goal=self._observed_goals(carry, step),
        )

    # ---- planning ---------------------------------------------------------------------------

    def _replan(self, carry: Carry, stale: np.ndarray, *, seed: np.ndarray) -> Carry:
        """New plans for the slots `stale`, those of equally long pasts together, and of these the
        ones whose search begins with a suggestion."""
        known = (carry.steps - 1).clamp(max=carry.past.shape[1])
        kinds = torch.stack([known, self._suggests(carry)], dim=1).cpu().numpy()[stale]
        plan, planned, age = carry.plan.clone(), carry.planned.clone(), carry.age.clone()
        for kind in np.unique(kinds, axis=0):
            rows = stale[(kinds == kind).all(1)]
            plans = self._plan(carry.select(rows), past=int(kind[0]), seed=seed[rows])
            best = plans.best
            at = torch.as_tensor(rows, device=plan.device)
            plan[at, : best.shape[1]] = best
            layout = self.model.layout
            planned[at] = (best.shape[1] + layout.observation_size) // layout.size
            age[at] = 0
        return replace(carry, plan=plan, planned=planned, age=age)

    @torch.inference_mode()
    def plan(self, carry: Carry, step: Step) -> tuple[Carry, Plans]:
        """The carry with this step in it and all beams of one new plan; every slot must have
        an equally long past."""
        carry = self._observe(carry, step)
        past = int((carry.steps - 1).clamp(max=carry.past.shape[1])[0])
        return carry, self._plan(carry, past=past, seed=step.seed)

    def _plan(self, carry: Carry, *, past: int, seed: np.ndarray) -> Plans:
        prefix = torch.cat(
            [carry.past[:, carry.past.shape[1] - past :].flatten(1), carry.observation], dim=1
        )
        goal = None
        if self.model.config.goal != "none":
            goal = self.model.discretizer.encode(carry.goal)
        model = self.tokens()
        if self.config.search == "likelihood":
            return self._likeliest(model, prefix, goal)
        return self._best(model, prefix, goal, carry, seed)

    def tokens(self) -> TokenModel:
        """A token model of this policy's weights, window and precision."""
        dtype = torch.bfloat16 if self.config.precision == "bf16" else None
        return self.maker(self.model, self.window, dtype)

    @property
    def maker(self) -> Callable[..., TokenModel]:
        """What makes its token models: (model, window, dtype) -> one."""
        if self.token_model is not None:
            return self.token_model
        return CompiledModel if self.config.kernels == "compiled" else CachedModel

    def _likeliest(self, model: TokenModel, prefix: Tensor, goal: Tensor | None) -> Plans:
        schedule, rest = self.schedule
        rounds = [schedule, *([[*rest, *schedule]] * (self.horizon - 1))]
        return likelihood_search(
            model,
            prefix,
            slots=[slot for part in rounds for slot in part],
            beam_width=self.config.beam_width,
            goal=goal,
        )

    def _best(
        self,
        model: TokenModel,
        prefix: Tensor,
        goal: Tensor | None,
        carry: Carry,
        seed: np.ndarray,
    ) -> Plans:
        schedule, rest = self.schedule
        steps, slots = carry.steps.cpu().numpy(), self.model.layout.size
        draws = keyed_draws(seed, steps, slots=slots, stream=PLAN_STREAM, device=prefix.device)
        budget, started = self.config.time_budget_ms, time.perf_counter()
        plans = scored_search(
            model,
            prefix,
            schedule=schedule,
            rest=rest,
            horizon=self.horizon,
            beam_width=self.config.beam_width,
            num_samples=self.config.num_samples,
            scorer=self.scorer,
            draws=draws,
            goal=goal,
            limits=Limits(
                seconds=None if budget is None else budget / 1e3,
                agreed_tokens=self._acted_tokens if self.config.early_stop else None,
            ),
            suggestion=self._suggestion(carry),
        )
        spent = 1e3 * (time.perf_counter() - started)
        if budget is not None and plans.depth == 1 and spent > budget:
            logger.warning(
                "time_budget_ms: %.0f is too small for one transition, which took %.0f",
                budget,
                spent,
            )
        return plans

    def _suggestion(self, carry: Carry) -> Tensor | None:
        """With `warm_start`, the action that the plan before had next; None where a slot has none."""
        layout = self.model.layout
        if not bool(self._suggests(carry).all()):
            return None
        places = carry.age[:, None] * layout.size
        return carry.plan.gather(1, places + torch.arange(layout.action_size, device=places.device))

    def _suggests(self, carry: Carry) -> Tensor:
        """(N,) bool: which slots begin a search with an action of the plan before."""
        if not self.config.warm_start:
            return torch.zeros_like(carry.age, dtype=torch.bool)
        return (carry.age > 0) & (carry.age < carry.planned)

    @property
    def _acted_tokens(self) -> int:
        """The tokens of a plan up to the last action that is acted from it."""
        layout = self.model.layout
        return (self.config.replan_every - 1) * layout.size + layout.action_size

    @property
    def scorer(self) -> RewardScorer:
        return RewardScorer(
            layout=self.model.layout,
            discretizer=self.model.discretizer,
            discount=self.model.config.discount,
            percentile=self.config.percentile,
            guide=self.guide,
        )

    @property
    def schedule(self) -> tuple[list[Slot], list[Slot]]:
        """The slots from the action to the value, and those of the next observation."""
        config, layout, model = self.config, self.model.layout, self.model
        # As published a stop token is a candidate like any other; it decodes to the top bin.
        published = model.config.fidelity == "published"
        allowed = model.num_bins + 1 if published else model.num_bins
        observed = Filter(
            top_k=config.top_k_observation,
            cdf=config.cdf_observation,
            temperature=config.temperature,
        )
        acted = Filter(
            top_k=config.top_k_action, cdf=config.cdf_action, temperature=config.temperature
        )
        told = Filter(top_k=config.top_k_reward, temperature=config.temperature)
        if config.search == "likelihood":  # filters belong to the drawing of actions
            observed, acted, told = (Filter(temperature=1.0) for _ in range(3))
        actions = [
            Slot(index=i, keep=acted, allowed=allowed)
            for i in range(layout.actions.start, layout.actions.stop)
        ]
        last = [
            Slot(index=i, keep=told, allowed=allowed, watched=True)
            for i in (layout.reward, layout.value)
        ]
        rest = [
            Slot(index=i, keep=observed, allowed=allowed, ends=i == 0 and not published)
            for i in range(layout.observation_size)
        ]
        return [*actions, *last], rest


def _checked_goals(goals: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Goals (N, ...) as (N, entries of a goal) float32. Raises `UsageError`."""
    if goals.shape[:1] != shape[:1] or goals.size != shape[0] * shape[1]:
        goals = np.full(shape, np.nan)
    if not np.isfinite(goals).all():
        raise UsageError(f"goal: expected {shape[1]} finite numbers, one an entry of a goal")
    return np.asarray(goals, np.float32).reshape(shape)
