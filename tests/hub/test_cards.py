"""Model cards: the licence follows every weight, what is not known is said, what people typed stays text."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from foleypref.evaluation.result import Cell, Column, Difference, Evaluation, SystemRow, save_evaluation
from foleypref.hub.card import model_card
from foleypref.hub.provenance import read_run
from foleypref.hub.saving import save_pretrained
from foleypref.models import saved as layout
from foleypref.models.backbones.world import World
from foleypref.models.saved import without_places
from foleypref.models.tools import loaded_fingerprint
from foleypref.published.terms import WeightUse, card_licence, model_weights, scorer_weights
from foleypref.recipes.recipe import Recipe, resolve
from foleypref.settings.yaml import dump
from foleypref.training.settings import TrainSettings
from foleypref.workspace.markdown import code, fenced, front_matter, read_front_matter, table
from foleypref.workspace.records import Pair
from foleypref.workspace.store import Workspace
from tests.hub.runs import fit_of, head_of, run_by_hand, settings_of

HOSTILE = "x`</details><script>alert(1)</script>\n---\n![](http://e.example/?)|**a**\u202e\x00"


def test_licences_follow_every_weight() -> None:
    world = model_weights({"name": "world"}, "base")
    assert card_licence(world)[:2] == ("apache-2.0", "")
    assert card_licence([*world, *scorer_weights(["panns", "clap"], "judge")]).license == "apache-2.0"
    imagebind = card_licence([*world, *scorer_weights(["imagebind"], "judge")])
    assert imagebind.license == "other"  # CC-BY-NC-SA is no hub's cc-by-nc-4.0
    assert imagebind.non_commercial
    assert imagebind.reasons == ("imagebind_huge.pth: CC-BY-NC-SA-4.0",)
    mmaudio = card_licence(model_weights({"name": "mmaudio", "variant": "small-16k"}, "base"))
    assert mmaudio.non_commercial
    assert any("apple-amlr" in reason for reason in mmaudio.reasons)
    assert any("mmaudio_small_16k.pth" in reason for reason in mmaudio.reasons)
    alone = [
        one
        for one in model_weights({"name": "mmaudio", "variant": "small-16k"}, "")
        if "CC-BY" in one.licence
    ]
    assert card_licence(alone).license == "cc-by-nc-4.0"
    frieren = card_licence(model_weights({"name": "frieren", "variant": "base"}, "base"))
    assert (frieren.license, frieren.non_commercial) == ("other", False)
    assert "not stated" in frieren.reasons[0]
    assert card_licence([*world, *scorer_weights(["my.package:Judge"], "judge")]).license == "other"
    assert scorer_weights(["world_sync", "pesq", "onset"], "judge") == []
    assert card_licence([WeightUse("a", "b", "LTX-2 Community License")]).license == "other"


def test_the_cards_licence_is_that_of_the_judges_behind_the_pairs(trained: Workspace, tmp_path: Path) -> None:
    copy = Workspace(shutil.copytree(trained.root, tmp_path / "w"))
    clean = save_pretrained(copy.run_folder("full"), tmp_path / "clean")
    assert head_of(clean)["license"] == "apache-2.0"
    fit_of(copy, "world_sync/desync_s", "imagebind/similarity")
    limited = save_pretrained(copy.run_folder("full"), tmp_path / "limited")
    head, text = head_of(limited), (limited / "README.md").read_text()
    assert (head["license"], head["license_name"]) == ("other", "non-commercial-see-card")
    assert "imagebind_huge.pth: CC-BY-NC-SA-4.0" in text
    assert "allows none either" in text
    assert json.loads((limited / "config.json").read_text())["non_commercial"] is True
    # tuned on from there, from the folder: what was behind it stays behind it
    run = run_by_hand(tmp_path, "mmaudio-small-16k")
    settings = json.loads((run / "settings.json").read_text())
    settings["model"] = {"name": "world", "weights": str(limited / "model.safetensors")}
    (run / "settings.json").write_text(json.dumps(settings))
    assert any("imagebind" in one.weight for one in read_run(run).used)


def test_who_decided_is_found_or_said_to_be_unknown(trained: Workspace, tmp_path: Path) -> None:
    copy = Workspace(shutil.copytree(trained.root, tmp_path / "w"))
    run = copy.run_folder("full")

    def unknown() -> list[str]:
        return [one.licence for one in read_run(run).used if one.licence.startswith("not known")]

    assert unknown() == []
    report = json.loads((copy.root / "pairs.json").read_text())
    (copy.root / "pairs.json").write_text(json.dumps(report | {"audioscore": "another"}))
    assert unknown() == ["not known: the fit behind the pairs was made again"]
    (copy.root / "pairs.json").unlink()
    assert unknown() == ["not known: the fit behind the pairs is gone"]
    gone = ["not known: the fit behind the pairs is gone"]
    sources = {"human": [], "shift": [], "round2-x": gone, "bought": ["not known: imported"]}
    for source, wanted in sources.items():
        pairs = [replace(pair, source=source) for pair in trained.read(Pair)]
        copy.replace_table(Pair, pairs)
        settings = json.loads((run / "settings.json").read_text()) | {"pair_sources": [source]}
        (run / "settings.json").write_text(json.dumps(settings))
        assert unknown() == wanted, source
    copy.replace_table(Pair, pairs[:2])  # no longer what the run learned from
    assert unknown() == ["not known: the run's data is not there"]


def test_the_judges_behind_a_reward_count_and_those_that_ended_a_run(
    trained: Workspace, tmp_path: Path
) -> None:
    copy = Workspace(shutil.copytree(trained.root, tmp_path / "w"))
    run = copy.run_folder("full")
    score = fit_of(copy, "clap/similarity")
    changes: dict[str, Any] = {"objective": "nft", "watch": ["imagebind/similarity"]}
    (run / "settings.json").write_text(settings_of("full", **changes).model_dump_json())
    result = json.loads((run / "result.json").read_text())
    result["identity"]["reward"] = score.version
    (run / "result.json").write_text(json.dumps(result))
    weights = {one.weight for one in read_run(run).used}
    assert "music_speech_audioset_epoch_15_esc_89.98.pt" in weights
    assert "imagebind_huge.pth" not in weights
    limit = {"falls_by": {"eval/watch/imagebind/similarity": 0.1}}
    (run / "settings.json").write_text(settings_of("full", **changes, stop=limit).model_dump_json())
    assert card_licence(read_run(run).used).non_commercial


def test_a_run_away_from_its_workspace_promises_nothing(tmp_path: Path) -> None:
    folder = save_pretrained(run_by_hand(tmp_path, "mmaudio-small-16k"), tmp_path / "out")
    head, text = head_of(folder), (folder / "README.md").read_text()
    assert head["license"] == "other"
    assert head["base_model"] == "hkchengrex/MMAudio"
    assert head["base_model_relation"] == "finetune"
    assert "not known: the run's data is not there" in text
    assert "apple-amlr" in text
    everything = text + (folder / "config.json").read_text()
    assert "/secret" not in everything
    assert str(tmp_path) not in everything


def test_the_card_tells_data_and_the_recipe(trained: Workspace, saved: Path) -> None:
    text = (saved / "README.md").read_text()
    assert "3 clips, 6 candidates; 1 clips held out" in text
    assert "3 pairs: 3 `auto`" in text
    assert "`eval/rewards/accuracies`" in text
    assert "accuracies/t0" not in text
    assert str(trained.root) not in text + (saved / "config.json").read_text()
    block = text.split("```yaml\n")[1].split("```")[0]
    assert TrainSettings.model_validate(yaml.safe_load(block)) == settings_of("full")
    config = json.loads((saved / "config.json").read_text())
    assert config["base"]["fingerprint"] in text
    assert config["training"]["objective"]["name"] == "flow_dpo"


def test_the_whole_recipe_is_in_the_card_of_a_run_that_it_made(trained: Workspace, tmp_path: Path) -> None:
    copy = Workspace(shutil.copytree(trained.root, tmp_path / "w"))
    recipe = resolve("world_demo")
    recipe = recipe.model_copy(
        update={"ingest": recipe.ingest.model_copy(update={"folder": tmp_path / "videos"})}
    )
    (copy.root / "recipe.yaml").write_text(dump(recipe))
    run = copy.run_folder("full")
    assert "recipe.yaml" not in (save_pretrained(run, tmp_path / "out") / "README.md").read_text()
    name = next(iter(recipe.final_runs().values()))[0].run_name
    (run / "settings.json").write_text(settings_of(name).model_dump_json())
    text = (save_pretrained(run, tmp_path / "out") / "README.md").read_text()
    assert str(tmp_path) not in text
    block = yaml.safe_load(text.split("```yaml\n")[2].split("```")[0])
    assert block == without_places(recipe.model_dump(mode="json"))
    assert block["ingest"]["folder"] == "PATH"
    assert Recipe.model_validate(block).train == recipe.train


def evaluated(workspace: Workspace, run: str, label: str, name: str, base_row: str = "base") -> None:
    """An evaluation of one made-up metric, of the base and of a run."""
    tuned = loaded_fingerprint(World(weights=str(workspace.run_folder(run) / "model.safetensors")))
    column = Column(label, "s", ("world_sync/desync_s",), False, False, "*", {"name": "mean"})
    base = Cell(0.5, 0.4, 0.6, 20, 0, (0.5,), None)
    difference = Difference(-0.2, -0.3, -0.1, 20, -40.0, -60.0, -20.0)
    cell = Cell(0.3, 0.2, 0.4, 20, 0, (0.31, 0.29), difference)
    rows = (
        SystemRow(base_row, ("base-weights",), 4.5, 20, (base,)),
        SystemRow(label, ("another", tuned), 4.5, 20, (cell,)),
    )
    settings = {"split": HOSTILE, "solver": "euler", "num_steps": 25}
    save_evaluation(workspace, Evaluation(name, base_row, (column,), rows, (), (), {}, settings))


def test_metrics_are_in_the_card_with_their_intervals(trained: Workspace, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    copy = Workspace(shutil.copytree(trained.root, tmp_path / "w"))
    evaluated(copy, "full", "DeSync", "first")
    folder = save_pretrained(copy.run_folder("full"), tmp_path / "out")
    (result,) = head_of(folder)["model-index"][0]["results"]
    (metric,) = result["metrics"]
    assert metric["value"] == 0.29  # this run's own, the second of two seeds
    assert metric["args"] == {"mean": 0.3, "low": 0.2, "high": 0.4, "clips": 20}
    line = next(line for line in (folder / "README.md").read_text().splitlines() if "DeSync (s)" in line[:20])
    assert (
        line
        == "| `DeSync (s) ↓*` | 0.500 ±0.100 (n=20) | 0.300 ±0.100 (n=20) | 0.290 | −0.200 ±0.100 better |"
    )
    found = ModelCard.load(folder / "README.md").data  # the hub's own reader
    assert found.eval_results[0].metric_value == 0.29
    assert "model-index" not in head_of(save_pretrained(copy.run_folder("lora"), tmp_path / "lora"))


def test_a_table_beside_another_row_is_shown_and_its_values_are_not_indexed_again(
    trained: Workspace, tmp_path: Path
) -> None:
    copy = Workspace(shutil.copytree(trained.root, tmp_path / "w"))
    evaluated(copy, "full", "DeSync", "first")
    evaluated(copy, "full", "DeSync", "second", base_row="sft")
    folder = save_pretrained(copy.run_folder("full"), tmp_path / "out")
    (result,) = head_of(folder)["model-index"][0]["results"]
    assert result["dataset"]["name"] == "first"
    heads = [x for x in (folder / "README.md").read_text().splitlines() if x.startswith("| metric")]
    assert [x.split("|")[-2].strip() for x in heads] == [
        "difference to `base`, paired",
        "difference to `sft`, paired",
    ]


@pytest.mark.parametrize(("model", "given"), [("world", "VIDEO.mp4"), ("world_joint", "--prompt ")])
def test_the_card_of_a_joint_model_asks_for_a_prompt_and_not_for_a_video(
    tmp_path: Path, model: str, given: str
) -> None:
    run = run_by_hand(tmp_path, "mmaudio-small-16k")
    (run / "settings.json").write_text(settings_of("byhand", model=model).model_dump_json())
    folder = save_pretrained(run, tmp_path / "out")
    assert f"foleypref generate {given}" in (folder / "README.md").read_text()


def test_what_people_typed_is_shown_and_not_obeyed(trained: Workspace, tmp_path: Path) -> None:
    copy = Workspace(shutil.copytree(trained.root, tmp_path / "w"))
    evaluated(copy, "full", HOSTILE, "first")
    told = read_run(copy.run_folder("full"))
    told = replace(told, settings=told.settings.model_copy(update={"run_name": HOSTILE}))
    assert told.data is not None
    told = replace(
        told,
        data=replace(told.data, pairs={HOSTILE: 3}),
        used=[*told.used, WeightUse(HOSTILE, HOSTILE, HOSTILE)],
    )
    config = layout.read_config(save_pretrained(copy.run_folder("full"), tmp_path / "out"))
    text = model_card(told, config)
    head = read_front_matter(text)
    assert head["license"] == "other"  # a weight of unknown terms
    assert "\n---" not in head["model-index"][0]["name"]
    assert "\u202e" not in text.split("```yaml")[0]
    body = text.split("\n---\n", 1)[1]
    spans = _outside_code(body)
    assert "<script>" not in "".join(spans)
    assert "![](" not in "".join(spans)
    rows = [line for line in body.splitlines() if line.startswith("|") and "script" in line]
    assert rows
    for line in rows:
        assert "\\|" in line  # the bar is no new cell


def _outside_code(text: str) -> list[str]:
    """What of Markdown is neither in a fence nor in a code span, by CommonMark's rule of equal runs."""
    found, index = [], 0
    while index < len(text):
        if text[index] != "`":
            found.append(text[index])
            index += 1
            continue
        end = index
        while end < len(text) and text[end] == "`":
            end += 1
        run = text[index:end]
        close = end
        while True:
            close = text.find(run, close)
            if close < 0:
                raise AssertionError(f"a run of {len(run)} backticks is never closed")
            after = close + len(run)
            if text[close - 1] != "`" and text[after : after + 1] != "`":
                break
            close = after
        index = close + len(run)
    return found


def test_markdown_helpers() -> None:
    assert code("a`b") == "``a`b``"
    assert code("`a") == "`` `a ``"
    assert code("\n") == "(empty)"
    assert fenced("```\nx", "yaml") == "````yaml\n```\nx\n````"
    assert table(("a",), [("x|y\nz",)]) == "| a |\n| --- |\n| x\\|y z |"
    assert read_front_matter(front_matter({"a": "x\n---\ny: 1", "b": ["---"]}) + "\n\nbody") == {
        "a": "x --- y: 1",
        "b": ["---"],
    }
    for text in ("no head", "---\n- a\n---\n", "---\na: [\n---\n"):
        with pytest.raises(ValueError, match="YAML head"):
            read_front_matter(text)
