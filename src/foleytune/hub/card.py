"""A tuned model's card: what it was tuned from, on what, how well, how to make it again, what it allows."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, cast

import yaml

from foleytune.evaluation import Cell, Column
from foleytune.evaluation_table import header, number, signed, spread, verdict
from foleytune.hub.layout import HubConfig, without_places
from foleytune.hub.provenance import Measured, Provenance
from foleytune.markdown import code, fenced, front_matter, table
from foleytune.models import Model
from foleytune.plugins import describe
from foleytune.published.terms import Used, card_licence

_HELD_OUT = re.compile(r"eval/(loss|reward|rewards/\w+|watch/.+)")  # no bins, no sources
NOT_COMMERCIAL = (
    "Weights that allow no commercial use are behind this model, so it allows none either, whatever the "
    "licence of the code that made it."
)


def model_card(told: Provenance, config: HubConfig) -> str:
    """Markdown with a YAML head, as model hubs show it."""
    blocks = [
        front_matter(_head(told, config)),
        f"# {code(told.settings.run_name)}",
        _summary(told, config),
        "## Use",
        _use(config),
        "## Data",
        _data(told),
        "## Metrics",
        _metrics(told),
        "## How it was made",
        _recipe(told),
        "## Weights it was made with, and their licences",
        licences(told.used),
    ]
    return "\n\n".join(blocks) + "\n"


def licences(used: list[Used]) -> str:
    """A table of weights and their terms, and what follows from them."""
    licence = card_licence(used)
    rows = [(code(one.weight), code(one.used_for), _terms(one)) for one in used]
    parts = [table(("weights", "used for", "licence"), rows)]
    if licence.non_commercial:
        parts.append(NOT_COMMERCIAL)
    if licence.reasons:
        reasons = "\n".join(f"- {code(reason)}" for reason in licence.reasons)
        parts.append(f"`license: {licence.license}` because of\n\n{reasons}")
    return "\n\n".join(parts)


def _terms(one: Used) -> str:
    return code(one.licence) + (" **non-commercial**" if one.non_commercial else "")


def _head(told: Provenance, config: HubConfig) -> dict[str, Any]:
    objective = told.settings.objective.part_name()
    head: dict[str, Any] = dict(card_licence(told.used).head())
    if config.base is not None and config.base.repo:
        head["base_model"] = config.base.repo
        head["base_model_relation"] = "adapter" if config.is_adapter else "finetune"
    head["library_name"] = "foleytune"
    head |= _pipeline(cast(Model, told.settings.model))
    head["tags"] = ["video-to-audio", "flow-matching", "preference-alignment", objective.replace("_", "-")]
    if config.is_adapter:
        head["tags"].append("lora")
    if told.measured:
        results = [_index(one) for one in told.measured]
        head["model-index"] = [{"name": told.settings.run_name, "results": results}]
    return head


def _pipeline(model: Model) -> dict[str, str]:
    """The nearest of the hub's tasks: it has no video-to-audio. None where the base is not here to tell."""
    try:
        return {"pipeline_tag": "any-to-any" if "video" in model.spec.latents else "text-to-audio"}
    except ValueError:  # LTX-2's sizes are in its folder
        return {}


def _summary(told: Provenance, config: HubConfig) -> str:
    base, settings = config.base, told.settings
    assert base is not None
    objective = settings.objective.part_name()
    about = f" ({describe('objectives', objective).rstrip('.')})" if ":" not in objective else ""
    what = "LoRA adapters for" if config.is_adapter else "Tuned from"
    where = f", [{base.repo}](https://huggingface.co/{base.repo})" if base.repo else ""
    notice = getattr(settings.model, "notice", "")
    lines = [
        f"{what} {code(base.name)}{where}, with the objective {code(objective)}{about} by foleytune "
        f"{config.foleytune_version}: {told.result['steps']} steps, seed {settings.seed}.",
        f"- base network's fingerprint: `{base.fingerprint}`",
        f"- flow convention: {config.flow}",
    ]
    if stopped := told.result.get("stopped"):
        lines.append(f"- it ended early: {code(stopped)}; weights of step {told.result['exported_step']}")
    if notice:
        lines.append(f"- {notice}")
    return lines[0] + "\n\n" + "\n".join(lines[1:])


def _use(config: HubConfig) -> str:
    whole = "model = from_pretrained('FOLDER or owner/name', device='cuda')"
    python = f"from foleytune.hub.loading import from_pretrained\n\n{whole}"
    shell = (
        "foleytune hub load owner/name    # prints FOLDER\n"
        "foleytune generate VIDEO.mp4 --model FOLDER -o out.mp4"
    )
    parts = [fenced(python, "python"), fenced(shell, "sh")]
    if config.base is not None and config.base.repo:
        lacks = "The base network and its" if config.is_adapter else "The base's"
        parts.append(
            f"{lacks} encoders and codecs are not in here: `foleytune weights fetch {config.base.name}` "
            "gets them."
        )
    return "\n\n".join(parts)


