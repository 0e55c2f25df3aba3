"""Markdown for model cards. Text from users is shown literally, never as markup; hubs read the YAML head."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import yaml


def one_line(text: str) -> str:
    """Return text on one line, without control characters and marks that turn the direction of writing."""
    plain = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in text)
    return " ".join(plain.split())


def code(text: object) -> str:
    """Return a code span, in which no markup, link, mention or HTML of `text` takes effect."""
    line = one_line(str(text))
    if not line:
        return "(empty)"
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def fenced(text: str, language: str = "") -> str:
    """Return a code block whose fence is longer than any in `text`."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0) -> str:
    """Return a table whose last `numbers` columns are aligned to the right."""
    rule = ["---"] * (len(heads) - numbers) + ["---:"] * numbers
    return "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in (heads, rule, *rows))


def front_matter(data: Mapping[str, Any]) -> str:
    """Return the YAML head of a card; no string in `data` can end the head early."""
    text = yaml.safe_dump(_cleaned(data), sort_keys=False, allow_unicode=True, width=10_000)
    return f"---\n{text}---"


def read_front_matter(text: str) -> dict[str, Any]:
    """Parse the YAML head of a card. Raises ValueError if there is none or it is no mapping."""
    head = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", text, re.S)
    try:
        data = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError as error:
        raise ValueError(f"its YAML head cannot be read: {one_line(str(error))}") from None
    if not isinstance(data, dict):
        raise ValueError("it does not begin with a YAML head between two lines of ---")
    return data


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _cleaned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {one_line(str(key)): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return one_line(value) if isinstance(value, str) else value


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
