"""The field's benchmark on folders: any systems' sound files against the videos that they were made for.

A sound belongs to the video of the same name, or to the one that av-benchmark's rule for names finds. Folders
become clips and candidates of a workspace, so that scoring resumes, failures are kept and the table is the
same as for generated candidates. Files that av-benchmark drops silently (videos without a sound, sounds
without a video, files that do not decode) are counted here.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from foleypref.evaluate import EvaluateSettings, evaluate
from foleypref.evaluation.metric_sets import benchmark_metrics
from foleypref.evaluation.metrics import MetricPart
from foleypref.evaluation.result import Evaluation
from foleypref.ingest import SUFFIXES, content_hash
from foleypref.media.clip import MediaError, MediaInfo, probe
from foleypref.media.metadata import Row, read_metadata
from foleypref.score import ScoreSettings, score
from foleypref.settings.parts import Settings
from foleypref.workspace.records import Candidate, Clip, Failure, Record, digest
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say

SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac")
NO_VIDEO = MediaInfo(duration_s=0.0, has_video=False, has_audio=False)
IMPORTED = "file"  # the solver of candidates that were imported as files


class BenchmarkSettings(Settings):
    """How folders are scored. `scorers`: by default those whose weights are here; the missing are named."""

    against: Path  # videos (their sound is the ground truth), or sounds if there are no videos
    workspace: Path = Path("runs/benchmark")  # where scores and embeddings are kept
    name: str = "benchmark"
    seconds: float = Field(8.0, gt=0)  # that are evaluated, from the start of every file
    scorers: tuple[str, ...] = ()
    metrics: tuple[MetricPart, ...] = Field(default_factory=benchmark_metrics)
    batch_size: int = 16
    scorers_at_once: int = Field(0, ge=0)
    device: str = "cpu"
    num_resamples: int = Field(1000, ge=1)


def benchmark(folders: Iterable[Path | str], settings: BenchmarkSettings) -> Evaluation:
    """Score every folder of sounds against the videos and print one table; the first folder is the base."""
    systems = _labels([Path(folder).expanduser() for folder in folders])
    workspace = Workspace(settings.workspace.expanduser(), create=True)
    split, weights = import_folders(workspace, settings.against.expanduser(), systems, settings.seconds)
    score(
        workspace,
        ScoreSettings(
            scorers=settings.scorers,
            optional_scorers=() if settings.scorers else ("av_benchmark",),
            split=split,
            batch_size=settings.batch_size,
            scorers_at_once=settings.scorers_at_once,
            device=settings.device,
        ),
    )
    _say_failures(workspace)
    return evaluate(
        workspace,
        EvaluateSettings(
            name=settings.name,
            systems={label: (fingerprint,) for label, fingerprint in weights.items()},
            base=next(iter(weights)),
            split=split,
            guidance_scales=(0.0,),
            solver=IMPORTED,
            num_steps=0,
            metrics=settings.metrics,
            oracles=(),
            common_clips=False,
            num_resamples=settings.num_resamples,
        ),
    )


def import_folders(
    workspace: Workspace, against: Path, systems: Mapping[str, Path], seconds: float
) -> tuple[str, dict[str, str]]:
    """Write clips of videos and candidates of sounds; return (split, label -> weights fingerprint)."""
    videos = _by_name(against, "videos")
    metadata, hashes = read_metadata(against), _hashes(videos.values())
    split = f"{against.name}-{digest(sorted(hashes.values()), seconds, length=8)}"
    clips: dict[str, Clip] = {}
    records: list[Record] = []
    for name, path in videos.items():
        clip_id = Clip.make_id(f"{split}/{name}/{hashes[path]}", 0.0, seconds)
        try:
            info = probe(path)
        except MediaError as error:
            records.append(Failure.make("benchmark", clip_id, str(error)))
            continue
        row = metadata.get(path.relative_to(against).as_posix(), Row())
        row = replace(row, split=split, meta={**row.meta, "name": name})
        clips[name] = _clip(clip_id, path, seconds, row=row, info=info)
        records.append(clips[name])
    weights = {}
    for label, folder in systems.items():
        sounds = _by_name(folder, "sounds", videos)
        contents = _hashes(sounds.values())
        weights[label] = digest("imported", label, sorted((n, contents[p]) for n, p in sounds.items()))
        for name in sorted(sounds.keys() - clips.keys()):  # no truth and no picture, but a sound to measure
            clip_id = Clip.make_id(f"{split}/{name}", 0.0, seconds)
            row = Row(split=split, meta={"name": name})
            clips[name] = _clip(clip_id, sounds[name], seconds, row=row, info=NO_VIDEO)
            records.append(clips[name])
        records += [
            _candidate(clips[name], label, weights[label], path=path, content=contents[path])
            for name, path in sounds.items()
        ]
        _say_matches(label, folder, sounds.keys(), videos.keys())
    known = workspace.ids(Clip) | workspace.ids(Candidate) | workspace.ids(Failure)
    workspace.append([record for record in records if record.record_id not in known])
    return split, weights


def _clip(clip_id: str, path: Path, seconds: float, *, row: Row, info: MediaInfo) -> Clip:
    width, height = (info.width or 0, info.height or 0) if info.has_video else (0, 0)
    return Clip(
        clip_id=clip_id,
        path=str(path.resolve()),
        split=row.split,
        prompt=row.prompt,
        start_s=0.0,
        duration_s=seconds,
        fps=info.fps or 0.0,
        width=width,
        height=height,
        has_audio=info.has_audio,
        meta=row.meta,
    )


def _candidate(clip: Clip, label: str, weights: str, *, path: Path, content: str) -> Candidate:
    return Candidate(
        candidate_id=digest("imported", clip.clip_id, weights, content),
        clip_id=clip.clip_id,
        model=label,
        weights=weights,
        solver=IMPORTED,
        sound=str(path.resolve()),
    )


def _by_name(folder: Path, contents: str, videos: Container[str] | None = None) -> dict[str, Path]:
    """Return files by name: videos by their own, sounds by that of the one of `videos` they belong to.

    Raises ValueError for a missing or empty folder, or two files of one name.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give the folder of {contents}")
    by_name: dict[str, Path] = {}
    for path in _files(folder, (SUFFIXES, SOUNDS) if videos is None else (SOUNDS, SUFFIXES)):
        name = path.stem if videos is None or path.stem in videos else clean_name(path.stem)
        if name in by_name:
            raise ValueError(
                f"{folder}: {by_name[name].name} and {path.name} are both called {name!r}; keep one"
            )
        by_name[name] = path
    if not by_name:
        raise ValueError(f"{folder}: holds no {contents}; check the folder")
    return by_name


