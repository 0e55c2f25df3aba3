"""The contents of a clip as data: sampled from (split, seed, index), then drawn and synthesised elsewhere.

Positions and sizes are in pixels of a 96 by 96 frame, x to the right and y down; times in seconds.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from itertools import count, islice

import numpy as np

from foleypref.world import CLASSES, FAMILIES, FRAME_SIZE, SPLITS
from foleypref.world.captions import caption
from foleypref.world.timelines import TIMELINES, Timeline

SHARE_TWO_OBJECTS = 0.3
SHARE_DISTRACTOR = 0.3
DISTRACTORS = ("paper_plane", "blinking_light", "bubbles", "butterfly")
BACKGROUNDS = ("room", "hills", "tiles", "plain", "dusk")
OTHER = "/other"  # suffix of the random stream that a damaged split takes stray sounds from


@dataclass(frozen=True)
class Actor:
    """One object that is seen and heard; its picture fills a square of half-width `size_px` about (x, y)."""

    label: str
    x_px: float
    y_px: float
    size_px: float
    shade: float  # -1 to 1: colour within the class
    variant: float  # 0 to 1: whatever else varies in the look
    pitch: float  # frequency factor around 1; bigger objects sound lower
    gain_db: float  # peak level against the scene's own
    seed: int  # of the noise in its sound and the particles in its picture
    timeline: Timeline

    @property
    def family(self) -> str:
        return FAMILIES[self.label]


@dataclass(frozen=True)
class Distractor:
    """Something that moves and makes no sound."""

    kind: str
    x_px: float
    y_px: float
    speed: float
    seed: int


@dataclass(frozen=True)
class Scene:
    """Everything that decides the frames and the clean wave of one clip."""

    split: str
    seed: int
    index: int
    background: str
    background_seed: int
    actors: tuple[Actor, ...]
    distractor: Distractor | None
    caption: str
    loudness_db: float  # peak of the clean wave against full scale, dBFS
    floor_db: float  # RMS of the room noise, dBFS
    echo: float  # 0 (dry) to 1 (lively): level of the early reflections
    sound_seed: int
    labels: tuple[str, ...]


def generator(split: str, seed: int, index: int, purpose: str = "scene") -> np.random.Generator:
    """Return the one random stream of (split, seed, index, purpose).

    The key is hashed, so streams of two splits share no seed material however seed and index are chosen.
    """
    if split.removesuffix(OTHER) not in SPLITS:
        raise ValueError(f"no split named {split!r}; there are {', '.join(SPLITS)}")
    # The text that every clip of the world is drawn from: with another prefix all clips would change.
    key = hashlib.sha256(f"foleytune world|{split}|{seed}|{index}|{purpose}".encode()).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int.from_bytes(key, "big"))))


def _actor(
    label: str, place: tuple[float, float], size_px: float, main: bool, rng: np.random.Generator
) -> Actor:
    """Draw one object: its timing, look and voice; size in pixels, about 34 being large."""
    middle = 33.0 if main else 21.0
    bigger = (size_px - middle) / middle  # about -0.2 to 0.2
    pitch = 2.0 ** (-2.2 * bigger + rng.normal(0, 0.1))
    return Actor(
        label=label,
        x_px=round(place[0], 3),
        y_px=round(place[1], 3),
        size_px=round(size_px, 3),
        shade=round(float(rng.uniform(-1, 1)), 4),
        variant=round(float(rng.random()), 4),
        pitch=round(float(pitch), 5),
        gain_db=round(float(rng.uniform(-5, 0)), 3),
        seed=int(rng.integers(2**53)),
        timeline=TIMELINES[label](rng),
    )


def _cast(rng: np.random.Generator, labels: tuple[str, ...]) -> tuple[Actor, ...]:
    """Place one object near the middle, or two side by side."""
    if len(labels) == 1:
        size = float(rng.uniform(27, 39))
        x = float(rng.uniform(size, FRAME_SIZE - size))
        y = float(rng.uniform(size + 8, FRAME_SIZE - size)) if size < 44 else 48.0
        return (_actor(labels[0], (x, y), size, True, rng),)
    sides = [24.0, 72.0] if rng.random() < 0.5 else [72.0, 24.0]
    actors = []
    for label, x in zip(labels, sides, strict=True):
        size = float(rng.uniform(18, 23))
        actors.append(_actor(label, (x, float(rng.uniform(40, 94 - size))), size, False, rng))
    return tuple(actors)


def sample_scene(split: str, seed: int, index: int, labels: tuple[str, ...] | None = None) -> Scene:
    """Draw the scene of one clip; the same arguments always give the same scene.

    labels: one or two classes to show instead of drawn ones, the main one first.
    """
    rng = generator(split, seed, index)
    count = 2 if rng.random() < SHARE_TWO_OBJECTS else 1
    drawn = tuple(CLASSES[int(i)] for i in rng.choice(len(CLASSES), size=count, replace=False))
    labels = labels or drawn
    actors = _cast(rng, labels)
    night = "firework" in labels and rng.random() < 0.6
    background = "dusk" if night else BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    distractor = None
    if rng.random() < SHARE_DISTRACTOR:
        distractor = Distractor(
            kind=DISTRACTORS[int(rng.integers(len(DISTRACTORS)))],
            x_px=round(float(rng.uniform(12, 84)), 3),
            y_px=round(float(rng.uniform(9, 22)), 3),
            speed=round(float(rng.uniform(0.6, 1.6)), 4),
            seed=int(rng.integers(2**53)),
        )
    return Scene(
        split=split,
        seed=seed,
        index=index,
        background=background,
        background_seed=int(rng.integers(2**53)),
        actors=actors,
        distractor=distractor,
        caption=caption(labels, rng),
        loudness_db=round(float(rng.uniform(-14, -2)), 3),
        floor_db=round(float(rng.uniform(-75, -65)), 3),
        echo=round(float(rng.uniform(0, 1)), 4),
        sound_seed=int(rng.integers(2**53)),
        labels=labels,
    )


def indices_of(split: str, seed: int, start: int, num: int, among: Collection[str] = CLASSES) -> list[int]:
    """Return the first `num` indices from `start` whose scenes show only classes of `among`.

    Raises ValueError for a class that does not exist, or if there is none.
    """
    unknown = set(among) - set(CLASSES)
    if unknown or not among:
        problem = f"no class is called {', '.join(sorted(unknown))}" if unknown else "no class is given"
        raise ValueError(f"{problem}; there are {', '.join(CLASSES)}")
    if set(among) == set(CLASSES):
        return list(range(start, start + num))
    shown = (i for i in count(start) if set(sample_scene(split, seed, i).labels) <= set(among))
    return list(islice(shown, num))
