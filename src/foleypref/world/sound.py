"""From a scene to its clean wave and the truth about it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foleypref.world import NUM_FRAMES, SAMPLE_RATE
from foleypref.world.scenes import Actor, Scene
from foleypref.world.sounds import bursts, calls, impacts, scrapes, textures, voices
from foleypref.world.sounds.tools import Wave, noise

FILES = {
    "impact": impacts,
    "scrape": scrapes,
    "burst": bursts,
    "texture": textures,
    "call": calls,
    "voice": voices,
}  # by family
LOWEST_DB = -100.0  # what digital silence reads as, dBFS
NOISE_FLOOR_FRAME_S = 0.02
SECOND_OBJECT_DB = -3.0


@dataclass(frozen=True)
class Sound:
    """The clean wave (64,000,) and its truth: onsets in s; level of 100 frames and noise floor in dBFS."""

    wave: Wave
    event_times_s: tuple[float, ...]
    level_db: tuple[float, ...]
    noise_floor_db: float


def decibels(rms: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return 20·log10, with silence at LOWEST_DB."""
    return 20 * np.log10(np.maximum(np.asarray(rms, np.float64), 10 ** (LOWEST_DB / 20)))


def frame_levels_db(wave: Wave, num_frames: int = NUM_FRAMES) -> NDArray[np.float64]:
    """Return the RMS level of num_frames equal pieces of a wave, dBFS."""
    pieces = wave[: len(wave) // num_frames * num_frames].reshape(num_frames, -1).astype(np.float64)
    return decibels(np.sqrt(np.mean(pieces**2, axis=1)))


def noise_floor_db(wave: Wave) -> float:
    """Return the 10th percentile of the level of 20 ms frames, dBFS."""
    num = len(wave) // round(NOISE_FLOOR_FRAME_S * SAMPLE_RATE)
    return float(np.percentile(frame_levels_db(wave, num), 10))


def actor_wave(actor: Actor) -> Wave:
    """Synthesise one object without echo or noise; its peak lies `gain_db` below full scale."""
    sound = getattr(FILES[actor.family], actor.label)
    wave: Wave = sound(actor, np.random.Generator(np.random.PCG64(actor.seed)))
    peak = float(np.max(np.abs(wave))) + 1e-9
    return (wave * np.float32(10 ** (actor.gain_db / 20) / peak)).astype(np.float32)


def synthesise(scene: Scene) -> Sound:
    """Synthesise the sound of a scene's objects in a quiet room, with the truth about it."""
    rng = np.random.Generator(np.random.PCG64(scene.sound_seed))
    dry = actor_wave(scene.actors[0])
    for actor in scene.actors[1:]:
        dry = dry + np.float32(10 ** (SECOND_OBJECT_DB / 20)) * actor_wave(actor)
    mix = dry.copy()
    # Six early reflections, 5 to 45 ms late and 14 dB down or more: onsets stay sharp.
    for delay in np.sort(rng.integers(80, 720, size=6)):
        gain = scene.echo * 0.2 * np.exp(-float(delay) / 350) * rng.choice([-1.0, 1.0])
        mix[delay:] += np.float32(gain) * dry[:-delay]
    mix *= np.float32(10 ** (scene.loudness_db / 20) / (np.max(np.abs(mix)) + 1e-9))
    mix += np.float32(10 ** (scene.floor_db / 20)) * noise(rng, 30, 5000, tilt=-0.3)
    lines = [actor.timeline for actor in scene.actors]
    events = {t for line in lines if line.has_events for t in line.onsets_s}  # textures may have none
    level = tuple(round(float(v), 2) for v in frame_levels_db(mix))
    return Sound(mix.astype(np.float32), tuple(sorted(events)), level, round(noise_floor_db(mix), 2))
