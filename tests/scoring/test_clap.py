"""Both CLAPs as scorers: golden numbers, tokens from files, similarities; the traps of each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import GPT2Tokenizer, RobertaTokenizer

from foleypref.published import clap, msclap, text_tokens
from foleypref.published.clap import build_clap, roberta_ids, ten_seconds
from foleypref.published.msclap import build_msclap, gpt2_ids, msclap_wave
from foleypref.published.places import MissingWeights
from foleypref.published.taggers import benchmark_wave
from foleypref.published.text_tokens import GPT2, ROBERTA, ByteLevelTokens, Vocabulary, load_tokens
from foleypref.scoring.scorers import ScoreItem
from foleypref.scoring.scorers.clap import Clap
from foleypref.scoring.scorers.msclap import MsClap
from tests.golden import check_clap as checks
from tests.golden import recipes
from tests.golden.compare import LIMIT, relative_error
from tests.judged import judged, scores_of
from tests.published.test_clap_networks import SMALL, microsoft_state

GOLDEN = Path(__file__).parents[1] / "golden"
MERGES = [("Ġ", "d"), ("o", "g"), ("Ġd", "og"), ("b", "a"), ("r", "k"), ("ba", "rk"), ("bark", "s")]


# -- golden vectors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scorers_clap.safetensors", "scorers_clap.json"])
def test_golden_numbers(name: str) -> None:
    errors = {
        key: relative_error(ours, expected) for key, ours, expected in checks.CHECKS[name](GOLDEN / name)
    }
    assert max(errors.values()) <= LIMIT, errors


# -- tokens ----------------------------------------------------------------------------------------------


def write_vocabulary(folder: Path, vocabulary: Vocabulary, size: int | None = None) -> dict[str, int]:
    """Bytes, some merges, special tokens where the published files have them, and fillers up to `size`."""
    plain = [*sorted(ByteLevel.alphabet()), *(first + second for first, second in MERGES)]
    size = vocabulary.size if size is None else size
    head, tail = (
        ((*vocabulary.special[:4],), vocabulary.special[4:])
        if vocabulary is ROBERTA
        else ((), vocabulary.special)
    )
    filler = [f"madeup{n}" for n in range(size - len(head) - len(plain) - len(tail))]
    vocab = {token: index for index, token in enumerate([*head, *plain, *filler, *tail])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab), "utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES), ""]
    (folder / "merges.txt").write_text("\n".join(lines), "utf-8")
    return vocab


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_vocabulary(folder / "roberta-base", ROBERTA)
    write_vocabulary(folder / "gpt2", GPT2)
    return folder


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("FOLEYPREF_WEIGHTS", raising=False)
    return tmp_path


TEXTS = (
    "dog barks",
    "A dog barks!",
    "it's 10 dogs,  barking\nloudly ",
    "naïve 犬",
    "a <s> dog </s> barks",
    "end <|endoftext|> here",
    "",
)


def test_tokens_are_those_of_transformers(weights: Path) -> None:
    roberta = RobertaTokenizer.from_pretrained(str(weights / "roberta-base"))
    gpt2 = GPT2Tokenizer.from_pretrained(str(weights / "gpt2"))
    ours, others = load_tokens(ROBERTA, weights), load_tokens(GPT2, weights)
    for text in TEXTS:
        assert ours.encode(text) == roberta(text, add_special_tokens=False)["input_ids"], text
        assert others.encode(text) == gpt2(text)["input_ids"], text
    padded = roberta(list(TEXTS), padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    assert torch.equal(roberta_ids(ours, TEXTS), padded["input_ids"])


def test_a_long_text_is_cut_before_its_end(weights: Path) -> None:
    roberta, gpt2 = load_tokens(ROBERTA, weights), load_tokens(GPT2, weights)
    long = "dog " * 100
    ids = roberta_ids(roberta, [long])[0]
    assert ids[[0, -1]].tolist() == [clap.START, clap.END]
    assert ids[1:-1].tolist() == roberta.encode(long)[:75]
    ids = gpt2_ids(gpt2, [long])[0]
    assert ids.tolist() == [*gpt2.encode(long)[:76], gpt2.vocab["<|endoftext|>"]]
    row = gpt2_ids(gpt2, ["dog"])[0]
    space, end = gpt2.vocab["Ġ"], gpt2.vocab["<|endoftext|>"]
    assert row[row.nonzero()][-2:, 0].tolist() == [space, end]  # the space is a token
    assert row[5:].sum() == 0


def test_without_files_there_is_an_error_and_no_empty_tokenizer(no_hub: Path) -> None:
    """Trap: RobertaTokenizer of transformers 5 is empty then, and every text the same two ids."""
    with pytest.raises(MissingWeights, match=r"no vocab.json and merges.txt in .*roberta-base.*hf download"):
        load_tokens(ROBERTA, no_hub)
    write_vocabulary(no_hub / "gpt2", GPT2)
    (no_hub / "gpt2" / "merges.txt").unlink()
    with pytest.raises(MissingWeights, match=r"found no merges.txt in .*gpt2"):
        load_tokens(GPT2, no_hub)


def test_another_vocabulary_is_refused(no_hub: Path) -> None:
    write_vocabulary(no_hub / "roberta-base", ROBERTA, size=400)
    with pytest.raises(ValueError, match=r"vocab.json has 400 entries, roberta-base has 50265"):
        load_tokens(ROBERTA, no_hub)
    (no_hub / "roberta-base" / "vocab.json").write_text("{", "utf-8")
    with pytest.raises(ValueError, match="does not read"):
        load_tokens(ROBERTA, no_hub)
    with pytest.raises(ValueError, match=r"first \['xy', '<s>'\]"):
        ByteLevelTokens({"x": 0, "y": 1}, [("x", "y")], ("<s>",))


def test_tokens_are_found_in_the_hubs_cache(no_hub: Path) -> None:
    base = no_hub / "hub" / "models--FacebookAI--roberta-base"
    write_vocabulary(base / "snapshots" / "0ld", ROBERTA, size=400)
    write_vocabulary(base / "snapshots" / "ne3", ROBERTA)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text("ne3")
    assert len(load_tokens(ROBERTA, no_hub / "nothing").vocab) == ROBERTA.size


# -- the scorers -----------------------------------------------------------------------------------------


def item(
    name: str, seed: int, prompt: str = "dog barks", rate: int = 48000, seconds: float = 2.0
) -> ScoreItem:
    return ScoreItem(name, recipes.wave(seconds, rate, seed, 200.0 + 90 * seed).numpy(), rate, prompt)


@pytest.fixture(scope="module")
def files(weights: Path) -> Path:
    """Checkpoints as published, but small, under names of a user's own."""
    state = checks.official_state(*SMALL, vocabulary=ROBERTA.size)
    wrapped = {f"module.{name}": value for name, value in state.items()}
    wrapped["module.text_branch.embeddings.position_ids"] = torch.arange(80)[None]
    torch.save({"epoch": 15, "name": "htsat", "state_dict": wrapped}, weights / "laion.pt")
    torch.save({"model": microsoft_state(GPT2.size, 1024)}, weights / "microsoft.pth")
    return weights


