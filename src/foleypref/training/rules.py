"""Pairs made on the fly: a clip's own media over the same distorted by a rule (SyncDPO, arXiv 2605.12179).

Which clip, rule, modality and severity a row has is a function of (seed, step) over the global batch; what
the rule then draws is one of the row's own seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from foleypref.flow.convention import Latents, generator_of, seed_of
from foleypref.models.backbones import Model, ModelSpec
from foleypref.settings.parts import Part
from foleypref.training.curricula import walk
from foleypref.training.distortion import RuleRow, distort_latents, distort_media
from foleypref.training.negatives import Negative
from foleypref.training.rule_settings import NegativeSettings
from foleypref.workspace.records import Clip, Feature, digest
from foleypref.workspace.store import Workspace

HELD_OUT = "held-out"


@dataclass(frozen=True)
class RulePairs:
    """Where such pairs come from: clips of one side (training's, or held out) with their media encoded."""

    workspace: Workspace
    settings: NegativeSettings
    spec: ModelSpec
    key: str  # the model's latent key
    truths: Mapping[str, Feature]  # by clip_id
    clips: Sequence[Clip]
    pool: Sequence[Clip]  # that "replace" takes from
    silence: Tensor | None = None  # latents of silent sound

    def side(self, clips: Sequence[Clip]) -> RulePairs:
        """The same for some of the clips; a lone one is replaced from all of them."""
        usable = self.usable(clips)
        return replace(self, clips=usable, pool=usable if len(usable) > 1 else self.pool)

    def usable(self, clips: Sequence[Clip]) -> list[Clip]:
        """Those of the clips whose media are encoded."""
        return [clip for clip in clips if clip.clip_id in self.truths]

    def draw(self, seed: int, step: int, max_steps: int, num: int, severity: float) -> list[RuleRow]:
        """The `num` rows of a step, of a severity from `severity_spread` below `severity` up to it."""
        generator = generator_of(seed, step, "rules")
        weights = self.settings.weights_at(step / max(max_steps - 1, 1))
        rules = torch.multinomial(weights, num, replacement=True, generator=generator).tolist()
        lowered = 1 - self.settings.severity_spread * torch.rand(num, generator=generator).double()
        clips = walk(len(self.clips), step * num, num, seed, "rules")
        return [
            self._row(
                self.clips[clip],
                self.settings.rules[rule],
                severity * factor,
                seed_of(seed, step, "rule", row),
            )
            for row, (clip, rule, factor) in enumerate(zip(clips, rules, lowered.tolist(), strict=True))
        ]

    def grid(self, num_time_bins: int) -> list[tuple[RuleRow, int]]:
        """Held out: every clip × rule × severity, each at one time bin; bins and modalities take turns.

        What a rule draws is the same at all severities of a clip, and for every run.
        """
        found = []
        for i, clip in enumerate(self.clips):
            for j, rule in enumerate(self.settings.rules):
                able = self._modalities(rule)
                modality = able[(i + i // num_time_bins) % len(able)]
                seed = seed_of(HELD_OUT, clip.clip_id, rule.part_name(), modality)
                for k, severity in enumerate(self.settings.eval_severities):
                    row = RuleRow(clip, rule, modality, severity, seed, self._other(clip, rule, seed))
                    found.append((row, (i + j + k) % num_time_bins))
        return found

    @torch.no_grad()
    def latents(self, rows: Sequence[RuleRow], model: Model) -> tuple[Latents, Latents]:
        """Chosen and rejected of rows, float32 on the CPU; what a rule leaves alone is equal in both."""
        chosen = self._rows([row.clip for row in rows])
        rejected = {key: value.clone() for key, value in chosen.items()}
        if self.settings.on == "media":
            made = distort_media(self.workspace.root, rows, model)
        else:
            made = distort_latents(rows, chosen, self._others(rows), self.silence, self.spec.clip_seconds)
        for index, row in enumerate(rows):
            # both sides have been through float16, or its rounding would tell them apart
            rejected[row.modality][index] = made[index].half().float()
        return chosen, rejected

    @property
    def identity(self) -> str:
        """What a run remembers: the codec, and which clips it could encode."""
        return f"{self.key} {digest([clip.clip_id for clip in self.clips])}"

    def check(self) -> None:
        """Raise a ValueError for settings that these clips or this model cannot serve."""
        for rule in self.settings.rules:
            self._modalities(rule)
            if "other" in cast(Negative, rule).needs and len(self.pool) < 2:
                raise ValueError(
                    f"negatives: {rule.part_name()} takes another clip's media and {len(self.pool)} of the "
                    "clips could be encoded; give it more clips or leave it out"
                )
        if not self.clips:
            raise ValueError("negatives: none of the clips could be encoded; `foleypref show` says why")

    def summary(self, severities: Sequence[float], batch_size: int) -> str:
        """One line for the start of a run; severities of the first and the last step."""
        s = self.settings
        names = " ".join(rule.part_name() for rule in s.rules)
        return (
            f"pairs by rule: {s.rows_of(batch_size)} of {batch_size} a step, {names}, on {s.on} of "
            f"{'/'.join(self._able)}, severity {severities[0]:g} to {severities[-1]:g}"
        )

    @cached_property
    def _able(self) -> list[str]:
        wanted = self.spec.latents if self.settings.modality == "either" else [self.settings.modality]
        missing = set(wanted) - set(self.spec.latents)
        if missing:
            raise ValueError(
                f"negatives: modality is {self.settings.modality!r}, the model makes sound alone"
            )
        return sorted(wanted)

    def _modalities(self, rule: Part) -> list[str]:
        able = [key for key in self._able if key in cast(Negative, rule).modalities]
        if not able:
            own = ", ".join(sorted(cast(Negative, rule).modalities))
            raise ValueError(
                f"negatives: {rule.part_name()} acts on {own}, the pairs are to differ in "
                f"{', '.join(self._able)}; leave it out or change modality"
            )
        return able

    def _row(self, clip: Clip, rule: Part, severity: float, seed: int) -> RuleRow:
        able = self._modalities(rule)
        modality = able[int(torch.randint(len(able), (), generator=generator_of(seed, "modality")))]
        return RuleRow(clip, rule, modality, severity, seed, self._other(clip, rule, seed))

    def _other(self, clip: Clip, rule: Part, seed: int) -> Clip | None:
        if "other" not in cast(Negative, rule).needs:
            return None
        pool, generator = self._pool(clip), generator_of(seed, "other")
        while True:  # there is another one, or `check` would have said so
            other = pool[int(torch.randint(len(pool), (), generator=generator))]
            if other.clip_id != clip.clip_id:
                return other

    def _pool(self, clip: Clip) -> Sequence[Clip]:
        """The clips of its class, of the other classes, or all where that leaves none but itself."""
        wanted, label = self.settings.replace_pool, _class_of(clip, self.settings.class_key)
        if wanted == "any" or not label:
            return self.pool
        found = (self._same if wanted == "same_class" else self._unlike).get(label, [])
        return found if any(other.clip_id != clip.clip_id for other in found[:2]) else self.pool

    @cached_property
    def _same(self) -> dict[str, list[Clip]]:
        found: dict[str, list[Clip]] = {}
        for clip in self.pool:
            found.setdefault(_class_of(clip, self.settings.class_key), []).append(clip)
        return {label: clips for label, clips in found.items() if label}

    @cached_property
    def _unlike(self) -> dict[str, list[Clip]]:
        groups = self._same.items()
        return {label: [clip for key, g in groups if key != label for clip in g] for label in self._same}

    def _others(self, rows: Sequence[RuleRow]) -> dict[int, dict[str, Tensor]]:
        """The latents of the other clips by row, of the rows that have one."""
        named = [(index, row.other) for index, row in enumerate(rows) if row.other is not None]
        if not named:
            return {}
        found = self._rows([clip for _, clip in named])
        return {row: {key: value[at] for key, value in found.items()} for at, (row, _) in enumerate(named)}

    def _rows(self, clips: Sequence[Clip]) -> dict[str, Tensor]:
        found = self.workspace.rows([self.truths[clip.clip_id] for clip in clips])
        return {key: value.float() for key, value in found.items()}


def _class_of(clip: Clip, key: str) -> str:
    label = clip.meta.get(key)
    return "" if label is None else str(label)
