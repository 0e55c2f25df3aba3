"""foleypref: preference alignment for video-to-audio flow models.

Nothing heavy is imported here: `foleypref --help` must answer at once. Import what you need by its file,
`from foleypref.train import train`, `from foleypref.workspace.records import Clip`.
"""

__version__ = "0.1.0"
