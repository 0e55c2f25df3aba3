"""Settings to YAML and back."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml

from foleypref.settings.errors import one_line_errors
from foleypref.settings.parts import Settings

S = TypeVar("S", bound=Settings)


def dump(settings: Settings) -> str:
    """Return settings as YAML text that `read_yaml` reads back as the same data."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_yaml(path: str | Path, cls: type[S]) -> S:
    """Read settings of class `cls` from YAML. A ValueError names the file and the path of what is wrong."""
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no YAML: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: holds no settings (a mapping of names to values)")
    with one_line_errors(str(path)):
        return cls.model_validate(data)
