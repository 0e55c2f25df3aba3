"""foleytune: preference alignment for video-to-audio flow models.

Nothing heavy is imported here: `foleytune --help` must answer at once. Import what you need by its file,
`from foleytune.train import train`, `from foleytune.records import Clip`.
"""

__version__ = "0.1.0"
