"""A tuned model's card: what it was tuned from, on what, how well, how to make it again, what it allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from foleypref.hub.card_metrics import metrics, results
from foleypref.hub.provenance import Provenance
from foleypref.models.backbones import Model
from foleypref.models.saved import HubConfig, without_places
from foleypref.published.terms import WeightUse, card_licence
from foleypref.settings.parts import describe
from foleypref.workspace.markdown import code, fenced, front_matter, table
from foleypref.workspace.paths import WorkspacePaths

NOT_COMMERCIAL = (
    "Weights that allow no commercial use are behind this model, so it allows none either, whatever the "
    "licence of the code that made it."
)
VIDEO_TO_AUDIO = {"pipeline_tag": "text-to-audio"}  # the nearest of the hub's tasks


def model_card(provenance: Provenance, config: HubConfig) -> str:
    """Return Markdown with a YAML head, as model hubs show it."""
    sections = {
        "Use": _use(provenance.settings.model, config),
        "Data": _data(provenance),
        "Metrics": metrics(provenance),
        "How it was made": _recipe(provenance),
        "Weights it was made with, and their licences": licences(provenance.used),
    }
    title = f"# {code(provenance.settings.run_name)}"
    blocks = [front_matter(_head(provenance, config)), title, _summary(provenance, config)]
    return "\n\n".join([*blocks, *(f"## {name}\n\n{text}" for name, text in sections.items())]) + "\n"


def licences(used: list[WeightUse]) -> str:
    """Return a table of weights and their terms, and what follows from them."""
    licence = card_licence(used)
    limits = {True: " **non-commercial**", False: ""}
    rows = [(code(w.weight), code(w.used_for), code(w.licence) + limits[w.non_commercial]) for w in used]
    parts = [table(("weights", "used for", "licence"), rows)]
    if licence.non_commercial:
        parts.append(NOT_COMMERCIAL)
    if licence.reasons:
        reasons = "\n".join(f"- {code(reason)}" for reason in licence.reasons)
        parts.append(f"`license: {licence.license}` because of\n\n{reasons}")
    return "\n\n".join(parts)


def _head(provenance: Provenance, config: HubConfig) -> dict[str, Any]:
    settings = provenance.settings
    head: dict[str, Any] = dict(card_licence(provenance.used).head())
    if config.base is not None and config.base.repo:
        head["base_model"] = config.base.repo
        head["base_model_relation"] = "adapter" if config.is_adapter else "finetune"
    objective = settings.objective.part_name().replace("_", "-")
    tags = ["video-to-audio", "flow-matching", "preference-alignment", objective]
    head |= {"library_name": "foleypref", **_pipeline(settings.model)}
    head["tags"] = [*tags, "lora"] if config.is_adapter else tags
    if provenance.measured:
        head["model-index"] = [{"name": settings.run_name, "results": results(provenance.measured)}]
    return head


def _pipeline(model: Model) -> dict[str, str]:
    """Return the nearest of the hub's tasks, or nothing if the base, which would tell, is not here."""
    try:
        return {"pipeline_tag": "any-to-any"} if "video" in model.spec.latents else VIDEO_TO_AUDIO
    except ValueError:  # LTX-2's sizes are in its folder
        return {}


def _summary(provenance: Provenance, config: HubConfig) -> str:
    base, settings = config.base, provenance.settings
    assert base is not None
    objective = settings.objective.part_name()
    about = f" ({describe('objectives', objective).rstrip('.')})" if ":" not in objective else ""
    kind = "LoRA adapters for" if config.is_adapter else "Tuned from"
    where = f", [{base.repo}](https://huggingface.co/{base.repo})" if base.repo else ""
    result = provenance.result
    lines = [
        f"{kind} {code(base.name)}{where}, with the objective {code(objective)}{about} by foleypref "
        f"{config.foleypref_version}: {result['steps']} steps, seed {settings.seed}.",
        "",
        f"- base network's fingerprint: `{base.fingerprint}`",
        f"- flow convention: {config.flow}",
    ]
    if stopped := result.get("stopped"):
        lines.append(f"- it ended early: {code(stopped)}; weights of step {result['exported_step']}")
    if notice := getattr(settings.model, "notice", ""):
        lines.append(f"- {notice}")
    return "\n".join(lines)


