"""The records that flow between stages: frozen, flat, and named by the hash of their content.

Every stage reads records and writes records. An id is a function of content, so the same input gets the same
id on every machine, a stage skips the ids that exist, and nothing is counted twice. The free-form column
`Clip.meta` is stored as JSON; every other one is a typed Parquet column.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

LABELS = ("bad", "medium", "good")
"""Rating classes in order; `Rating.label` indexes this tuple (0 bad, 1 medium, 2 good)."""

GROUND_TRUTH = "ground_truth"
"""`Candidate.model` of the clip's own soundtrack."""

AUTO = "auto"
"""`Pair.source` of the pairs that AudioScore decided among the base model's candidates."""

ROUND = "round"
"""How `Pair.source` begins if AudioScore decided the pair in a later round of training."""

STAGES = ("ingest", "sample", "score", "fit", "pair", "train", "evaluate", "report")
"""The stages in order. Each is the function of its name in `foleypref.<stage>`."""


def digest(*parts: Any, length: int = 16) -> str:
    """Hash `parts`, which JSON can hold, to `length` hex characters (64 bits by default)."""
    return hashlib.sha256(_JSON.encode(parts).encode()).hexdigest()[:length]


_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)

RECORDS: dict[str, type[Record]] = {}
"""The class of every table's records."""


