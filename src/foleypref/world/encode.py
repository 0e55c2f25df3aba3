"""Write the world's frames and waves: H.264 + AAC in mp4, and FLAC. Small and fast, with reproducible bytes.

AAC delays sound by one frame of 1024 samples (64 ms at 16 kHz). The muxer records it in the edit list, and a
decoder that honours it (FFmpeg, so PyAV too) drops those samples. Measured: the first audio frame has pts 0,
and the lag against the clean wave is 0 samples. A decoded track has 64,512 samples; the last 512 are padding.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

# One x264 thread and bit-exact muxing: the same frames and wave give the same bytes, on any number of cores.
X264 = {"preset": "superfast", "crf": "20", "threads": "1", "g": "50", "bf": "0"}
AAC_BITS_PER_SECOND = 72_000


def write_mp4(
    path: str | Path, frames: NDArray[np.uint8], fps: int, wave: NDArray[np.float32], sample_rate: int
) -> None:
    """Write frames (T, H, W, 3) and a mono wave (N,) in [-1, 1] to one mp4 file."""
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as box:
        video = box.add_stream("libx264", rate=fps, options=X264)
        video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        audio = box.add_stream("aac", rate=sample_rate, layout="mono", options={"flags": "+bitexact"})
        audio.bit_rate = AAC_BITS_PER_SECOND
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            box.mux(video.encode(frame))
        box.mux(video.encode())
        box.mux(audio.encode(_audio_frame(wave, sample_rate, "fltp")))
        box.mux(audio.encode())


def write_flac(path: str | Path, wave: NDArray[np.float32], sample_rate: int) -> None:
    """Write a mono wave (N,) in [-1, 1] as 16-bit FLAC."""
    with av.open(str(path), "w", format="flac", options={"fflags": "+bitexact"}) as box:
        audio = box.add_stream("flac", rate=sample_rate, layout="mono", options={"flags": "+bitexact"})
        audio.format = "s16"
        whole = np.clip(np.round(wave * 32767.0), -32768, 32767).astype(np.int16)
        box.mux(audio.encode(_audio_frame(whole, sample_rate, "s16")))
        box.mux(audio.encode())


def _audio_frame(wave: NDArray, sample_rate: int, sample_format: str) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave)[None], format=sample_format, layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = sample_rate, 0, Fraction(1, sample_rate)
    return frame
