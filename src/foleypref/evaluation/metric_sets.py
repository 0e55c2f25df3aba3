"""Sets of columns: the embedded world's judges and oracles, and the field's benchmark."""

from __future__ import annotations

from foleypref.evaluation.metrics import Metric
from foleypref.evaluation.metrics.frechet import Frechet
from foleypref.evaluation.metrics.inception import Inception
from foleypref.evaluation.metrics.kl import KL
from foleypref.evaluation.metrics.mean import Mean


def world_metrics() -> tuple[Metric, ...]:
    """Return the columns of the judges on the embedded world."""
    return (
        Mean(dimension="world_semantic/similarity", label="semantic"),
        Mean(dimension="world_text/similarity", label="text"),
        Mean(dimension="world_sync/desync_s", higher_is_better=False, label="DeSync", unit="s"),
        Inception(embedding="world_tagger/logits"),
        Frechet(embedding="world_tagger/features"),
        KL(embedding="world_tagger/logits"),
        Mean(dimension="pesq/pesq", label="PESQ"),
    )


def world_oracles() -> tuple[Metric, ...]:
    """Return the columns that are told the world's truth."""
    return (
        Mean(dimension="oracle_onset/onset_f1", label="onset F1"),
        Mean(dimension="oracle_onset/onset_error_s", higher_is_better=False, label="onset error", unit="s"),
        Mean(dimension="oracle_envelope/level_correlation", label="level correlation"),
        Mean(dimension="oracle_class/class_correct", label="class correct"),
        Mean(dimension="oracle_noise/noise_floor_db", higher_is_better=False, label="noise floor", unit="dB"),
    )


def benchmark_metrics() -> tuple[Metric, ...]:
    """Return the columns of the field's tables, defined and paired as in av-benchmark."""
    return (
        Frechet(embedding="passt/features", max_resamples=200, label="FD PaSST"),
        Frechet(embedding="panns/features", paired=False, max_resamples=100, label="FD PANNs"),
        Frechet(embedding="vggish/patches", paired=False, rows_of=128, label="FD VGG"),
        KL(embedding="panns/logits", label="KL PANNs"),
        KL(embedding="passt/logits", label="KL PaSST"),
        Inception(embedding="panns/logits", label="IS"),
        Mean(dimension="imagebind/similarity", scale=100.0, label="IB-score"),
        Mean(dimension="synchformer/desync_s", higher_is_better=False, label="DeSync", unit="s"),
        Mean(dimension="clap/similarity", label="CLAP"),
    )
