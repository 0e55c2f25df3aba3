"""Synchrony of sound and picture, measured in the browser: samples on their way out, pixels of frames.

Letters: N samples of a loop, M samples of a recording. Run with `-s` to read the figures.
"""

from __future__ import annotations

import wave
from typing import NamedTuple

import numpy as np
import pytest

from tests.e2e.chromium import Tab
from tests.e2e.conftest import Visit, playing
from tests.e2e.site import FPS, NUM_BITS, SECONDS, Site

BOUND_S = 0.045
TAP = """(() => {
  const tap = window.tap = { starts: [] };
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (to, ...rest) {
    if (to === this.context.destination) {
      tap.analyser ??= new AnalyserNode(this.context, { fftSize: 8192 });
      connect.call(this, tap.analyser);
    }
    return connect.call(this, to, ...rest);
  };
  const start = AudioBufferSourceNode.prototype.start;
  AudioBufferSourceNode.prototype.start = function (when, offset) {
    tap.starts.push([when, offset, this.buffer.length, this.loop]);
    return start.call(this, when, offset);
  };
  tap.switchAndListen = async (key) => {
    const samples = new Float32Array(8192); // 186 ms, with the switch near the middle
    const since = tap.analyser.context.currentTime, elapsed = () => tap.analyser.context.currentTime - since;
    document.dispatchEvent(new KeyboardEvent("keydown", { key }));
    while (elapsed() < 0.095) await new Promise((go) => setTimeout(go, 2));
    tap.analyser.getFloatTimeDomainData(samples);
    return { rate: tap.analyser.context.sampleRate, samples: [...samples], elapsed: elapsed() };
  };
  tap.watch = async (ms, keys) => {
    const paint = new OffscreenCanvas(BITS, 1).getContext("2d", { willReadFrequently: true });
    const rows = [], end = performance.now() + ms, every = ms / (keys.length + 1);
    let next = performance.now() + every, switched = 0, last = -1e9;
    while (performance.now() < end) {
      await new Promise(requestAnimationFrame);
      if (keys.length && performance.now() > next) {
        document.dispatchEvent(new KeyboardEvent("keydown", { key: keys.shift() }));
        [next, last, switched] = [next + every, performance.now(), switched + 1];
      }
      const audio = foleypref.audioTime(), video = foleypref.videoTime();
      const front = document.querySelector("video[data-front]");
      paint.drawImage(front, 0, 0, BITS, 1);
      const pixels = paint.getImageData(0, 0, BITS, 1).data;
      let frame = 0;
      for (let bit = 0; bit < BITS; bit++) frame += (pixels[4 * bit] > 128) << bit;
      rows.push([audio, video, frame, performance.now() - last, switched]);
    }
    return rows;
  };
})()""".replace("BITS", str(NUM_BITS))


class Watched(NamedTuple):
    """Differences in seconds, positive if the picture is ahead; one row per screen refresh."""

    clock: np.ndarray  # between the two clocks
    seen: np.ndarray  # between the sound and the frame whose pixels are on the screen; 0 inside that frame
    after_switch: np.ndarray  # whether a soundtrack was switched in the 100 ms before


def watch(tab: Tab, seconds: float, keys: str = "") -> Watched:
    rows = np.array(tab.js(f"tap.watch({1000 * seconds}, {list(keys)})"), np.float64)
    audio, video, frame, since_ms, _ = rows.T
    wrap = lambda d: d - SECONDS * np.round(d / SECONDS)  # noqa: E731
    centre = wrap((frame + 0.5) / FPS - audio)
    outside = np.sign(centre) * np.maximum(0, np.abs(centre) - 0.5 / FPS)
    return Watched(wrap(video - audio), outside, since_ms < 100)


def report(name: str, watched: Watched) -> None:
    for what, values in (("clocks", watched.clock), ("pixels", watched.seen)):
        size = 1000 * np.abs(values)
        print(
            f"\n{name}: {what} apart in {len(size)} refreshes: median {np.median(size):.1f} ms, "
            f"p99 {np.quantile(size, 0.99):.1f} ms, most {size.max():.1f} ms",
            end="",
        )