def _files(folder: Path, kinds: tuple[tuple[str, ...], ...]) -> list[Path]:
    """Return the files of the first kind that the folder has any of, without hidden ones."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    shown = [p for p in paths if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    for suffixes in kinds:
        if of_this_kind := [p for p in shown if p.suffix.lower() in suffixes]:
            return of_this_kind
    return []


def _hashes(paths: Iterable[Path]) -> dict[Path, str]:
    listed = list(paths)
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(listed, pool.map(content_hash, listed)))


def _labels(folders: list[Path]) -> dict[str, Path]:
    """Return folders by label: the folder's name, or its path if two have the same name."""
    names = [folder.resolve().name for folder in folders]
    labels = [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders)]
    if len(set(labels)) < len(labels):
        raise ValueError(f"a folder is given twice: {', '.join(labels)}; name each once")
    return dict(zip(labels, folders))


def _say_matches(label: str, folder: Path, sounds: Iterable[str], videos: Iterable[str]) -> None:
    sounds, videos = set(sounds), set(videos)
    if not sounds & videos:
        raise ValueError(
            f"{folder}: no sound has the name of a video ({sorted(sounds)[0]!r} against "
            f"{sorted(videos)[0]!r}); name each sound as its video"
        )
    say(
        f"{label}: {len(sounds & videos)} sounds with their video, {len(videos - sounds)} videos without a "
        f"sound, {len(sounds - videos)} sounds without a video"
    )


def _say_failures(workspace: Workspace) -> None:
    failures = [f for f in workspace.read(Failure) if f.stage in ("score", "decode", "benchmark")]
    for failure in failures[:10]:
        say(f"  not scored: {failure.reason}")
    if len(failures) > 10:
        say(f"  and {len(failures) - 10} more; `foleypref show {workspace.root}` lists them")


BY_LENGTH = {
    30: slice(10, 28),  # "000000014_zxpo56cpUBU_000007-0": a running number before, a variant after
    20: slice(0, 18),  # "zxpo56cpUBU_000007-0"
    21: slice(1, 19),  # "Y---g-f_I2yQ_000001_0"
}


def clean_name(stem: str) -> str:
    """Return av-benchmark's name of a prediction from its file's stem (without the suffix).

    Stems of 30, 20 and 21 characters are cut to the 18 characters of a clip's name; any other is kept. The
    rule looks only at the length, so an unrelated name of 20 characters loses its last two, and a suffix that
    was not taken off (".wav" makes 22) turns the rule off.
    """
    return stem[BY_LENGTH.get(len(stem), slice(None))]
