"""The embedded world: short video files whose sound is made from their picture, so the truth is known.

Only constants live here; `from foleypref.world.make import make` renders clips.
"""

FPS = 25
SAMPLE_RATE = 16_000  # Hz, mono
CLIP_SECONDS = 4.0
NUM_FRAMES = 100  # CLIP_SECONDS · FPS
NUM_SAMPLES = 64_000  # CLIP_SECONDS · SAMPLE_RATE
SAMPLES_PER_FRAME = 640  # SAMPLE_RATE / FPS, an integer on purpose: event times lie on the frame grid
FRAME_SIZE = 96  # pixels, square
VERSION = 1  # raise it if the same seed gives other frames, another wave or other bytes

SPLITS: tuple[str, ...] = ("wild", "judge", "oracle", "align", "test", "unseen")
DAMAGED_SPLITS: tuple[str, ...] = ("wild",)

FAMILIES: dict[str, str] = {
    "basketball": "impact",
    "marble": "impact",
    "wood_block": "impact",
    "metal_plate": "impact",
    "wine_glass": "impact",
    "drum": "impact",
    "plastic_bucket": "impact",
    "saw": "scrape",
    "broom": "scrape",
    "door_creak": "scrape",
    "rolling_ball": "scrape",
    "balloon_pop": "burst",
    "clap": "burst",
    "splash": "burst",
    "firework": "burst",
    "rain": "texture",
    "fire": "texture",
    "wind": "texture",
    "engine": "texture",
    "waterfall": "texture",
    "bird": "call",
    "dog": "call",
    "frog": "call",
    "bell": "call",
    "car_horn": "call",
    "low_voice": "voice",
    "high_voice": "voice",
}
CLASSES: tuple[str, ...] = tuple(FAMILIES)