def _use(model: Model, config: HubConfig) -> str:
    source = "VIDEO.mp4" if _pipeline(model) == VIDEO_TO_AUDIO else "--prompt 'a dog barks'"
    python = (
        "from foleypref.hub.loading import from_pretrained\n\n"
        "model = from_pretrained('FOLDER or owner/name', device='cuda')"
    )
    shell = (
        "foleypref hub load owner/name    # prints FOLDER\n"
        f"foleypref generate {source} --model FOLDER -o out.mp4"
    )
    parts = [fenced(python, "python"), fenced(shell, "sh")]
    if config.base is not None and config.base.repo:
        lacks = "The base network and its" if config.is_adapter else "The base's"
        parts.append(
            f"{lacks} encoders and codecs are not in here: `foleypref weights fetch {config.base.name}` "
            "gets them."
        )
    return "\n\n".join(parts)


def _data(provenance: Provenance) -> str:
    data = provenance.data
    if data is None:
        stored = provenance.result.get("identity", {})
        counts = [
            str(stored[key]).rpartition(" ")[0] for key in ("pairs", "clips", "labels") if key in stored
        ]
        return f"{', '.join(counts) or 'Not told'}; the workspace no longer has what it learned from."
    held_out = f"{data.num_held_out_clips} clips held out"
    lines = [f"- {data.num_clips} clips, {data.num_candidates} candidates; {held_out}"]
    for name, by_source in (("pairs", data.pairs), ("labelled candidates", data.labels)):
        if by_source:
            sources = ", ".join(f"{n} {code(source)}" for source, n in by_source.items())
            lines.append(f"- {sum(by_source.values())} {name}: {sources}")
    if provenance.settings.negatives is not None:
        rules = ", ".join(code(rule.part_name()) for rule in provenance.settings.negatives.rules)
        lines.append(f"- pairs made by rule on the fly: {rules}")
    return "\n".join(lines)


def _recipe(provenance: Provenance) -> str:
    settings = provenance.settings.model_dump(mode="json") | {"model": provenance.model}
    shown = [
        "Pairs as above in a workspace, this in `train.yaml`, and",
        fenced("foleypref train WORKSPACE --config train.yaml", "sh"),
        fenced(_yaml(settings), "yaml"),
    ]
    if not provenance.tunes_published:
        shown.insert(0, "It was tuned from another tuned model, whose weights are to be named in `model`.")
    recipe = WorkspacePaths(provenance.folder.resolve().parent.parent).recipe
    if recipe.is_file() and (whole := _whole_recipe(recipe, provenance.settings.run_name)):
        block = fenced(whole, "yaml")
        shown.append(
            "The whole alignment, `foleypref align recipe.yaml --workspace runs/again`:\n\n"
            f"<details><summary>recipe.yaml</summary>\n\n{block}\n\n</details>"
        )
    return "\n\n".join(shown)


def _whole_recipe(path: Path, run_name: str) -> str:
    """Return the workspace's recipe without paths, "" if this run belongs to none of its rows."""
    from foleypref.recipes.recipe import Recipe  # every stage's settings
    from foleypref.settings.yaml import read_yaml

    try:
        recipe = read_yaml(path, Recipe)
    except ValueError:  # of another version
        return ""
    known = (run.run_name for runs in recipe.final_runs().values() for run in runs)
    return _yaml(recipe.model_dump(mode="json")) if run_name in known else ""


def _yaml(settings: dict[str, Any]) -> str:
    return yaml.safe_dump(without_places(settings), sort_keys=False, allow_unicode=True)
