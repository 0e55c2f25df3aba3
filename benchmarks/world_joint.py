"""The joint model and its onset oracle in figures: the oracle's floor, its answer to shifts, generated pairs.

    python benchmarks/world_joint.py --clips 200 --generated 100 --guidance 3 --steps 25

Clips of the clean test split, seed 5, are rendered in memory. Every figure is a mean with 1.96 standard
errors over scored clips; "re-paired" gives every generated picture the sound of another generated clip.
`--png` draws some generated pictures, every fifth frame.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from foleypref.models.backbones import Media
from foleypref.models.backbones.world_joint import WorldJoint
from foleypref.models.tools import sample_latents
from foleypref.scoring.scorers import ScoreItem
from foleypref.scoring.scorers._world import PICTURE
from foleypref.scoring.scorers.oracle_class import OracleClass
from foleypref.scoring.scorers.oracle_joint_onset import OracleJointOnset
from foleypref.scoring.scorers.oracle_onset import OracleOnset, agreement, starts_softly
from foleypref.scoring.scorers.world_semantic import WorldSemantic
from foleypref.scoring.scorers.world_sync import WorldSync
from foleypref.scoring.scorers.world_tagger import WorldTagger
from foleypref.world import SAMPLE_RATE
from foleypref.world.drawing import render_frames
from foleypref.world.scenes import sample_scene
from foleypref.world.sound import synthesise

SPLIT, SEED = "test", 5
SCORERS = (OracleJointOnset, WorldSync, OracleClass, WorldSemantic, WorldTagger)


def rendered(index: int) -> ScoreItem:
    """Render a clean clip of the test split, with its truth."""
    scene = sample_scene(SPLIT, SEED, index)
    sound, frames = synthesise(scene), render_frames(scene)
    small = frames.reshape(len(frames), 48, 2, 48, 2, 3).mean((2, 4)).round().astype(np.uint8)
    meta = {"labels": list(scene.labels), "event_times_s": list(sound.event_times_s)}
    return ScoreItem(
        str(index),
        sound.wave,
        SAMPLE_RATE,
        scene.caption,
        {PICTURE.key: small},
        meta=meta,
        clip_id=str(index),
    )


def main() -> None:
    """Measure everything and print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--generated", type=int, default=100)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--weights", default="")
    parser.add_argument("--png", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    scorers = [make().load() for make in SCORERS]
    model = WorldJoint(weights=args.weights).load()
    items = [rendered(index) for index in range(max(args.clips, args.generated))]
    if args.clips:
        oracle_tables(scorers[:2], items[: args.clips], model)
    if args.generated:
        found = generated(model, items[: args.generated], args.guidance, args.steps)
        show("generated", scorers, found)
        show("generated, re-paired", scorers[:2], repaired(found))
        show("generated, sound 0.3 s later", scorers[:2], [moved(item, 0.3) for item in found])
        if args.png:
            draw(found[:12], args.png)


def oracle_tables(scorers: Sequence, items: list[ScoreItem], model: WorldJoint) -> None:
    """Measure the oracle on true pairs: as they are, through both codecs, with shifted and foreign sound."""
    finder = scorers[0]
    f1 = finder.judge(items).column("onset_f1")
    seen = [item for item, value in zip(items, f1) if np.isfinite(value)]
    pairs = [
        agreement(found, np.asarray(i.meta["event_times_s"])) for i, found in zip(seen, finder._events(seen))
    ]
    f1, error = np.asarray(pairs).T
    print(f"events found against true times: F1 {estimate(f1)}, error {estimate(error)} s")
    show("true pairs", [*scorers, OracleOnset()], items)
    show("true pairs, both codecs", [*scorers, OracleOnset()], each(items, lambda part: coded(model, part)))
    for shift_s in (0.04, 0.08, 0.16, 0.32):
        show(f"sound {shift_s:g} s later", scorers, [moved(item, shift_s) for item in items])
    show("sound of another clip", scorers, repaired(items))


def each(items: list[ScoreItem], work: Callable[[list[ScoreItem]], list[ScoreItem]]) -> list[ScoreItem]:
    """Do `work` on eight items at a time."""
    return [done for first in range(0, len(items), 8) for done in work(items[first : first + 8])]


def with_latents(
    model: WorldJoint, items: list[ScoreItem], latents: dict[str, torch.Tensor]
) -> list[ScoreItem]:
    """Return the items with picture and sound decoded from latents."""
    frames, waves = model.decode_video(latents).numpy(), model.decode(latents).numpy()
    return [replace(i, frames={PICTURE.key: f}, wave=w) for i, f, w in zip(items, frames, waves)]


def coded(model: WorldJoint, items: list[ScoreItem]) -> list[ScoreItem]:
    """Return the items after both codecs."""
    media = [Media({"video": i.frames[PICTURE.key]}, i.wave, i.prompt) for i in items]
    return with_latents(model, items, model.encode_media(media))


def generated(model: WorldJoint, items: list[ScoreItem], guidance: float, steps: int) -> list[ScoreItem]:
    """Generate pairs from the items' captions and scenes, seeds by index."""
    start, spent = time.perf_counter(), time.process_time()

    @torch.inference_mode()
    def work(part: list[ScoreItem]) -> list[ScoreItem]:
        conditions = model.condition([Media({"video": i.frames[PICTURE.key]}, prompt=i.prompt) for i in part])
        seeds = [int(i.candidate_id) for i in part]
        how = {"num_steps": steps, "guidance_scale": guidance}
        return with_latents(model, part, sample_latents(model, conditions, seeds, **how))  # type: ignore[arg-type]

    found = each(items, work)
    wall, cpu = time.perf_counter() - start, time.process_time() - spent
    print(f"sampled {len(items)} clips: {wall / len(items):.2f} s a clip, {cpu / len(items):.2f} s of CPU")
    return found


def moved(item: ScoreItem, shift_s: float) -> ScoreItem:
    """Shift the sound to later; its end moves to the beginning."""
    return replace(item, wave=np.roll(item.wave, round(shift_s * SAMPLE_RATE)))


def repaired(items: list[ScoreItem]) -> list[ScoreItem]:
    """Give every picture the sound of the next clip that also starts sharply."""
    sharp = [item for item in items if not starts_softly(item)]
    return [replace(a, wave=b.wave) for a, b in zip(sharp, sharp[1:] + sharp[:1])]


def show(name: str, scorers: Sequence, items: list[ScoreItem]) -> None:
    """Print one line per dimension."""
    for scorer in scorers:
        judgements = [scorer.judge(items[begin : begin + 8]) for begin in range(0, len(items), 8)]
        for dimension in scorer.dimensions:
            column = np.concatenate([judgement.column(dimension) for judgement in judgements])
            values = column[np.isfinite(column)]
            title = f"{scorer.part_name()}/{dimension}"
            print(f"{name:32s} {title:34s} {estimate(values)}  n {len(values)} of {len(items)}", flush=True)


def estimate(values: Sequence[float] | np.ndarray) -> str:
    """Return the mean ± 1.96 standard errors as text."""
    found = np.asarray(values, np.float64)
    if len(found) < 2:
        return "-"
    return f"{found.mean():.3f} ± {1.96 * found.std(ddof=1) / len(found) ** 0.5:.3f}"


def draw(items: list[ScoreItem], path: Path) -> None:
    """Draw one row per clip: every fifth frame, doubled in size."""
    rows = [np.concatenate(list(i.frames[PICTURE.key][::5]), axis=1) for i in items]
    Image.fromarray(np.concatenate(rows).repeat(2, 0).repeat(2, 1)).save(path)
    print("\n".join(i.prompt for i in items))


if __name__ == "__main__":
    main()
