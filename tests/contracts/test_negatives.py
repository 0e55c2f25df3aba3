"""The contract of every rule in the drawer, on waves, frames and latents of both modalities."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from foleypref.flow.convention import generator_of
from foleypref.settings.parts import Part, build, find, names
from foleypref.training.negatives import NEEDS, Kind, Modality, Negative, Stream

every = pytest.mark.parametrize("name", names("negatives"))
on_all = pytest.mark.parametrize(
    ("kind", "modality"),
    [("wave", "audio"), ("frames", "video"), ("latents", "audio"), ("latents", "video")],
)
SEVERITIES = (0.1, 0.3, 0.6, 1.0)
SECONDS = 4.0


def smooth(num: int, channels: int, seed: str, cycles: int = 3) -> Tensor:
    """(num, channels): slow sums of sines, so that what is farther in time is farther in value."""
    generator = generator_of("smooth", seed)
    phase = 6.28 * torch.rand(cycles, channels, generator=generator)
    t = torch.linspace(0, 1, num)[:, None, None]
    rate = torch.arange(1, cycles + 1)[:, None] / 2
    return torch.sin(6.28 * rate * t + phase).sum(1) / cycles


def stream_of(kind: Kind, modality: Modality, seed: str = "a") -> Stream:
    """4 s of a stream and all that any rule may want beside it."""

    def make(seed: str) -> tuple[Tensor, float]:
        if kind == "wave":
            return 0.9 * smooth(8000, 1, seed)[:, 0], 2000.0
        if kind == "frames":
            grey = (127 + 100 * smooth(32, 12, seed)).to(torch.uint8)
            return grey.reshape(32, 2, 2, 3), 8.0
        rows = smooth(100, 8, seed) if modality == "audio" else smooth(24, 12, seed).reshape(24, 3, 2, 2)
        return rows, len(rows) / SECONDS

    x, rate = make(seed)
    return Stream(x, rate, kind, modality, silence=torch.full_like(x, 2), other=make(seed + " other")[0])


def build_rule(name: str) -> Negative:
    rule = build("negatives", name)
    assert isinstance(rule, Negative)
    return rule


def rule_of(name: str, modality: Modality) -> Negative:
    rule = build_rule(name)
    if modality not in rule.modalities:
        pytest.skip(f"{name} acts on {', '.join(sorted(rule.modalities))}")
    return rule


def distance(stream: Stream, out: Tensor) -> float:
    return float((out.double() - stream.x.double()).square().mean())


@every
def test_is_a_part_that_says_what_it_acts_on(name: str) -> None:
    assert issubclass(find("negatives", name), Part)
    rule = build_rule(name)
    assert rule.modalities
    assert rule.modalities <= {"audio", "video"}
    assert rule.needs <= set(NEEDS)


@every
@on_all
def test_another_modality_is_refused(name: str, kind: Kind, modality: Modality) -> None:
    rule = build_rule(name)
    if modality in rule.modalities:
        pytest.skip("its own")
    with pytest.raises(ValueError, match=f"{name} acts on"):
        rule.distort(stream_of(kind, modality), 0.5, generator_of(0))


@every
@on_all
def test_severity_0_is_the_identity_and_a_new_tensor(name: str, kind: Kind, modality: Modality) -> None:
    stream = stream_of(kind, modality)
    out = rule_of(name, modality).distort(stream, 0.0, generator_of(0))
    assert torch.equal(out, stream.x)
    assert out.data_ptr() != stream.x.data_ptr()


@every
@on_all
@pytest.mark.parametrize("severity", SEVERITIES)
def test_shape_dtype_range_and_input_are_kept(
    name: str, kind: Kind, modality: Modality, severity: float
) -> None:
    stream = stream_of(kind, modality)
    kept = {key: getattr(stream, key).clone() for key in ("x", "silence", "other")}
    for seed in range(10):
        out = rule_of(name, modality).distort(stream, severity, generator_of(seed))
        assert (out.shape, out.dtype) == (stream.x.shape, stream.x.dtype)
        assert out.double().isfinite().all()
        assert not torch.equal(out, stream.x), "a pair of equals teaches nothing"
        if kind == "wave":
            assert out.abs().max() <= 1
        out.zero_()
        assert all(torch.equal(getattr(stream, key), value) for key, value in kept.items())


@every
@on_all
@pytest.mark.parametrize("severity", SEVERITIES)
def test_the_same_generator_gives_the_same_bytes(
    name: str, kind: Kind, modality: Modality, severity: float
) -> None:
    rule, stream = rule_of(name, modality), stream_of(kind, modality)
    torch.manual_seed(torch.seed())  # randomness must not come from torch's global generator
    first = rule.distort(stream, severity, generator_of(7))
    assert torch.equal(rule.distort(stream, severity, generator_of(7)), first)


@every
@on_all
def test_farther_with_severity(name: str, kind: Kind, modality: Modality) -> None:
    rule = rule_of(name, modality)
    means = []
    for severity in SEVERITIES:
        found = []
        for seed in range(24):
            stream = stream_of(kind, modality, str(seed))
            found.append(distance(stream, rule.distort(stream, severity, generator_of(seed))))
        means.append(sum(found) / len(found))
    assert means[0] > 0
    assert means == sorted(means), means
    assert means[-1] > 2 * means[0]


@every
def test_half_precision_stays_half(name: str) -> None:
    stream = stream_of("latents", "audio")
    halves = {key: getattr(stream, key).half() for key in ("x", "silence", "other")}
    out = rule_of(name, "audio").distort(replace(stream, **halves), 0.5, generator_of(0))
    assert out.dtype == torch.float16


@every
@on_all
def test_two_steps_are_enough_and_one_is_refused(name: str, kind: Kind, modality: Modality) -> None:
    rule, whole = rule_of(name, modality), stream_of(kind, modality)

    def first(num: int) -> Stream:
        parts = {key: getattr(whole, key)[:num] for key in ("x", "silence", "other")}
        return replace(whole, **parts)

    assert rule.distort(first(2), 1.0, generator_of(0)).shape == whole.x[:2].shape
    with pytest.raises(ValueError, match="cannot be distorted in time"):
        rule.distort(first(1), 1.0, generator_of(0))


@every
@pytest.mark.parametrize("severity", [-0.1, 1.01, float("nan")])
def test_severity_outside_0_to_1_is_refused(name: str, severity: float) -> None:
    with pytest.raises(ValueError, match="severity is from 0 to 1"):
        rule_of(name, "audio").distort(stream_of("wave", "audio"), severity, generator_of(0))


@every
def test_what_a_rule_needs_and_lacks_is_said(name: str) -> None:
    rule, stream = rule_of(name, "audio"), stream_of("latents", "audio")
    for need in rule.needs - {"after"}:
        with pytest.raises(ValueError, match=f"^{name}: "):
            rule.distort(replace(stream, **{need: None}), 0.5, generator_of(0))
        with pytest.raises(ValueError, match=f"`{need}` is"):
            rule.distort(replace(stream, **{need: stream.x[:3]}), 0.5, generator_of(0))
