"""Synchformer and DeSync: golden vectors, closed forms, a network whose answer is known, every trap."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from foleypref.networks.mel_basis import htk_basis_float32
from foleypref.networks.synchformer import CLASSES, Synchformer, offset_grid
from foleypref.networks.synchformer_audio import MEL_FRAMES, SynchformerAudio
from foleypref.networks.synchformer_visual import num_segments
from foleypref.published import synchformer as published
from foleypref.published.synchformer import (
    SAMPLE_RATE,
    DeSync,
    SyncMel,
    audio_segments,
    build_synchformer,
    check_length,
    desync_s,
    num_audio_segments,
    num_frames,
    num_samples,
    offsets_s,
    sync_wave,
    window_segments,
)
from foleypref.scoring.scorers import ScoreItem
from foleypref.scoring.scorers import synchformer as adapter
from tests.golden import check_synchformer as checks
from tests.golden import recipes
from tests.golden.compare import LIMIT, relative_error
from tests.judged import judged, scores_of

GOLDEN = Path(__file__).parents[1] / "golden"


# -- golden vectors --------------------------------------------------------------------------------------


def assert_agrees(name: str) -> None:
    errors = {
        key: relative_error(ours, expected) for key, ours, expected in checks.CHECKS[name](GOLDEN / name)
    }
    assert errors
    assert max(errors.values()) <= LIMIT, errors


@pytest.mark.parametrize("name", ["scorers_synchformer_keys.json", "scorers_frontends.safetensors"])
def test_golden_numbers(name: str) -> None:
    assert_agrees(name)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_golden_numbers_of_the_full_network() -> None:
    assert_agrees("scorers_synchformer.safetensors")


@pytest.mark.parametrize("rule", ["A", "B"])  # A for the epsilons, B for the structure
def test_audio_half_and_head_at_full_size(rule: str) -> None:
    with torch.device("meta"):
        model = Synchformer()
    model.vfeat_extractor = nn.Identity()  # half the weights, and most of the time
    model.load_state_dict(recipes.scorer_weights(model.state_dict(), rule), assign=True)
    about = json.loads((GOLDEN / "scorers_synchformer.json").read_text())
    golden = load_file(GOLDEN / "scorers_synchformer.safetensors")
    for name, ours, expected in checks.audio_and_head(model.eval(), rule, golden, about):
        assert relative_error(ours, expected) <= LIMIT, name
    if rule == "B":
        for name, ours, expected in checks.desync(model, about["desync_24seg"]):
            assert relative_error(ours, expected) <= LIMIT, name


# -- front ends ------------------------------------------------------------------------------------------


def test_the_last_mel_frame_is_zero_in_log_mel() -> None:
    mel = SyncMel()(torch.zeros(2, 10240))
    assert mel.shape == (2, 128, MEL_FRAMES)
    assert mel[..., -1].unique().tolist() == pytest.approx([4.2677393 / (2 * 4.5689974)])
    silence = (math.log(1e-6) + 4.2677393) / (2 * 4.5689974)
    assert mel[..., :-1].flatten().tolist() == pytest.approx([silence] * 2 * 128 * 65, rel=1e-5)


def test_the_window_is_periodic_and_400_samples_long() -> None:
    window = SyncMel().window
    expected = [0.5 - 0.5 * math.cos(2 * math.pi * n / 400) for n in range(400)]
    assert window.tolist() == pytest.approx(expected, abs=1e-6)


def test_a_tone_is_loudest_in_the_band_around_it() -> None:
    basis = htk_basis_float32(16000, 1024, 128)
    bins = torch.linspace(0, 8000, 513)
    centres = (basis @ bins) / basis.sum(1)
    for hz in (440.0, 1000.0, 5000.0):
        wave = torch.sin(2 * math.pi * hz * torch.arange(10240) / SAMPLE_RATE)
        loudest = int(SyncMel()(wave[None])[0, :, 20].argmax())
        assert abs(loudest - int((centres - hz).abs().argmin())) <= 1
    assert basis.max() <= 1
    assert (basis[:, 0] == 0).all()


def test_each_segment_is_framed_on_its_own() -> None:
    wave = recipes.wave(2, SAMPLE_RATE, 3)
    mel = SyncMel()
    together = mel(audio_segments(wave))
    for index, segment in enumerate(together):
        cut = wave[5120 * index : 5120 * index + 10240]
        assert torch.allclose(segment, mel(cut[None])[0], atol=1e-5)
    spectrum = torch.stft(wave, 1024, 160, 400, torch.hann_window(400), return_complex=True)
    assert spectrum.shape[1] > 2 * 64  # of the whole sound: other frames at the seams


def test_picture_and_sound_have_the_same_segments_but_for_rounding() -> None:
    for milliseconds in range(640, 31000, 7):
        seconds = milliseconds / 1000
        sound, picture = num_audio_segments(num_samples(seconds)), num_segments(num_frames(seconds))
        assert sound == picture + (seconds == 18.56), seconds  # 25·18.56 = 463.99999999999994
    assert window_segments(18.56)[-1] == 55
    assert len(audio_segments(torch.zeros(128000))) == num_audio_segments(128000) == 24
    assert len(audio_segments(torch.zeros(10240 + 5119))) == num_audio_segments(10240 + 5119) == 1
    assert num_audio_segments(10239) == num_audio_segments(0) == 0


def test_sound_becomes_mono_at_16_khz_of_the_evaluated_length() -> None:
    time = torch.arange(8 * 44100) / 44100
    tone = torch.sin(2 * math.pi * 440 * time)
    wave = sync_wave(torch.stack([tone, 0.5 * tone]), 44100, 6.0)
    assert wave.shape == (96000,)
    expected = 0.75 * torch.sin(2 * math.pi * 440 * torch.arange(96000) / SAMPLE_RATE)
    assert (wave - expected)[100:-100].abs().max() < 2e-3
    assert sync_wave(torch.stack([tone, -tone]), 44100, 8.0).abs().max() == 0


# -- DeSync ----------------------------------------------------------------------------------------------


def test_the_grid_has_21_offsets_and_zero_in_its_middle() -> None:
    assert offset_grid().tolist() == pytest.approx([-2 + 0.2 * k for k in range(21)], abs=1e-6)
    logits = torch.zeros(3, CLASSES)
    logits[torch.arange(3), torch.tensor([0, 10, 13])] = 1
    assert offsets_s(logits).tolist() == pytest.approx([-2, 0, 0.6])


def test_desync_weighs_both_windows_the_same_and_drops_the_sign() -> None:
    assert desync_s(torch.tensor([[-0.4, 0.6], [0.0, 0.2]])).tolist() == pytest.approx([0.5, 0.1])


def test_windows_are_the_first_and_the_last_14_segments() -> None:
    assert window_segments(8.0) == list(range(24))
    assert window_segments(4.8) == list(range(14))
    assert window_segments(10.0) == [*range(14), *range(16, 30)]  # the middle is not looked at
    with pytest.raises(ValueError, match=r"14 segments, which are 4\.8 s; 4\.79 s have 13"):
        window_segments(4.79)


def test_the_head_takes_14_segments_and_no_other_number() -> None:
    model = tiny()
    visual, audio = torch.zeros(1, 15, 8, 24), torch.zeros(1, 15, 6, 24)
    assert model.compare(visual[:, :14], audio[:, :14]).shape == (1, 21)
    for count in (13, 15):
        with pytest.raises(ValueError, match="exactly 14 segments"):
            model.compare(visual[:, :count], audio[:, :count])


def test_segments_of_sound_must_be_pictures_of_128_by_66() -> None:
    with pytest.raises(ValueError, match="segments of 10240 samples"):
        SynchformerAudio(24, 1, 2).segments(torch.zeros(1, 2, 128, 65))


def test_every_norm_has_its_own_epsilon() -> None:
    def epsilons(part: nn.Module) -> set[float]:
        return {norm.eps for norm in part.modules() if isinstance(norm, nn.LayerNorm)}

    model = tiny()  # the golden numbers hardly tell 1e-12 from 1e-6: the pooling layer's norm evens it out
    assert epsilons(model.afeat_extractor.ast) == {1e-12}
    assert epsilons(model.afeat_extractor.freq_attn_agg) == epsilons(model.vfeat_extractor) == {1e-6}
    assert epsilons(model.transformer) == {1e-5}


def test_what_is_too_short_is_named() -> None:
    check_length(200, 128000, SAMPLE_RATE, 8.0)
    check_length(200, 8 * 44100, 44100, 8.0)
    with pytest.raises(ValueError, match=r"the picture lasts 7\.96 s, 8 s are evaluated"):
        check_length(199, 128000, SAMPLE_RATE, 8.0)
    with pytest.raises(ValueError, match=r"the sound lasts 7\.99994 s, 8 s are evaluated"):
        check_length(200, 127999, SAMPLE_RATE, 8.0)


# -- a network that reads clocks: the truth of its offsets is known ---------------------------------------

GROWTH = 0.5  # of the sound's level in nepers a second: its log-power is a clock
TONE_HZ = 1000.0


class Clocks(nn.Module):
    """Reads the time off brightness and off level; the offset it sees is the one that was put in."""

    def __init__(self) -> None:
        super().__init__()
        self.segments_seen, self.heard_together = 0, list[int]()
        self.vfeat_extractor = SimpleNamespace(segment=self._see)
        self.afeat_extractor = SimpleNamespace(segments=self._hear)
        wave = torch.sin(2 * math.pi * TONE_HZ * torch.arange(10240) / SAMPLE_RATE)
        mel = SyncMel()(wave[None])[0, :, 5:60].mean(1)
        self.band, self.at_zero = int(mel.argmax()), float(mel.max())

    def _see(self, video: Tensor) -> Tensor:
        self.segments_seen += len(video)
        frame = (video[:, 0].mean((1, 2, 3)) + 1) / 2 * 255  # (N,), the number of the first frame
        return (frame / 25)[:, None, None].expand(-1, 8, 1)

    def _hear(self, mel: Tensor, _at_once: int) -> Tensor:
        self.heard_together.append(len(mel))
        level = (mel[:, :, self.band, 5:60].mean(-1) - self.at_zero) * 2 * published.MEL_STD
        return (level / (2 * GROWTH))[..., None, None].expand(-1, -1, 6, 1)

    def compare(self, visual: Tensor, audio: Tensor) -> Tensor:
        assert visual.shape[1] == audio.shape[1] == 14
        lead = audio.mean((1, 2, 3)) - visual.mean((1, 2, 3)) - self.middle
        return -(lead[:, None] - offset_grid()).abs()

    middle = 0.32  # from a segment's start to its middle, where its level is measured


def clip(lead_s: list[tuple[float, float]], seconds: float = 8.0, rate: int = 16000) -> ScoreItem:
    """A clip whose frames and sound tell the time; the sound is early by `lead_s` from given times on."""
    frames = np.arange(num_frames(seconds), dtype=np.uint8)[:, None, None, None]
    frames = np.broadcast_to(frames, (len(frames), 224, 224, 3))
    time = np.arange(round(seconds * rate)) / rate
    content = time.copy()
    for start, lead in lead_s:
        content[time >= start] = time[time >= start] + lead
    wave = (np.exp(GROWTH * content) * np.sin(2 * np.pi * TONE_HZ * time)).astype(np.float32)
    return ScoreItem("a", wave, rate, frames={adapter.PICTURE.key: frames}, seconds=seconds, clip_id="clip")


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> adapter.Synchformer:
    return loaded(Clocks(), monkeypatch)


def loaded(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> adapter.Synchformer:
    """The scorer around any network, as if its file were there."""
    monkeypatch.setattr(adapter, "load_synchformer", lambda _folder: network)
    monkeypatch.setattr(adapter, "locate", lambda name, _folder: Path(name))
    monkeypatch.setattr(adapter, "weights_version", lambda _path: "01234567-1")
    return adapter.Synchformer().load()


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("lead_s", [-1.2, -0.4, 0.0, 0.6])
def test_a_known_offset_is_found(clocks: adapter.Synchformer, lead_s: float, rate: int) -> None:
    scores, embeddings = judged(clocks, [clip([(0.0, lead_s)], rate=rate)])
    assert scores[0].value == pytest.approx(abs(lead_s), abs=1e-6)
    signed = offsets_s(embeddings["offset_logits"])[0].tolist()
    assert signed == pytest.approx([lead_s, lead_s], abs=1e-6)  # positive: the sound is early


def test_the_windows_are_judged_apart_and_averaged(clocks: adapter.Synchformer) -> None:
    scores, embeddings = judged(clocks, [clip([(0.0, 0.4), (5.0, -1.0)], seconds=10.0)])
    assert offsets_s(embeddings["offset_logits"])[0].tolist() == pytest.approx([0.4, -1.0], abs=1e-6)
    assert scores[0].value == pytest.approx(0.7, abs=1e-6)


def test_a_longer_sound_and_picture_are_cut_to_the_evaluated_length(clocks: adapter.Synchformer) -> None:
    item = replace(clip([(0.0, 0.4), (8.0, 2.0)], seconds=10.0), seconds=8.0)
    assert scores_of(clocks, [item])[0].value == pytest.approx(0.4, abs=1e-6)


def test_the_picture_is_seen_once_a_clip(clocks: adapter.Synchformer) -> None:
    items = [replace(clip([(0.0, lead)]), candidate_id=f"c{lead}") for lead in (0.0, 0.4, 0.8)]
    other = replace(clip([(0.0, 0.2)]), candidate_id="other", clip_id="another clip")
    values = {s.candidate_id: s.value for s in scores_of(clocks, [items[0], other, *items[1:]])}
    assert values == pytest.approx({"c0.0": 0.0, "other": 0.2, "c0.4": 0.4, "c0.8": 0.8}, abs=1e-6)
    assert clocks._judge is not None
    network = clocks._judge.network
    assert network.segments_seen == 2 * 24
    assert network.heard_together == [4]


def test_the_last_clips_picture_is_remembered_for_the_next_batch(clocks: adapter.Synchformer) -> None:
    items = [replace(clip([(0.0, lead)]), candidate_id=f"c{lead}") for lead in (0.0, 0.4, 0.8)]
    other = replace(clip([(0.0, 0.2)]), candidate_id="other", clip_id="another clip")
    assert clocks._judge is not None
    looks = []
    for batch in ([items[0], other], [items[1]], [items[2], items[0]], [other]):
        before = clocks._judge.network.segments_seen
        values = {s.candidate_id: s.value for s in scores_of(clocks, batch)}
        looks.append((clocks._judge.network.segments_seen - before) // 24)
        truth = {"c0.0": 0.0, "other": 0.2, "c0.4": 0.4, "c0.8": 0.8}
        assert values == pytest.approx({i.candidate_id: truth[i.candidate_id] for i in batch}, abs=1e-6)
    assert looks == [2, 1, 0, 1]  # one clip is kept, no more
    later = clip([(0.0, 0.0)]).frames[adapter.PICTURE.key] + np.uint8(25)  # another picture of that name
    assert scores_of(clocks, [replace(other, frames={adapter.PICTURE.key: later})])[0].value == pytest.approx(
        0.8
    )


def test_lengths_are_heard_apart_and_keep_their_order(clocks: adapter.Synchformer) -> None:
    lengths = (8.0, 6.0, 8.0, 5.0)
    items = [
        replace(clip([(0.0, lead)], seconds=s), candidate_id=f"{lead}", clip_id=f"{lead}")
        for lead, s in zip((0.0, 0.2, 0.4, 0.6), lengths)
    ]
    scores, rows = judged(clocks, items)
    assert [s.value for s in scores] == pytest.approx([0.0, 0.2, 0.4, 0.6], abs=1e-6)
    assert offsets_s(rows["offset_logits"])[:, 1].tolist() == pytest.approx([0.0, 0.2, 0.4, 0.6], abs=1e-6)
    assert clocks._judge is not None
    assert clocks._judge.network.heard_together == [2, 1, 1]


def test_what_cannot_be_judged_is_unscored_and_changes_nobody_else(clocks: adapter.Synchformer) -> None:
    good = clip([(0.0, 0.4)])
    frames = good.frames[adapter.PICTURE.key]
    short = clip([(0.0, 0.4)], seconds=4.0)
    items = {
        "good": good,
        "silent": replace(good, wave=np.zeros_like(good.wave)),
        "no picture": replace(good, frames={}),
        "4 s have 11": short,
        "the picture lasts 7.92 s": replace(good, frames={adapter.PICTURE.key: frames[:198]}),
        "the sound lasts 6 s": replace(good, wave=good.wave[:96000]),
    }
    named = [replace(item, candidate_id=name, clip_id=name) for name, item in items.items()]
    scores, embeddings = judged(clocks, named)
    assert [s.candidate_id for s in scores] == list(items)
    assert scores[0].value == pytest.approx(0.4, abs=1e-6)
    for score in scores[1:]:
        assert score.value is None
        assert score.candidate_id in score.reason
    rows = embeddings["offset_logits"]
    assert rows.shape == (6, 2, 21)
    assert rows.isnan().all((1, 2)).tolist() == [False, *[True] * 5]


def test_the_mean_of_all_channels_is_heard(clocks: adapter.Synchformer) -> None:
    item = clip([(0.0, 0.4)])
    loud = np.stack([1.5 * item.wave, 0.5 * item.wave])
    assert scores_of(clocks, [replace(item, channels=loud)])[0].value == pytest.approx(0.4, abs=1e-6)


# -- the real network, small ------------------------------------------------------------------------------


def tiny() -> Synchformer:
    torch.manual_seed(0)
    return Synchformer(24, 1, 2, 1, 2).eval().requires_grad_(False)


def test_forced_logits_are_what_the_score_says(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    model.transformer.off_head.weight.zero_()
    model.transformer.off_head.bias.copy_(torch.eye(21)[4])
    item = clip([(0.0, 0.0)], seconds=4.8)
    score = scores_of(loaded(model, monkeypatch), [item])[0]
    assert (score.value, score.scorer, score.dimension) == (pytest.approx(1.2), "synchformer", "desync_s")
    assert score.version == "01234567-1"


def test_sound_is_heard_and_compared_where_the_windows_are() -> None:
    model, sound = tiny(), recipes.wave(10, SAMPLE_RATE, 2)
    judge, segments = DeSync(model), window_segments(10.0)
    with torch.inference_mode():
        every = model.afeat_extractor.segments(SyncMel()(audio_segments(sound))[None])
    heard = judge.hear([(sound[None].numpy(), SAMPLE_RATE)], 10.0)[0]
    assert torch.allclose(heard, every[0, segments], atol=1e-5)
    seen = torch.randn(1, 30, 8, 24)
    logits = judge.logits(seen[:, segments], heard[None])[0]
    for window, part in enumerate((slice(0, 14), slice(16, 30))):
        assert torch.allclose(logits[window], model.compare(seen[:, part], every[:, part])[0], atol=1e-5)


def test_weights_that_do_not_fit_are_refused() -> None:
    with torch.device("meta"):
        state = Synchformer().state_dict()
    assert len(build_synchformer(state).state_dict()) == 513
    missing = {k: v for k, v in state.items() if k != "transformer.OFF_tok"}
    for wrong in (missing, state | {"unknown": torch.zeros(1, device="meta")}):
        with pytest.raises(ValueError, match=r"not the weights of Synchformer.*synchformer_state_dict\.pth"):
            build_synchformer(wrong)
