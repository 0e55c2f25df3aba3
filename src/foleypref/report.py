"""Stage 8, report: the workspace -> one folder whose index.html opens from disk, without a network.

Everything is read from disk, so the page can be rebuilt at any time; media files that exist are not written
again. `single_file` puts the media into the page, so that it can be sent by mail.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import jinja2
import numpy as np
from pydantic import Field

from foleypref.annotate import STATIC
from foleypref.evaluation import page, sections
from foleypref.evaluation.compared_systems import Judgements, Sampling, select
from foleypref.evaluation.gallery import Compared, Files, Shown, changes, choose, gallery_data, inline_sounds
from foleypref.evaluation.gallery_media import write_pictures, write_sounds
from foleypref.evaluation.result import Evaluation, load_evaluation
from foleypref.evaluation.table import caption, notes
from foleypref.media.files import write_atomic
from foleypref.models.backbones import ModelPart
from foleypref.models.playback import ModelMedia, Pictures, Waves, write_videos
from foleypref.settings.parts import Settings
from foleypref.workspace.environment import environment
from foleypref.workspace.records import GROUND_TRUTH, Clip, Pair
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say

TEMPLATES = Path(__file__).parent / "evaluation" / "templates"
MODULES = (  # in the order in which they import each other
    STATIC / "picture.js",
    STATIC / "player.js",
    TEMPLATES / "report_clip.js",
    TEMPLATES / "report_gallery.js",
)


class ReportSettings(Settings):
    """The contents of the page. `model` decodes the gallery's latents; its weights do not matter for that."""

    evaluation: str = "evaluation"
    title: str = "Before and after preference tuning"
    runs: tuple[str, ...] | None = None  # training runs whose curves are shown; None is all
    guidance_scale: float | None = None  # of gallery and histograms; None is the evaluation's last
    compare: str = ""  # its changes against the base choose the clips; "" is the first tuned system
    num_clips: int = Field(24, ge=0)  # in the gallery
    seed: int = 0  # of the random clips
    audio_format: Literal["flac", "mp3", "ogg"] = "flac"
    single_file: bool = False
    out: Path | None = None  # folder; None is WORKSPACE/report
    model: ModelPart = Field("world", validate_default=True)
    device: str = "cpu"


def report(
    workspace: Workspace,
    settings: ReportSettings,
    waves: Waves | None = None,
    pictures: Pictures | None = None,
) -> Path:
    """Write the report and return its index.html.

    `waves` and, of a joint model, `pictures` decode candidates; by default the model does.
    """
    evaluation = load_evaluation(workspace, settings.evaluation)
    out = (settings.out or workspace.report).expanduser().resolve()
    scale = evaluation.guidance_scales[-1] if settings.guidance_scale is None else settings.guidance_scale
    if scale not in evaluation.guidance_scales:
        there = ", ".join(f"{s:g}" for s in evaluation.guidance_scales)
        raise ValueError(f"evaluation {evaluation.name!r} has guidance scales {there}, not {scale:g}")
    compared = _compared(workspace, evaluation, scale)
    shown = _choose(compared, settings)
    decoders = waves, pictures
    files = _write_media(workspace, settings, compared, shown, decoders=decoders, media=out / "media")
    gallery = gallery_data(compared, shown, files)
    html = _render(
        title=settings.title,
        caption=caption(evaluation),
        evaluation=evaluation,
        notes=notes(evaluation),
        colours=page.colours(evaluation),
        tables=page.tables(evaluation),
        interval_charts=page.interval_charts(evaluation),
        histograms=page.score_histograms(evaluation, compared.scores),
        scale=f"{scale:g}",
        fits=sections.audioscore_sections(workspace),
        pairs=sections.pairs_section(workspace, np.array([p.complexity for p in workspace.read(Pair)])),
        training=sections.run_section(workspace, settings.runs),
        texts=sections.settings_texts(workspace, evaluation, settings.runs),
        environment=environment(),
        gallery=gallery,
        inline_sounds=inline_sounds(gallery, files),
        labels=sorted({clip["class"] for clip in gallery["clips"]} - {""}),
    )
    write_atomic(out / "index.html", html.encode())
    say(f"report: {len(shown)} clips in the gallery -> {out / 'index.html'}")
    return out / "index.html"


def _compared(workspace: Workspace, evaluation: Evaluation, scale: float) -> Compared:
    s = evaluation.settings
    systems = {label: tuple(weights) for label, weights in s["systems"].items()}
    sampling = Sampling(s["split"], s["solver"], s["num_steps"], tuple(s["seeds"]), scale)
    selection = select(workspace, systems, sampling)
    tracks = {system: next(iter(replicas.values())) for system, replicas in selection.candidates.items()}
    if selection.truth:
        tracks = {GROUND_TRUTH: selection.truth, **tracks}
    keys = [c.dimension for c in evaluation.columns if c.dimension is not None]
    judged = Judgements(workspace, keys, selection.all_candidates(), evaluation.versions)
    scores = {
        system: {key: judged.scores(key, [ids.get(c, "") for c in selection.clip_ids]) for key in keys}
        for system, ids in tracks.items()
    }
    clips = workspace.by_id(Clip)
    return Compared(evaluation, tuple(clips[i] for i in selection.clip_ids), tracks, scores)


def _choose(compared: Compared, settings: ReportSettings) -> list[Shown]:
    base = compared.evaluation.base
    systems = [system for system in compared.tracks if system != GROUND_TRUTH]
    tuned = [system for system in systems if system != base]
    compare = settings.compare or (tuned[0] if tuned else base)
    if compare not in systems:
        raise ValueError(f"`compare` is one of {', '.join(systems)}; found {compare!r}")
    up = [c.higher_is_better for c in compared.columns]
    change = changes(compared.matrix(base), compared.matrix(compare), up)
    return choose(compared.clips, change, settings.num_clips, settings.seed)


def _write_media(
    workspace: Workspace,
    settings: ReportSettings,
    compared: Compared,
    shown: list[Shown],
    decoders: tuple[Waves | None, Pictures | None],
    media: Path,
) -> Files:
    (waves, pictures), clips = decoders, [s.clip for s in shown]
    clip_of = {ids[c.clip_id]: c for c in clips for ids in compared.tracks.values() if c.clip_id in ids}
    model, audio_format = settings.model, settings.audio_format
    decoded = ModelMedia(workspace, model, settings.device)
    unusable = write_videos(workspace, clips, media)
    for reason in unusable.values():
        say(f"report: {reason}")
    lost = set(write_sounds(clip_of, waves or decoded.waves, media, audio_format))
    if pictures is None and model.spec.video is not None:
        pictures = decoded.pictures
    pictured = write_pictures(sorted(clip_of), pictures, media) if pictures else set()
    inline = settings.single_file
    return Files(media, audio_format, inline=inline, unusable=unusable, lost=lost, pictured=pictured)


def script(*modules: str) -> str:
    """Return JavaScript modules as one: a page opened from disk may have an inline one, but import none."""
    return re.sub(r"^(import [^;]*;\n|export )", "", "\n".join(modules), flags=re.MULTILINE)


def _render(**context: Any) -> str:
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,  # captions come from users' files
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Style and script are our own files and go in as they are.
    css = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    js = script(*(path.read_text(encoding="utf-8") for path in MODULES))
    return templates.get_template("report.html.j2").render(**context, css=css, js=js)