def _data(told: Provenance) -> str:
    data = told.data
    if data is None:
        stored = told.result.get("identity", {})
        kinds = [
            str(stored[kind]).rpartition(" ")[0] for kind in ("pairs", "clips", "labels") if kind in stored
        ]
        return f"{', '.join(kinds) or 'Not told'}; the workspace no longer has what it learned from."
    lines = [
        f"- {data.num_clips} clips, {data.num_candidates} candidates; "
        f"{data.num_held_out_clips} clips held out"
    ]
    for name, counts in (("pairs", data.pairs), ("labelled candidates", data.labels)):
        if counts:
            found = ", ".join(f"{n} {code(source)}" for source, n in counts.items())
            lines.append(f"- {sum(counts.values())} {name}: {found}")
    if told.settings.negatives is not None:
        rules = ", ".join(code(rule.part_name()) for rule in told.settings.negatives.rules)
        lines.append(f"- pairs made by rule on the fly: {rules}")
    return "\n".join(lines)


def _metrics(told: Provenance) -> str:
    blocks = [_measured(one) for one in told.measured]
    logs = told.result.get("logs", {})
    held_out = {key: value for key, value in logs.items() if _HELD_OUT.fullmatch(key) and _real(value)}
    if held_out:
        rows = [(code(key), number(value)) for key, value in sorted(held_out.items())]
        blocks.append("On the held-out items of training, at its end:\n\n" + table(("", ""), rows, 1))
    return "\n\n".join(blocks) or "Nobody has evaluated it yet."


def _measured(one: Measured) -> str:
    """One evaluation: the base, this row, and the paired difference, with intervals."""
    e, s = one.evaluation, one.evaluation.settings
    scale = one.row.guidance_scale
    base = next((r for r in e.rows if r.system == e.base and r.guidance_scale == scale), None)
    seeds = len(one.row.weights)
    shown, rows = (True, base is not one.row, True, seeds > 1, base is not one.row), []
    for index, (column, cell) in enumerate(zip(e.columns, one.row.cells, strict=True)):
        before = "" if base is None else _value(base.cells[index])
        own = number(cell.by_seed[one.seed]) if seeds > 1 else ""
        row = [code(header(column)), before, _value(cell), own, _difference(cell, column)]
        rows.append([text for text, told in zip(row, shown) if told])
    said = (
        f"{code(e.name)}: split {code(s.get('split', ''))}, {one.row.num_clips} clips, guidance {scale:g}, "
        f"{code(s.get('solver', ''))} with {s.get('num_steps', 0)} steps, row {code(one.row.system)}"
        + (f" (mean of {seeds} training seeds, of which this is one)" if seeds > 1 else "")
        + "; 95 % intervals; `*` marks what the reward read, `†` another output of such a judge."
    )
    names = ["metric", code(e.base), code(one.row.system), "this seed", "difference to the base, paired"]
    heads = [text for text, told in zip(names, shown) if told]
    return f"{said}\n\n{table(heads, rows, len(heads) - 1)}"


def _value(cell: Cell) -> str:
    return f"{number(cell.value)} {spread(cell.value, cell.low, cell.high)} (n={cell.n})".replace("  ", " ")


def _difference(cell: Cell, column: Column) -> str:
    d = cell.difference
    if d is None:
        return ""
    return f"{signed(d.value)} {spread(d.value, d.low, d.high)} {verdict(cell, column)}".strip()


def _index(one: Measured) -> dict[str, Any]:
    """A result as hubs index it: this run's own value; the interval is the row's, over all its seeds."""
    metrics = [
        {
            "type": ", ".join(column.reads),
            "name": header(column),
            "value": round(cell.by_seed[one.seed], 6),
            "args": {"mean": cell.value, "low": cell.low, "high": cell.high, "clips": cell.n},
        }
        for column, cell in zip(one.evaluation.columns, one.row.cells, strict=True)
        if all(map(_real, (cell.by_seed[one.seed], cell.value, cell.low, cell.high)))
    ]
    split = str(one.evaluation.settings.get("split", ""))
    return {
        "task": {"type": "video-to-audio"},
        "dataset": {"type": "foleytune-workspace", "name": one.evaluation.name, "split": split},
        "metrics": metrics,
    }


def _recipe(told: Provenance) -> str:
    said = told.settings.model_dump(mode="json")
    said = without_places(said | {"model": told.model})
    text = yaml.safe_dump(said, sort_keys=False, allow_unicode=True)
    shown = [
        "Pairs as above in a workspace, this in `train.yaml`, and",
        fenced("foleytune train WORKSPACE --config train.yaml", "sh"),
        fenced(text, "yaml"),
    ]
    if not told.tunes_published:
        shown.insert(0, "It was tuned from another tuned model, whose weights are to be named in `model`.")
    recipe = told.folder.resolve().parent.parent / "recipe.yaml"
    if recipe.is_file() and (whole := _whole_recipe(recipe, told.settings.run_name)):
        block = fenced(whole, "yaml")
        shown.append(
            "The whole alignment, `foleytune align recipe.yaml --workspace runs/again`:\n\n"
            f"<details><summary>recipe.yaml</summary>\n\n{block}\n\n</details>"
        )
    return "\n\n".join(shown)


def _whole_recipe(path: Path, run_name: str) -> str:
    """The workspace's recipe without paths, if it has a row that this run is of."""
    from foleytune.config import load  # every stage's settings

    try:
        recipe = load(path)
    except ValueError:  # of another version
        return ""
    named = [run.run_name for runs in recipe.final_runs().values() for run in runs]
    if run_name not in named:
        return ""
    return yaml.safe_dump(without_places(recipe.model_dump(mode="json")), sort_keys=False, allow_unicode=True)


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
