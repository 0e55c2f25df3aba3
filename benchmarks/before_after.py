"""One clip before and after tuning, as a picture: frames, and what truth, base and tuned model make heard.

    python benchmarks/before_after.py runs/methods --recipe world_methods --run curriculum-0 \
        --out docs/pictures/before-after.png

The clip is not the best one: of the test clips that have onsets to compare, ordered by how much the tuned
model gains over the base (onset F1), it is the one at `--quantile`; at 0.75 one clip in four gains more.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from foleypref.evaluation.compared_systems import Sampling, select
from foleypref.media.clip import read_clip
from foleypref.media.pictures import spectrogram_pixels
from foleypref.models.backbones import Model
from foleypref.models.playback import ModelMedia
from foleypref.models.tools import with_weights
from foleypref.recipes.recipe import Recipe, resolve
from foleypref.training.checkpoints import tuned_weights
from foleypref.workspace.dimensions import Dimension
from foleypref.workspace.records import Clip
from foleypref.workspace.score_matrix import score_table
from foleypref.workspace.store import Workspace

F1, DESYNC = "oracle_onset/onset_f1", "world_sync/desync_s"
WIDTH, LABEL, HEIGHT, SOUND, FRAMES = 900, 150, 110, 30, 10
INK, PAPER = (40, 40, 40), (255, 255, 255)
NAMES = {"truth": "the clip's own", "base": "before", "tuned": "after"}


class Shown(NamedTuple):
    """A clip, and the candidate of each system."""

    clip: Clip
    candidates: dict[str, str]


def main() -> None:
    """Choose a clip, draw it, and print its name and its scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--run", required=True, help="the tuned run")
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--quantile", type=float, default=0.75)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    workspace, recipe = Workspace(args.workspace), resolve(args.recipe)
    shown = choose(workspace, recipe, args.run, args.guidance, args.quantile)
    picture(workspace, recipe, shown).quantize(256).save(args.out, optimize=True)
    print(f"{args.out}: {shown.clip.prompt!r}, {shown.clip.clip_id}")


def choose(workspace: Workspace, recipe: Recipe, run: str, guidance: float, quantile: float) -> Shown:
    """Return the clip at a quantile of the gain in onset F1."""
    base = recipe.sample.model
    tuned = with_weights(base, tuned_weights(workspace.run_folder(run)))
    weights = {"base": base, "tuned": tuned}
    prints = {name: (part.load().fingerprint,) for name, part in weights.items()}
    e = recipe.evaluate
    found = select(workspace, prints, Sampling(e.split, e.solver, e.num_steps, e.seeds, guidance))
    ids = {name: next(iter(found.candidates[name].values())) for name in weights} | {"truth": found.truth}
    f1 = values(workspace, F1)
    gain = {c: f1.get(ids["tuned"][c], np.nan) - f1.get(ids["base"][c], np.nan) for c in found.clip_ids}
    ranked = sorted((c for c in gain if np.isfinite(gain[c])), key=lambda c: gain[c])
    clip_id = ranked[round(quantile * (len(ranked) - 1))]
    return Shown(workspace.by_id(Clip)[clip_id], {name: by_clip[clip_id] for name, by_clip in ids.items()})


def values(workspace: Workspace, key: str) -> dict[str, float]:
    """Return a dimension's scores by candidate."""
    table = score_table(workspace, [key])
    dimension = Dimension.parse(key).name
    rows = zip(*(table[name].to_pylist() for name in ("candidate_id", "dimension", "value")))
    return {i: value for i, named, value in rows if named == dimension and value is not None}


def picture(workspace: Workspace, recipe: Recipe, shown: Shown) -> Image.Image:
    """Draw frames, and below them a spectrogram with outline per system; events are dotted lines."""
    model = recipe.sample.model
    waves = ModelMedia(workspace, model).waves(list(shown.candidates.values()))
    scores = {key: values(workspace, key) for key in (F1, DESYNC)}
    side = WIDTH // FRAMES
    row = HEIGHT + SOUND + 6
    sheet = Image.new("RGB", (LABEL + WIDTH, side + 6 + row * len(NAMES)), PAPER)
    for place, frame in enumerate(frames(workspace, shown.clip, model)):
        sheet.paste(Image.fromarray(frame), (LABEL + place * side, 0))
    draw, large, small = ImageDraw.Draw(sheet), ImageFont.load_default(17), ImageFont.load_default(13)
    for place, (name, title) in enumerate(NAMES.items()):
        top, candidate = side + 6 + place * row, shown.candidates[name]
        wave, rate = waves[candidate]
        events = shown.clip.meta["event_times_s"]
        pixels = spectrogram_pixels(wave, rate, WIDTH, HEIGHT, events, SOUND)
        sheet.paste(Image.fromarray(pixels), (LABEL, top))
        draw.text((4, top + 22), title, INK, large)
        for line, (key, unit) in enumerate(((F1, ""), (DESYNC, " s"))):
            label = "onset F1" if key == F1 else "DeSync"
            draw.text((4, top + 52 + 20 * line), f"{label} {scores[key][candidate]:.2f}{unit}", INK, small)
    return sheet


def frames(workspace: Workspace, clip: Clip, model: Model) -> list[np.ndarray]:
    """Return `FRAMES` pictures from the middle of equal stretches of the clip."""
    seconds, fps = model.spec.clip_seconds, 25.0
    read = read_clip(
        workspace.root / clip.path,
        start_s=clip.start_s,
        duration_s=seconds,
        fps=fps,
        size=WIDTH // FRAMES,
        audio=False,
    )
    return [read.frames[int((place + 0.5) * seconds / FRAMES * fps)] for place in range(FRAMES)]


if __name__ == "__main__":
    main()
