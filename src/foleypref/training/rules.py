"""Pairs made during training: a clip's own media over a distorted copy (SyncDPO, arXiv 2605.12179).

The clip, rule, modality and severity of a row are a function of (seed, step) over the global batch; the draws
inside the rule are a function of the row's own seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import get_args

import torch
from torch import Tensor

from foleypref.flow.convention import Latents, generator_of, seed_of
from foleypref.models.backbones import Model, ModelSpec
from foleypref.training.curricula import walk
from foleypref.training.distortion import RuleRow, distort_latents, distort_media
from foleypref.training.negatives import Modality, Negative
from foleypref.training.rule_settings import RulePairSettings
from foleypref.workspace.records import Clip, Feature, digest
from foleypref.workspace.store import Workspace

HELD_OUT = "held-out"


@dataclass(frozen=True)
class RulePairs:
    """A source of pairs made by rule: clips whose media are encoded, and the rules to distort them with.

    The clips are those of one side of the split, to train on or held out.
    """

    workspace: Workspace
    settings: RulePairSettings
    spec: ModelSpec
    latent_key: str  # the model's
    truths: Mapping[str, Feature]  # by clip_id: the clip's own media as latents
    clips: Sequence[Clip]
    pool: Sequence[Clip]  # clips that "replace" takes from
    silence: Tensor | None = None  # latents of silent sound

    def side(self, clips: Sequence[Clip]) -> RulePairs:
        """Return a view on some of the clips. If only one is left, "replace" draws from the full pool."""
        usable = self.usable(clips)
        return replace(self, clips=usable, pool=usable if len(usable) > 1 else self.pool)

    def usable(self, clips: Sequence[Clip]) -> list[Clip]:
        """Return those of the clips whose media are encoded."""
        return [clip for clip in clips if clip.clip_id in self.truths]

    def draw(self, seed: int, step: int, max_steps: int, *, num: int, severity: float) -> list[RuleRow]:
        """Draw the `num` rows of a step, with severities in a band of `severity_spread` below `severity`."""
        generator = generator_of(seed, step, "rules")
        weights = self.settings.weights_at(step / max(max_steps - 1, 1))
        rules = torch.multinomial(weights, num, replacement=True, generator=generator).tolist()
        factors = 1 - self.settings.severity_spread * torch.rand(num, generator=generator).double()
        clips = walk(len(self.clips), step * num, num, seed, "rules")
        rows = []
        for index, (clip, choice, factor) in enumerate(zip(clips, rules, factors.tolist(), strict=True)):
            rule = self.settings.rules[choice]
            row_seed = seed_of(seed, step, "rule", index)
            able = self._modalities(rule)
            modality = able[int(torch.randint(len(able), (), generator=generator_of(row_seed, "modality")))]
            rows.append(self._row(self.clips[clip], rule, modality, severity * factor, seed=row_seed))
        return rows

    def grid(self, num_time_bins: int) -> list[tuple[RuleRow, int]]:
        """Return the held-out rows, every clip × rule × severity, each with the time bin it is measured at.

        Bins and modalities take turns. A rule draws the same at all severities of a clip, and in every run.
        """
        grid = []
        for i, clip in enumerate(self.clips):
            for j, rule in enumerate(self.settings.rules):
                able = self._modalities(rule)
                modality = able[(i + i // num_time_bins) % len(able)]
                seed = seed_of(HELD_OUT, clip.clip_id, rule.part_name(), modality)
                for k, severity in enumerate(self.settings.eval_severities):
                    row = self._row(clip, rule, modality, severity, seed=seed)
                    grid.append((row, (i + j + k) % num_time_bins))
        return grid

    def _row(self, clip: Clip, rule: Negative, modality: Modality, severity: float, *, seed: int) -> RuleRow:
        return RuleRow(clip, rule, modality, severity, seed=seed, other=self._other(clip, rule, seed))

    @torch.no_grad()
    def latents(self, rows: Sequence[RuleRow], model: Model) -> tuple[Latents, Latents]:
        """Return the chosen and rejected latents of rows, float32 on the CPU; only one modality differs."""
        chosen = self._stored([row.clip for row in rows])
        rejected = {key: value.clone() for key, value in chosen.items()}
        if self.settings.on == "media":
            distorted = distort_media(self.workspace, rows, model)
        else:
            others, seconds = self._others(rows), self.spec.clip_seconds
            distorted = distort_latents(rows, chosen, others, self.silence, seconds=seconds)
        for index, row in enumerate(rows):
            # both sides have been through float16, or its rounding would tell them apart
            rejected[row.modality][index] = distorted[index].half().float()
        return chosen, rejected

    @property
    def identity(self) -> str:
        """The codec and a hash of the clips it could encode; must not change while a run lasts."""
        return f"{self.latent_key} {digest([clip.clip_id for clip in self.clips])}"

    def check(self) -> None:
        """Raise a ValueError for settings that these clips or this model cannot serve."""
        for rule in self.settings.rules:
            self._modalities(rule)
            if "other" in rule.needs and len(self.pool) < 2:
                raise ValueError(
                    f"negatives: {rule.part_name()} takes another clip's media and {len(self.pool)} of the "
                    "clips could be encoded; give it more clips or leave it out"
                )
        if not self.clips:
            raise ValueError("negatives: none of the clips could be encoded; `foleypref show` says why")

    def summary(self, severities: Sequence[float], batch_size: int) -> str:
        """Return one line for the start of a run, given the severities of the first and the last step."""
        s = self.settings
        names = " ".join(rule.part_name() for rule in s.rules)
        return (
            f"pairs by rule: {s.rows_of(batch_size)} of {batch_size} per step, {names}, on {s.on} of "
            f"{'/'.join(self._able)}, severity {severities[0]:g} to {severities[-1]:g}"
        )

    @cached_property
    def _able(self) -> list[Modality]:
        """The modalities in which pairs may differ, sorted."""
        asked = self.spec.latents if self.settings.modality == "either" else [self.settings.modality]
        if set(asked) - set(self.spec.latents):
            raise ValueError(f"negatives: modality is {self.settings.modality!r}, the model makes only sound")
        return [modality for modality in get_args(Modality) if modality in asked]

    def _modalities(self, rule: Negative) -> list[Modality]:
        able = [key for key in self._able if key in rule.modalities]
        if not able:
            raise ValueError(
                f"negatives: {rule.part_name()} acts on {', '.join(sorted(rule.modalities))}, the pairs are "
                f"to differ in {', '.join(self._able)}; leave it out or change modality"
            )
        return able

    def _other(self, clip: Clip, rule: Negative, seed: int) -> Clip | None:
        """Draw the clip whose media "replace" takes, or None for a rule that needs no other clip."""
        if "other" not in rule.needs:
            return None
        pool, generator = self.pool, generator_of(seed, "other")
        if self.settings.replace_pool != "any":
            allowed = self._pools.get(_class_of(clip, self.settings.class_key), [])
            if any(other.clip_id != clip.clip_id for other in allowed[:2]):  # not only the clip itself
                pool = allowed
        while True:  # `check` has refused a pool of a single clip
            other = pool[int(torch.randint(len(pool), (), generator=generator))]
            if other.clip_id != clip.clip_id:
                return other

    @cached_property
    def _pools(self) -> dict[str, list[Clip]]:
        """The clips that may replace one of a class, by that class; clips without a class are in none."""
        by_class: dict[str, list[Clip]] = {}
        for clip in self.pool:
            if label := _class_of(clip, self.settings.class_key):
                by_class.setdefault(label, []).append(clip)
        if self.settings.replace_pool == "same_class":
            return by_class
        return {
            label: [c for other in by_class if other != label for c in by_class[other]] for label in by_class
        }

    def _others(self, rows: Sequence[RuleRow]) -> dict[int, dict[str, Tensor]]:
        """Read the latents of the other clips, by row; rows without one are left out."""
        named = [(index, row.other) for index, row in enumerate(rows) if row.other is not None]
        if not named:
            return {}
        stored = self._stored([clip for _, clip in named])
        return {row: {key: value[at] for key, value in stored.items()} for at, (row, _) in enumerate(named)}

    def _stored(self, clips: Sequence[Clip]) -> dict[str, Tensor]:
        rows = self.workspace.rows([self.truths[clip.clip_id] for clip in clips])
        return {key: value.float() for key, value in rows.items()}


def _class_of(clip: Clip, key: str) -> str:
    label = clip.meta.get(key)
    return "" if label is None else str(label)