@dataclass(frozen=True, slots=True)
class Record:
    """Base of all records. `table` is where they are stored; `id_field`, the first column, identifies one."""

    table: ClassVar[str] = ""
    id_field: ClassVar[str] = ""

    def __init_subclass__(cls, table: str = "") -> None:
        # `slots` makes each class anew, without the keyword but with what the first one was given.
        cls.table, cls.id_field = table or cls.table, next(iter(cls.__annotations__))
        RECORDS[cls.table] = cls

    @property
    def record_id(self) -> str:
        return getattr(self, self.id_field)

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Return the names of the columns in order."""
        return tuple(f.name for f in fields(cls))


@dataclass(frozen=True, slots=True)
class Clip(Record, table="clips"):
    """One trim of one video, with its caption. `meta` keeps every metadata column that has no field here."""

    clip_id: str
    path: str  # absolute, or relative to the workspace root
    split: str  # train | validation | test, or the name the metadata gave
    prompt: str
    start_s: float
    duration_s: float  # of the trim
    fps: float  # of the source stream
    width: int  # pixels, after rotation
    height: int
    has_audio: bool
    meta: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def make_id(content_hash: str, start_s: float, duration_s: float) -> str:
        """Return the id of a trim of the file with this content hash."""
        return digest("clip", content_hash, round(start_s, 6), round(duration_s, 6))


@dataclass(frozen=True, slots=True)
class Candidate(Record, table="candidates"):
    """One soundtrack for one clip, with everything needed to make it again without the others."""

    candidate_id: str
    clip_id: str
    model: str  # part name, or "ground_truth"
    weights: str  # fingerprint of the weights that made it ("" for ground truth)
    seed: int = 0
    solver: str = ""
    num_steps: int = 0
    guidance_scale: float = 0.0
    shard: str = ""  # latents: file under tensors/, without suffix
    row: int = -1  # latents: row in that file
    sound: str = ""  # file of a sound that was imported, not sampled here; such a candidate has no latents

    @property
    def noise_seed(self) -> int:
        """The seed of the noise it is sampled from; two models with one seed get the same noise on a clip."""
        from foleypref.flow.convention import seed_of  # torch: seconds to import

        return seed_of(self.seed, self.clip_id)

    @staticmethod
    def make_id(
        clip_id: str, model: str, weights: str, seed: int, solver: str, num_steps: int, guidance_scale: float
    ) -> str:
        """Return the id of the candidate that these settings make."""
        return digest("candidate", clip_id, model, weights, seed, solver, num_steps, round(guidance_scale, 6))

    @staticmethod
    def make(
        clip_id: str,
        model: str,
        weights: str = "",
        *,
        seed: int = 0,
        solver: str = "",
        num_steps: int = 0,
        guidance_scale: float = 0.0,
    ) -> Candidate:
        """Build a candidate with its id, without latents; the defaults fit the clip's own soundtrack."""
        candidate_id = Candidate.make_id(clip_id, model, weights, seed, solver, num_steps, guidance_scale)
        return Candidate(
            candidate_id, clip_id, model, weights, seed=seed, solver=solver, num_steps=num_steps,
            guidance_scale=guidance_scale,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Feature(Record, table="features"):
    """The place of one cached row: a clip's conditions or latents, or a candidate's embedding."""

    feature_id: str
    item_id: str  # a clip_id or a candidate_id
    key: str  # names network, weights, frame rule and decoder
    shard: str
    row: int

    @staticmethod
    def make_id(item_id: str, key: str) -> str:
        """Return the id of the row that the network named by `key` made from an item."""
        return digest("feature", item_id, key)


@dataclass(frozen=True, slots=True)
class Score(Record, table="scores"):
    """One raw number for one candidate from one scorer. `value` None means "unscored" and has a reason."""

    score_id: str
    candidate_id: str
    scorer: str
    version: str
    dimension: str
    value: float | None
    reason: str = ""

    @staticmethod
    def make(
        candidate_id: str, scorer: str, version: str, dimension: str, value: float | None, reason: str = ""
    ) -> Score:
        """Build a score with its id; a NaN becomes unscored."""
        if value is not None and value != value:
            value, reason = None, reason or "not a number"
        score_id = digest("score", candidate_id, scorer, version, dimension)
        return Score(score_id, candidate_id, scorer, version, dimension=dimension, value=value, reason=reason)


@dataclass(frozen=True, slots=True)
class Rating(Record, table="ratings"):
    """One judgement of one candidate by one rater: 0 bad, 1 medium, 2 good."""

    rating_id: str
    candidate_id: str
    rater: str
    label: int
    source: str  # "human" | "simulated"
    seconds: float = 0.0  # time taken

    @staticmethod
    def make(candidate_id: str, rater: str, label: int, source: str, seconds: float = 0.0) -> Rating:
        """Build a rating with its id: one per rater and candidate."""
        if label not in (0, 1, 2):
            raise ValueError(f"label is 0 (bad), 1 (medium) or 2 (good), found {label!r}")
        rating_id = digest("rating", candidate_id, rater)
        return Rating(rating_id, candidate_id, rater, label, source=source, seconds=seconds)


@dataclass(frozen=True, slots=True)
class Vote(Record, table="votes"):
    """One comparison of two candidates of a clip by one rater: +1 first better, -1 second, 0 tie."""

    vote_id: str
    clip_id: str
    first: str  # candidate_id
    second: str
    rater: str
    preference: int
    source: str  # "human" | "simulated"
    seconds: float = 0.0

    @staticmethod
    def make(
        clip_id: str, first: str, second: str, rater: str, preference: int, source: str, seconds: float = 0.0
    ) -> Vote:
        """Build a vote with its id: one per rater and ordered pair."""
        if preference not in (-1, 0, 1):
            raise ValueError(f"preference is 1 (first), -1 (second) or 0 (tie), found {preference!r}")
        key = digest("vote", clip_id, first, second, rater)
        return Vote(
            key, clip_id, first, second, rater=rater, preference=preference, source=source, seconds=seconds
        )


@dataclass(frozen=True, slots=True)
class Pair(Record, table="pairs"):
    """A preference: `chosen` over `rejected` (candidate ids) for one clip. Columns follow TRL's names."""

    pair_id: str
    clip_id: str
    prompt: str
    chosen: str
    rejected: str
    score_chosen: float  # p(Good) of chosen
    score_rejected: float  # p(Good) of rejected
    complexity: float  # Eq. 3 of arXiv 2603.11089: 1 easy, 0 hard; human pairs are 0
    source: str  # "auto" | "human" | "simulated" | "round…" | the name of a negative

    @staticmethod
    def make_id(clip_id: str, chosen: str, rejected: str, source: str) -> str:
        """Return the id of a preference."""
        return digest("pair", clip_id, chosen, rejected, source)

    @staticmethod
    def make(
        clip: Clip, ids: tuple[str, str], source: str, scores: tuple[float, float], complexity: float = 0.0
    ) -> Pair:
        """Return the pair of two candidates of a clip; `ids` and `scores` are of (chosen, rejected)."""
        return Pair(
            pair_id=Pair.make_id(clip.clip_id, *ids, source),
            clip_id=clip.clip_id,
            prompt=clip.prompt,
            chosen=ids[0],
            rejected=ids[1],
            score_chosen=scores[0],
            score_rejected=scores[1],
            complexity=complexity,
            source=source,
        )


@dataclass(frozen=True, slots=True)
class ImportedPair(Record, table="imported"):
    """The id of a pair that `foleypref pairs import` added, which the stage `pair` leaves in place."""

    pair_id: str


@dataclass(frozen=True, slots=True)
class Failure(Record, table="failures"):
    """One input that a stage could not use, and why: neither a crash of the stage nor a silent skip."""

    failure_id: str
    stage: str
    item: str  # path or id
    reason: str

    @staticmethod
    def make(stage: str, item: str, reason: str) -> Failure:
        """Build a failure with its id: one per stage and item."""
        return Failure(digest("failure", stage, item), stage, item, reason)
