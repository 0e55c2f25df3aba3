"""The frozen marginal q of the per-sample inception score, KL(p_i ‖ q): made once per workspace.

q is the mean posterior of the clips' own sound outside the test split. A score therefore does not depend on
which candidates were judged with it, and stays the same when clips are added.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from foleypref.media.clip import MediaError, read_channels
from foleypref.scoring.scorers import ScoreItem, Scorer
from foleypref.workspace.records import Clip
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import progress_bar, say

MAX_CLIPS = 5_000  # the first by id
BATCH = 16


def with_marginal(workspace: Workspace, name: str, scorer: Scorer, device: str) -> Scorer:
    """Return `scorer`, with the workspace's marginal if it takes one and has none yet."""
    from foleypref.scoring.scorers.panns import Panns, freeze_marginal  # torch networks: only where asked for

    if not isinstance(scorer, Panns) or scorer.marginal:
        return scorer
    path = workspace.marginal(name)
    if not path.exists():
        logits = _true_logits(workspace, scorer, device)
        if not len(logits):
            return scorer
        path.parent.mkdir(exist_ok=True)
        freeze_marginal(path, logits, scorer.variant)
        say(f"score: froze the marginal of {name} over {len(logits)} clips' own sound in {path}")
    return scorer.with_settings(marginal=str(path))


def _true_logits(workspace: Workspace, scorer: Scorer, device: str) -> Tensor:
    """Return finite logits (clips, K) of the clips' own sound."""
    clips = [c for c in workspace.read(Clip) if c.has_audio and c.split != "test"][:MAX_CLIPS]
    loaded = copy.copy(scorer).load(device) if clips else scorer
    batches = [torch.zeros(0, 0)]
    with progress_bar("marginal", len(clips)) as advance:
        for begin in range(0, len(clips), BATCH):
            batch = clips[begin : begin + BATCH]
            items = [item for clip in batch if (item := _item(workspace, clip)) is not None]
            if items:
                logits = loaded.judge(items).embeddings["logits"].cpu()
                batches.append(logits[logits.isfinite().all(1)])
            advance(len(batch))
    return torch.cat([part for part in batches if part.numel()] or batches[:1])


def _item(workspace: Workspace, clip: Clip) -> ScoreItem | None:
    try:
        path = workspace.clip_file(clip)
        sound, rate = read_channels(path, start_s=clip.start_s, duration_s=clip.duration_s)
    except MediaError:
        return None  # scoring records it
    return ScoreItem(clip.clip_id, sound.mean(0), rate, channels=sound, seconds=clip.duration_s)
