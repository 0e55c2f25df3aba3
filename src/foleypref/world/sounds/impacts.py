"""Impacts by modal synthesis: each material is a few resonances, and a harder blow is louder and brighter."""

from dataclasses import dataclass

import numpy as np

from foleypref.world.scenes import Actor
from foleypref.world.sounds.tools import Wave, add, decay, modes, noise, seconds, silence


@dataclass(frozen=True)
class Click:
    """The noise of the contact itself, with its 1/e time."""

    level: float
    band_hz: tuple[float, float]
    decay_s: float


@dataclass(frozen=True)
class Material:
    """The resonances and the contact noise of a struck body.

    base_hz: lowest mode; ratios: all modes over it; ring_s: its 1/e time; damping: how much faster high
    modes decay.
    """

    base_hz: float
    ratios: tuple[float, ...]
    ring_s: float
    damping: float
    click: Click


MATERIALS: dict[str, Material] = {
    "basketball": Material(92, (1, 1.52, 2.3, 6.4, 9.1), 0.075, 0.5, click=Click(0.25, (150, 1100), 0.012)),
    "marble": Material(2700, (1, 1.41, 1.83, 2.3), 0.022, 0.3, click=Click(0.5, (2500, 7000), 0.004)),
    "wood_block": Material(460, (1, 2.57, 4.83, 7.1), 0.045, 0.6, click=Click(0.35, (500, 3000), 0.006)),
    "metal_plate": Material(
        430, (1, 1.58, 2.24, 2.92, 3.61, 5.07, 6.33, 8.2), 0.75, 0.35, click=Click(0.2, (1500, 7000), 0.008)
    ),
    "wine_glass": Material(1500, (1, 2.32, 4.25), 0.55, 0.8, click=Click(0.15, (4000, 7500), 0.004)),
    "drum": Material(118, (1, 1.59, 2.14, 2.3, 2.65, 2.92), 0.19, 0.4, click=Click(0.55, (300, 4000), 0.03)),
    "plastic_bucket": Material(
        210, (1, 1.34, 1.93, 2.71, 3.3, 4.4, 5.2), 0.06, 0.2, click=Click(0.4, (700, 3500), 0.012)
    ),
}


def strike(material: Material, pitch: float, bright: float, rng: np.random.Generator) -> Wave:
    """Return one blow; `bright` is the power of frequency at which high modes are weaker (0 = equal)."""
    ratios = np.array(material.ratios) * (1 + rng.normal(0, 0.012, len(material.ratios)))
    freqs = material.base_hz * pitch * ratios
    decays = material.ring_s / pitch**0.5 / ratios**material.damping
    amps = ratios**-bright * rng.uniform(0.6, 1.0, len(ratios))
    out = modes(freqs, decays, amps, min(2.5, 7 * material.ring_s), rng)
    click = material.click
    n = min(len(out), len(seconds(6 * click.decay_s)))
    tap = noise(rng, *click.band_hz, n=n) * decay(6 * click.decay_s, click.decay_s)[:n]
    out[:n] += click.level * tap * float(np.sum(amps)) * 0.5
    return out


def impact(actor: Actor, rng: np.random.Generator) -> Wave:
    """Sound every contact of the timeline: a mix of a soft and a hard blow by its strength."""
    material = MATERIALS[actor.label]
    state = rng.integers(2**53)  # the same body twice: only the brightness differs
    soft, hard = (strike(material, actor.pitch, b, np.random.default_rng(state)) for b in (1.6, 0.5))
    out = silence()
    for at, power in zip(actor.timeline.onsets_s, actor.timeline.strengths, strict=True):
        blow = (1 - power) * soft + power * hard
        add(out, blow, at, power * float(np.exp(rng.normal(0, 0.08))))
    return out


basketball = marble = wood_block = metal_plate = wine_glass = drum = plastic_bucket = impact
