"""The base of online objectives, which learn from rewards of the policy's own samples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from foleypref.flow.convention import seed_of
from foleypref.models.backbones import Model
from foleypref.models.tools import sample_latents
from foleypref.training.context import TrainContext
from foleypref.training.objectives import Loss, StatefulObjective
from foleypref.training.objectives._rollouts import num_groups


@dataclass(frozen=True)
class HeldOut:
    """Held-out samples that are judged already, so that only their logs are left."""

    item_ids: list[str]
    logs: dict[str, Tensor]


class OnlineObjective(StatefulObjective):
    """An objective that samples clips and learns from the samples' rewards. Letters: B samples."""

    needs: ClassVar[frozenset[str]] = frozenset({"clips", "reward"})

    if TYPE_CHECKING:  # each objective declares these fields, in its own order
        group_size: int
        eval_num_steps: int
        eval_guidance_scale: float

    def eval_batches(self, context: TrainContext, policy: Model) -> Iterator[HeldOut]:
        """Sample every held-out clip of this process once by the ODE, from noise seeded by the clip.

        Logs `reward`, `unscored` and `watch/<scorer>/<dimension>`. Raises ValueError for a batch size that
        training would refuse too.
        """
        num_groups(context, self.group_size)
        return self._held_out(context, policy)

    @torch.no_grad()
    def _held_out(self, context: TrainContext, policy: Model) -> Iterator[HeldOut]:
        assert context.reward is not None
        for part in context.layout.shares(context.data.clips):
            ids = [clip.clip_id for clip in part]
            latents = sample_latents(
                policy,
                context.conditions(ids),
                [seed_of("held-out", clip_id) for clip_id in ids],
                num_steps=self.eval_num_steps,
                guidance_scale=self.eval_guidance_scale,
            )
            judged = context.reward.judge(part, latents, watch=True)
            watched = {f"watch/{name}": value[~value.isnan()] for name, value in judged.watched.items()}
            logs = {"reward": judged.rewards, "unscored": judged.unscored.float()}
            yield HeldOut(ids, logs | watched)

    def loss(self, policy: Model, reference: Model | None, batch: Any) -> Loss:
        """Return the mean loss of B samples, with the logs of their rollout; held-out ones have only logs."""
        if isinstance(batch, HeldOut):
            return Loss(torch.zeros(()), batch.logs)
        per_sample, logs = self.sample_losses(policy, reference, batch)
        logs |= {"loss": per_sample, **batch.logs}
        return Loss(per_sample.mean(), {key: value.detach() for key, value in logs.items()})

    @abstractmethod
    def sample_losses(
        self, policy: Model, reference: Model | None, batch: Any
    ) -> tuple[Float[Tensor, " B"], dict[str, Tensor]]:
        """Return the loss of each sample of a batch, and their logs."""