@pytest.fixture(scope="module")
def laion(files: Path) -> Clap:
    return Clap(weights=str(files / "laion.pt"), weights_folder=str(files)).load()


@pytest.fixture(scope="module")
def microsoft(files: Path) -> MsClap:
    return MsClap(weights=str(files / "microsoft.pth"), weights_folder=str(files)).load()


@pytest.fixture(params=["laion", "microsoft"])
def scorer(request: pytest.FixtureRequest) -> Clap | MsClap:
    return request.getfixturevalue(request.param)


@torch.no_grad()
def test_the_score_is_the_cosine_of_sound_and_caption(laion: Clap, microsoft: MsClap, files: Path) -> None:
    one = item("one", 1)
    wave = torch.from_numpy(one.wave)
    model = build_clap(checks.official_state(*SMALL, vocabulary=ROBERTA.size))
    heard = model.embed_audio(ten_seconds(wave - wave.mean())[None])
    read = model.embed_text(roberta_ids(load_tokens(ROBERTA, files), ["dog barks"]))
    scores, embeddings = judged(laion, [one])
    assert scores[0].value == pytest.approx(float((heard * read).sum()), abs=1e-6)
    assert torch.allclose(embeddings["audio"], heard, atol=1e-6)

    other = build_msclap(microsoft_state(GPT2.size, 1024))
    heard = other.embed_audio(msclap_wave(wave[None], 48000)[None])
    read = other.embed_text(gpt2_ids(load_tokens(GPT2, files), ["dog barks"]))
    scores, embeddings = judged(microsoft, [one])
    assert scores[0].value == pytest.approx(float(F.cosine_similarity(heard, read)), abs=1e-6)
    assert torch.allclose(embeddings["audio"], heard, atol=1e-5)


