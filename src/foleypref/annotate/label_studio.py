"""Label Studio's JSON: one task per soundtrack (choices bad, medium, good) or per pair (first, tie, second).

Exports of Label Studio itself are read too: there, `completed_by` may be a user's number, and a pair may have
been compared with the Pairwise tag. docs/annotate.md has the labelling configurations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from foleypref.workspace.records import LABELS

PREFERENCES = {"first": 1, "tie": 0, "second": -1}
PAIRWISE = {"left": 1, "right": -1}


def to_label_studio(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of labels as Label Studio's tasks."""
    tasks: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = (row["candidate_id"], row["second"])
        if key not in tasks:
            data = {name: row[name] for name in ("clip_id", "candidate_id", "prompt", "video")}
            if row["kind"] == "vote":
                data["second"] = row["second"]
            tasks[key] = {"id": len(tasks) + 1, "data": data, "annotations": []}
        tasks[key]["annotations"].append(_annotation(row))
    return list(tasks.values())


def _annotation(row: Mapping[str, Any]) -> dict[str, Any]:
    words = {value: word for word, value in PREFERENCES.items()}
    is_rating = row["kind"] == "rating"
    word = LABELS[row["value"]] if is_rating else words[row["value"]]
    result = {
        "from_name": "rating" if is_rating else "preference",
        "to_name": "video",
        "type": "choices",
        "value": {"choices": [word.capitalize()]},
        "meta": {"source": row["source"]},
    }
    return {
        "completed_by": {"email": row["rater"]},
        "lead_time": row["seconds"],
        "was_cancelled": False,
        "result": [result],
    }


def from_label_studio(tasks: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (place, row) of every annotation; one that cannot be read gives a row with a `mistake`."""
    if not isinstance(tasks, list):
        raise ValueError(f"Label Studio's JSON is a list of tasks, found {type(tasks).__name__}")
    for number, task in enumerate(tasks, 1):
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict):
            yield f"task {number}", {"mistake": "a task has an object `data`"}
            continue
        annotations = task.get("annotations")
        for index, annotation in enumerate(annotations if isinstance(annotations, list) else [], 1):
            place = f"task {number}, annotation {index}"
            if not isinstance(annotation, dict):
                yield place, {"mistake": "an annotation is an object"}
            elif not annotation.get("was_cancelled"):
                yield place, _row(data, annotation)


def _row(data: Mapping[str, Any], annotation: Mapping[str, Any]) -> dict[str, Any]:
    results = annotation.get("result")
    result = next((r for r in results if _word(r)), None) if isinstance(results, list) else None
    if result is None:
        return {"mistake": "no result of type choices or pairwise"}
    word, meta = _word(result), result.get("meta")
    value: Any = word
    if data.get("second"):
        value = PREFERENCES.get(word, PAIRWISE.get(word))
        if value is None:
            return {"mistake": f"a comparison is {', '.join((*PREFERENCES, *PAIRWISE))}, found {word!r}"}
    return {
        "kind": "vote" if data.get("second") else "rating",
        **{name: data.get(name) for name in ("clip_id", "candidate_id", "second")},
        "rater": _rater(annotation.get("completed_by")),
        "value": value,
        "source": meta.get("source") if isinstance(meta, dict) else None,
        "seconds": annotation.get("lead_time"),
    }


def _word(result: Any) -> str:
    """Return the choice in lower case; "" for another kind of result."""
    value = result.get("value") if isinstance(result, dict) else None
    if not isinstance(value, dict):
        return ""
    if result.get("type") == "pairwise":
        return str(value.get("selected") or "").lower()
    choices = value.get("choices")
    if result.get("type") == "choices" and isinstance(choices, list) and len(choices) == 1:
        return str(choices[0]).lower()
    return ""


def _rater(user: Any) -> str:
    if isinstance(user, dict):
        return str(user.get("email") or user.get("id") or "")
    return f"labelstudio-{user}" if isinstance(user, int) else str(user or "")