@pytest.mark.parametrize(
    ("seconds", "keys"), [(3.6, "25314"), pytest.param(12.5, 4 * "25314", marks=pytest.mark.slow)]
)
def test_sound_and_picture_stay_together_over_switches_and_loops(
    rating: Site, rater: str, visit: Visit, seconds: float, keys: str
) -> None:
    tab = visit(rating.rater(rater), before=TAP)
    watched = watch(tab, seconds, keys)  # from the first sound on; a loop ends every 3 s
    report(f"{len(keys)} switches", watched)
    assert np.abs(watched.clock).max() <= BOUND_S
    assert np.abs(watched.seen).max() <= BOUND_S
    assert np.abs(watched.clock[watched.after_switch]).max() <= BOUND_S
    assert watched.after_switch.sum() >= 2 * len(keys)
    assert len(watched.clock) > 20 * seconds  # refreshes: a page that stands still measures nothing


@pytest.mark.slow
def test_sound_and_picture_are_together_again_soon_after_a_seek(
    rating: Site, rater: str, visit: Visit
) -> None:
    tab = visit(rating.rater(rater), before=TAP)
    for seek in ("document.querySelectorAll('.wave')[2].click()", None):
        if seek:
            tab.js(seek)
        else:
            tab.press("r")
        playing(tab)
        tab.js("new Promise(go => setTimeout(go, 500))")
        watched = watch(tab, 0.8)
        report("after a seek", watched)
        assert np.abs(watched.clock).max() <= BOUND_S
        assert np.abs(watched.seen).max() <= BOUND_S


@pytest.mark.slow
@pytest.mark.parametrize("lost_s", [0.15, -0.15, 1.1])  # made up by speed, by speed, by a seek
def test_a_picture_that_lost_the_sound_finds_it_again(
    rating: Site, rater: str, visit: Visit, lost_s: float
) -> None:
    tab = visit(rating.rater(rater), before=TAP)
    tab.wait("foleypref.audioTime() > 0.5")
    tab.js(f"document.querySelector('video[data-front]').currentTime += {lost_s}")
    tab.js("new Promise(go => setTimeout(go, 900))")
    watched = watch(tab, 0.5)
    report(f"{lost_s} s away", watched)
    assert np.abs(watched.clock).max() <= BOUND_S
    assert np.abs(watched.seen).max() <= BOUND_S


def test_a_switch_is_exact_to_the_sample(rating: Site, rater: str, visit: Visit) -> None:
    tab = visit(rating.rater(rater), before=TAP)
    tab.js("new Promise(go => setTimeout(go, 300))")
    starts = tab.js("tap.starts")
    assert len(starts) == 5
    assert len({tuple(row) for row in starts}) == 1  # one time, one offset, one length
    assert starts[0][3] is True
    task = tab.js("foleypref.state().task_id")
    before, num_compared = "A", 0
    for key in 10 * "25431":
        after = "ABCDE"[int(key) - 1]
        recorded = tab.js(f"tap.switchAndListen('{key}')")
        if recorded["elapsed"] > 0.13:  # a busy machine recorded too late: the switch is in the first samples
            before = after
            continue
        rate, samples = int(recorded["rate"]), np.array(recorded["samples"])
        old, new = (loop_of(rating, rater, task, label, rate) for label in (before, after))
        head, tail = place(samples[:2048], old), place(samples[-2048:], new)
        assert (tail - head) % len(old) == len(samples) - 2048
        before, num_compared = after, num_compared + 1
        if num_compared == 4:
            return
    pytest.fail("the machine is too busy to record a switch")


def loop_of(site: Site, rater: str, task_id: str, label: str, rate: int) -> np.ndarray:
    """(N,) a soundtrack as it is served, at the browser's rate."""
    with wave.open(str(site.campaign.media_file(rater, task_id, label))) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
    num = round(len(samples) * rate / 44_100)
    return samples if num == len(samples) else np.fft.irfft(np.fft.rfft(samples), num) * num / len(samples)


def place(heard: np.ndarray, loop: np.ndarray) -> int:
    """Where in a loop (N,) a recording (M,) is; it must be that loop and nothing else."""
    match = np.fft.irfft(np.fft.rfft(loop) * np.conj(np.fft.rfft(heard, len(loop))), len(loop))
    energy = np.cumsum(np.square(np.resize(loop, len(loop) + len(heard))))
    energy = energy[len(heard) - 1 : -1] - np.append(0.0, energy[: len(loop) - 1])
    at = int(
        (match / np.sqrt(energy)).argmax()
    )  # without it, a loud place outweighs the right one if that is quiet
    there = np.take(loop, range(at, at + len(heard)), mode="wrap")
    similarity = float(there @ heard / np.linalg.norm(there) / np.linalg.norm(heard))
    assert similarity > 0.99, f"another sound is heard, similarity {similarity:.3f}"
    return at