def test_scores_do_not_depend_on_order_and_company(scorer: Clap | MsClap) -> None:
    items = [item(f"c{n}", n, ("dog barks", "a bark")[n % 2], (48000, 16000)[n % 2]) for n in range(10)]
    scores, embeddings = judged(scorer, items)
    assert [s.candidate_id for s in scores] == [i.candidate_id for i in items]
    back, reversed_rows = judged(scorer, items[::-1])
    alone, row = judged(scorer, items[3:4])
    assert [s.value for s in back[::-1]] == pytest.approx([s.value for s in scores], abs=1e-5)
    assert alone[0].value == pytest.approx(scores[3].value, abs=1e-5)
    assert torch.allclose(reversed_rows["audio"].flip(0), embeddings["audio"], atol=1e-4)
    assert torch.allclose(row["audio"][0], embeddings["audio"][3], atol=1e-4)
    assert len({round(s.value or 0, 6) for s in scores}) > 5  # neither tower is blind


def test_what_cannot_be_judged_is_unscored(scorer: Clap | MsClap) -> None:
    good = item("good", 1)
    silent = replace(good, candidate_id="silent", wave=np.zeros_like(good.wave))
    nothing = replace(good, candidate_id="nothing", wave=good.wave[:0])
    mute = replace(good, candidate_id="no caption", prompt="  ")
    scores, embeddings = judged(scorer, [silent, good, nothing, mute])
    assert [s.reason for s in scores] == ["silent", "", "silent", "no caption"]
    assert [s.value is None for s in scores] == [True, False, True, True]
    rows = embeddings["audio"]
    assert rows.isnan().any(1).tolist() == [False, False, True, False]
    assert torch.allclose(rows[1], rows[3], atol=1e-5)
    assert judged(scorer, []).scores == []
    assert {s.scorer for s in scores} == {type(scorer).part_name()}


def test_only_laions_sound_is_mixed_and_cut_to_what_is_evaluated(laion: Clap, microsoft: MsClap) -> None:
    """Traps: neither is done for Microsoft's."""
    first, second = item("c", 1, seconds=1.0), item("c", 2, seconds=1.0)
    both = np.stack([first.wave, second.wave])
    stereo = replace(first, wave=both.mean(0), channels=both)
    mono = replace(first, wave=both.mean(0))
    assert scores_of(laion, [stereo])[0].value == pytest.approx(scores_of(laion, [mono])[0].value, abs=1e-6)
    joined = replace(first, wave=both.reshape(-1))
    assert scores_of(microsoft, [stereo])[0].value == pytest.approx(
        scores_of(microsoft, [joined])[0].value, abs=1e-6
    )

    long = item("c", 3, seconds=4.0)
    evaluated = replace(long, seconds=1.5)
    wave = benchmark_wave(long.sound, 48000, 48000)[: 3 * 24000]  # the mean is that of the whole
    assert laion._judge is not None
    heard = laion._judge.model.embed_audio(ten_seconds(wave)[None])
    assert torch.allclose(laion.judge([evaluated]).embeddings["audio"], heard, atol=1e-6)
    assert not torch.allclose(laion.judge([long]).embeddings["audio"], heard, atol=1e-3)
    assert torch.equal(
        microsoft.judge([evaluated]).embeddings["audio"], microsoft.judge([long]).embeddings["audio"]
    )


def test_versions_name_the_weights(laion: Clap, microsoft: MsClap, files: Path) -> None:
    assert laion.version != microsoft.version
    assert laion.version.endswith("-1")
    conversion = files / "conversion" / "model.safetensors"
    conversion.parent.mkdir(exist_ok=True)
    assert laion._judge is not None
    save_file({k: v.contiguous() for k, v in laion._judge.model.model.state_dict().items()}, conversion)
    other = Clap(weights=str(conversion.parent), weights_folder=str(files)).load()
    assert other.version != laion.version
    one = [item("one", 1)]
    assert scores_of(other, one)[0].value == pytest.approx(scores_of(laion, one)[0].value, abs=1e-6)


def test_missing_weights_are_named(no_hub: Path, files: Path) -> None:
    folder = no_hub / "weights"
    for part, name in ((Clap, clap.NAME), (MsClap, msclap.NAME)):
        with pytest.raises(MissingWeights, match=name.replace(".", r"\.")):
            _ = part(weights_folder=str(folder)).version
        with pytest.raises(MissingWeights, match="vocabulary"):
            part(weights_folder=str(folder)).load()
    for vocabulary in ("roberta-base", "gpt2"):
        (folder / vocabulary).mkdir(parents=True)
        for name in text_tokens.FILES:
            (folder / vocabulary / name).write_bytes((files / vocabulary / name).read_bytes())
    with pytest.raises(MissingWeights, match=r"weights fetch music_speech"):
        Clap(weights_folder=str(folder)).load()
    with pytest.raises(MissingWeights, match=r"hf download laion/larger_clap_general"):
        Clap(weights="laion/larger_clap_general", weights_folder=str(folder)).load()
    with pytest.raises(ValueError, match="is no file"):
        Clap(weights="nowhere/at/all.pt", weights_folder=str(folder)).load()
