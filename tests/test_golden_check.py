"""The golden checker: what it compares, what it prints, and that it fails when it should."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.golden import check
from tests.golden.compare import relative_error

FOLDER = Path(check.__file__).parent


def doubled(path: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """A check of the form that the real ones have: it doubles `in` and expects `out`."""
    stored = load_file(path)
    yield "out", stored["in"] * 2, stored["out"]
    yield "count", torch.tensor(stored["in"].numel()), stored["count"]


CHECKS: list[tuple[str, check.Check]] = [("double_*.safetensors", doubled)]


def write(path: Path, scale: float, count: int = 12) -> None:
    tensor = torch.arange(1.0, 13).reshape(3, 4)
    save_file({"in": tensor, "out": tensor * scale, "count": torch.tensor(count)}, path)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "load_checks", lambda *_: (CHECKS, {}))


# ---- the comparison


def test_the_error_is_relative_to_the_largest_expected_value() -> None:
    expected = torch.tensor([1.0, -4.0, 0.0])
    assert relative_error(expected, expected) == 0.0
    assert relative_error(torch.tensor([1.0, -4.0, 0.5]), expected) == 0.5 / 4
    assert relative_error(torch.tensor([1.0, -4.0, 0.5]).half(), expected) == 0.5 / 4
    both = torch.tensor([1 + 2j, 0])
    assert relative_error(both + 1, both) == pytest.approx(1 / 5**0.5)
    # float32 would round this difference away
    assert relative_error(torch.tensor([1e8 + 1], dtype=torch.float64), torch.tensor([1e8])) == 1e-8


def test_integers_and_bools_are_equal_or_infinitely_wrong() -> None:
    assert relative_error(torch.tensor([1, 2]), torch.tensor([1, 2], dtype=torch.int32)) == 0.0
    assert relative_error(torch.tensor([1000, 2]), torch.tensor([1001, 2])) == float("inf")
    assert relative_error(torch.tensor([True]), torch.tensor([False])) == float("inf")


def test_shapes_and_kinds_must_be_equal() -> None:
    for ours, expected in [
        (torch.zeros(3), torch.zeros(1, 3)),
        (torch.zeros(1), torch.zeros(3)),  # would broadcast
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, dtype=torch.bool), torch.zeros(3, dtype=torch.uint8)),
    ]:
        with pytest.raises(ValueError, match=r"^(shape|dtype) .*, expected "):
            relative_error(ours, expected)


def test_what_is_not_finite_must_stand_in_the_same_places() -> None:
    nan, inf = float("nan"), float("inf")
    expected = torch.tensor([1.0, nan, inf, -inf])
    assert relative_error(expected.clone(), expected) == 0.0
    for ours in ([1.0, nan, inf, inf], [nan, 1.0, inf, -inf], [1.0, nan, 5.0, -inf], [nan, nan, nan, nan]):
        assert relative_error(torch.tensor(ours), expected) == inf
    assert relative_error(torch.full((4,), nan), torch.ones(4)) == inf
    assert relative_error(torch.full((1,), inf), torch.full((1,), nan)) == inf


def test_zeros_are_met_by_zeros_alone() -> None:
    assert relative_error(torch.zeros(3), torch.zeros(3)) == 0.0
    assert relative_error(torch.full((3,), 1e-30), torch.zeros(3)) == float("inf")
    assert relative_error(torch.zeros(0, 2), torch.zeros(0, 2)) == 0.0


# ---- the report


def test_a_line_a_file_and_exit_code_1_if_one_fails(
    fakes: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "double_good.safetensors", 2.0)
    write(tmp_path / "double_near.safetensors", 2.0 + 1e-5)  # wrong by 5e-6 of the largest
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "double_index.json").write_text("{}")
    assert check.main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "double_good.safetensors   0.00e+00  ok"
    assert lines[1].split() == ["double_near.safetensors", lines[1].split()[1], "ok"]
    assert 4e-6 < float(lines[1].split()[1]) < 6e-6
    assert lines[2].split() == ["other.safetensors", "-", "skipped", "(no", "check)"]
    assert lines[3:] == ["2 ok, 0 failed, 1 skipped; limit 1e-05"]

    assert check.main([str(tmp_path), "--limit", "1e-6"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("FAIL")
    assert lines[2].split()[1] == "out"  # which quantity it was
    assert lines[-1] == "1 ok, 1 failed, 1 skipped; limit 1e-06"


def test_what_goes_wrong_in_a_check_is_a_failure_with_its_reason(
    fakes: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "double_count.safetensors", 2.0, count=11)
    save_file({"in": torch.zeros(2)}, tmp_path / "double_keys.safetensors")
    save_file({"in": torch.zeros(2), "out": torch.zeros(3)}, tmp_path / "double_shape.safetensors")
    (tmp_path / "double_torn.safetensors").write_bytes(b"no tensors")
    assert check.main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["double_count.safetensors", "inf", "FAIL"]
    assert lines[1].split() == ["inf", "count"]
    assert "FAIL: KeyError: 'out'" in lines[2]
    assert "FAIL: ValueError: out: shape (2,), expected (3,)" in lines[3]
    assert "FAIL: SafetensorError" in lines[4]
    assert len(lines) == 6


def test_a_check_that_compares_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "load_checks", lambda *_: ([("double_*", lambda _: iter(()))], {}))
    write(tmp_path / "double_good.safetensors", 2.0)
    assert check.main([str(tmp_path)]) == 1
    assert "compared nothing" in capsys.readouterr().out


def test_a_module_that_does_not_import_fails_and_the_others_still_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_checks"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "check_good.py").write_text("CHECKS = {'a*': lambda path: iter(())}")
    (package / "check_bad.py").write_text("import no_such_module")
    (package / "check_empty.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    checks, broken = check.load_checks(package, "some_checks")
    assert [pattern for pattern, _ in checks] == ["a*"]
    assert "no_such_module" in broken["check_bad.py"]
    assert "CHECKS" in broken["check_empty.py"]
    monkeypatch.setattr(check, "load_checks", lambda *_: (CHECKS, broken))
    write(tmp_path / "double_good.safetensors", 2.0)
    assert check.main([str(tmp_path)]) == 1


def test_nothing_to_check_is_exit_code_2(
    fakes: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, words in [(tmp_path / "none", "no such folder"), (tmp_path, "no file in it has a check")]:
        assert check.main([str(folder)]) == 2
        assert words in capsys.readouterr().err


def test_every_module_of_checks_imports() -> None:
    checks, broken = check.load_checks(FOLDER, "tests.golden")
    assert broken == {}
    assert len(checks) >= len(list(FOLDER.glob("check_*.py")))
    for _, function in checks:
        assert callable(function)


def test_the_script_runs_from_anywhere(tmp_path: Path) -> None:
    script = [sys.executable, str(FOLDER / "check.py")]
    result = subprocess.run([*script, "nowhere"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2, result.stderr
    assert result.stderr == "check.py: nowhere: no such folder; give a folder of golden files\n"
