"""Shapes in annotations are checked while tests run: what torch would broadcast without a word is refused."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import jaxtyping
import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from foleypref.evaluation.metrics.frechet import frechet_distance
from foleypref.evaluation.metrics.kl import kl_divergence
from foleypref.flow import convention as flow
from foleypref.networks.spectral import LogMel
from foleypref.networks.world_dit import WorldDiT
from foleypref.networks.world_towers import SceneTower
from foleypref.training.objectives._pairs import PairBatch, pack
from foleypref.training.objectives.flow_dpo import contrast
from tests import shapes

MODULES = shapes.annotated_modules()


def audio(batch: int, frames: int = 5) -> flow.Latents:
    return {"audio": torch.zeros(batch, frames, 3)}


def pairs_of(times: int, errors: int) -> PairBatch:
    return PairBatch(
        pairs=[],
        chosen=audio(2),
        rejected=audio(2),
        x0=audio(2),
        t=torch.zeros(times),
        conditions={},
        groups=[],
        reference_errors={"audio": torch.zeros(errors)},
    )


def velocity(motion_frames: int, out: int = 3) -> torch.Tensor:
    network = WorldDiT(latent_dim=3, cond_dim=4, width=8, depth=1, heads=2)
    network.out = nn.Linear(8, out)
    scene, motion, text = torch.zeros(2, 9, 4), torch.zeros(2, motion_frames, 4), torch.zeros(2, 4)
    return network(torch.zeros(2, 5, 3), torch.zeros(2), scene, motion, text)


RIGHT: dict[str, Callable[[], Any]] = {
    "interpolate": lambda: flow.interpolate(audio(2), audio(2), torch.zeros(2)),
    "modalities of other rows": lambda: flow.guide(
        {**audio(2), "video": torch.zeros(2, 4)}, {**audio(2), "video": torch.zeros(2, 4)}, 2.0
    ),
    "squared_error": lambda: flow.squared_error(torch.zeros(2, 5, 3), torch.zeros(2, 5, 3).bfloat16()),
    "contrast": lambda: contrast(torch.zeros(4), torch.zeros(4), 1.0),
    "PairBatch": lambda: pairs_of(2, 4),
    "WorldDiT": lambda: velocity(5),
    "frechet_distance": lambda: frechet_distance(np.eye(4, 3), np.eye(5, 3)),
}
WRONG: dict[str, Callable[[], Any]] = {
    "one time for a batch of two": lambda: flow.interpolate(audio(2), audio(2), torch.zeros(1)),
    "one noise for two rows": lambda: flow.interpolate(audio(1), audio(2), torch.zeros(2)),
    "the second modality": lambda: flow.guide(
        {**audio(2), "video": torch.zeros(1, 4)}, {**audio(2), "video": torch.zeros(2, 4)}, 2.0
    ),
    "one frame against five": lambda: flow.squared_error(torch.zeros(2, 5, 3), torch.zeros(2, 1, 3)),
    "integers": lambda: flow.squared_error(torch.zeros(2, 5).long(), torch.zeros(2, 5).long()),
    "a velocity of one row": lambda: flow.integrate(lambda x, t: audio(1), audio(2), 1),
    "one error against four": lambda: contrast(torch.zeros(4), torch.zeros(1), 1.0),
    "errors that are no vector": lambda: contrast(torch.zeros(4, 3), torch.zeros(4, 3), 1.0),
    "odd errors": lambda: contrast(torch.zeros(3), torch.zeros(3), 1.0),
    "pack of unequal batches": lambda: pack(audio(2), audio(3)),
    "one time for two pairs": lambda: pairs_of(1, 4),
    "an error a pair, not two": lambda: pairs_of(2, 2),
    "one frame of motion": lambda: velocity(1),
    "a wave without a batch": lambda: LogMel()(torch.zeros(1600)),
    "channels first": lambda: SceneTower()(torch.zeros(2, 9, 3, 48, 48, dtype=torch.uint8)),
    "frames as floats": lambda: SceneTower()(torch.zeros(2, 9, 48, 48, 3)),
    "a vector of features": lambda: frechet_distance(np.zeros(4), np.zeros(4)),
    "one row of logits": lambda: kl_divergence(np.zeros((5, 4)), np.zeros((1, 4))),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_shapes_pass(name: str) -> None:
    RIGHT[name]()


@pytest.mark.parametrize("name", WRONG)
def test_wrong_shapes_are_refused(name: str) -> None:
    with pytest.raises(TypeCheckError):
        WRONG[name]()


def test_a_wrong_result_is_refused() -> None:
    with pytest.raises(TypeCheckError, match=r"return value of foleypref\.networks\.world_dit\.WorldDiT"):
        velocity(5, out=2)


def test_without_the_check_torch_says_nothing() -> None:
    loose = inspect.unwrap(flow.squared_error)(torch.ones(2, 5, 3), torch.zeros(2, 1, 3))
    assert loose.shape == (2,)


def test_no_module_with_shapes_is_left_out() -> None:
    mention = [p for p in shapes.PACKAGE.rglob("*.py") if "jaxtyping" in p.read_text("utf-8")]
    assert sorted(shapes.module_name(p) for p in mention) == MODULES
    assert "foleypref.flow.convention" in MODULES


@pytest.mark.parametrize("name", MODULES)
def test_every_shape_of_a_module_is_checked(name: str) -> None:
    found = list(functions(importlib.import_module(name)))
    annotated = [f for f in found if any(shapes.has_shape(hint) for hint in hints_of(f).values())]
    assert annotated, f"{name} imports jaxtyping and annotates no function or dataclass with it"
    for function in annotated:
        assert is_checked(function), f"{name}: {function.__qualname__} was imported before the hook"


def functions(module: ModuleType) -> Iterator[Callable[..., Any]]:
    """Functions and methods that stand in a module, and what makes its dataclasses."""
    classes = [v for v in vars(module).values() if inspect.isclass(v) and v.__module__ == module.__name__]
    members = [plain(member) for scope in (module, *classes) for member in vars(scope).values()]
    for function in filter(inspect.isfunction, members):
        if inspect.unwrap(function).__code__.co_filename == module.__file__:
            yield function
    yield from (c.__init__ for c in classes if dataclasses.is_dataclass(c))


def plain(member: Any) -> Any:
    """The function in a property, class method or static method."""
    return getattr(member, "fget", None) or getattr(member, "__func__", member)


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations as types; fails where a name is not there at run time, as the check would be lost."""
    return get_type_hints(inspect.unwrap(function), include_extras=True)


def is_checked(function: Any) -> bool:
    """Whether jaxtyping's wrapper is one of those around a function."""
    home = Path(jaxtyping.__file__).parent
    while function is not None:
        if Path(function.__code__.co_filename).is_relative_to(home):
            return True
        function = getattr(function, "__wrapped__", None)
    return False
