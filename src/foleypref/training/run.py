"""A training run in progress: its networks and its data, and how it starts or goes on from its folder."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch.optim.swa_utils import AveragedModel

from foleypref.media.files import write_atomic
from foleypref.models.backbones import Model
from foleypref.models.lora import load_trained_state, trained_state
from foleypref.models.sharding import is_sharded, load_optimizer_state
from foleypref.models.tools import fingerprint_of, with_network
from foleypref.training import checkpoints
from foleypref.training.context import make_context, make_rule_pairs
from foleypref.training.data import TrainData
from foleypref.training.log import Meter, RunLog, read_metrics
from foleypref.training.networks import average, make_optimizer, prepare_networks, shard_networks
from foleypref.training.objectives import Objective, StatefulObjective, TrainContext
from foleypref.training.reference_errors import HasReferenceErrors, ReferenceErrors
from foleypref.training.reward import Reward
from foleypref.training.rules import RulePairs
from foleypref.training.settings import TrainSettings
from foleypref.training.stopping import Verdict, check_limits, judge, keep, kept_path, kept_steps
from foleypref.workspace.paths import RunFiles
from foleypref.workspace.records import digest
from foleypref.workspace.store import Workspace
from foleypref.workspace.walk import say


@dataclass
class Run:
    """A run in progress: `bare` and `policy` are views of one network, `policy` behind the DDP wrapper."""

    settings: TrainSettings
    objective: Objective  # a copy: it may remember things, and runs share nothing
    folder: Path
    accelerator: Accelerator
    context: TrainContext
    held_out: TrainContext
    bare: Model
    policy: Model
    reference: Model | None
    errors: ReferenceErrors | None  # the reference's, where they are precomputed
    optimizer: torch.optim.Optimizer
    ema: AveragedModel | None
    identity: dict[str, Any]  # must not change under a run
    held_out_id: str
    meter: Meter = field(default_factory=Meter)
    step: int = 0  # steps done
    verdict: Verdict = field(default_factory=Verdict)  # whether a held-out number ends it
    log: RunLog | None = None  # of process 0

    def autocast(self) -> torch.autocast:
        """bf16 where asked for, the same for policy and reference."""
        return torch.autocast(self.context.device.type, torch.bfloat16, enabled=self.settings.bf16)

    def due(self, every: int) -> bool:
        """Whether something done every so many steps, and after the last, is done now."""
        return self.step % every == 0 or self.step == self.settings.max_steps


def make_run(
    workspace: Workspace,
    settings: TrainSettings,
    accelerator: Accelerator,
    data: TrainData,
    held_out: TrainData,
) -> Run:
    """The run before its first step: its model loaded, its reference frozen, its data gathered."""
    objective = cast(Objective, copy.copy(settings.objective))
    bare = copy.copy(settings.model).load(accelerator.device)
    # eval() keeps dropout off, as a loss of ln 2 at policy = reference needs; gradients flow all the same
    fingerprint = fingerprint_of(bare.network.eval())
    whole, rules = data, None  # a run remembers its clips by all of them, also those that do not encode
    if settings.negatives is not None:
        clips = [*data.clips, *held_out.clips]
        rules = make_rule_pairs(workspace, bare, settings.negatives, clips, accelerator)
        data, held_out = (replace(side, clips=rules.usable(side.clips)) for side in (data, held_out))
    context = make_context(workspace, bare, settings, data + held_out, accelerator)
    if "reward" in objective.needs:
        reward = Reward(workspace, bare, settings.audioscore, accelerator.device, settings.watch)
        context = replace(context, reward=reward)
    reference = _reference(bare, settings, objective, accelerator.num_processes)
    return Run(
        settings=settings,
        objective=objective,
        folder=workspace.run_folder(settings.run_name),
        accelerator=accelerator,
        context=_side(context, data, rules),
        held_out=_side(context, held_out, rules),
        bare=bare,
        policy=bare,
        reference=reference,
        errors=None,
        optimizer=make_optimizer(bare.network, settings),
        ema=average(bare.network, settings),
        identity=_identity(whole, rules, context) | {"reference": fingerprint},
        held_out_id=digest(held_out.identity()),
    )


def _reference(
    bare: Model, settings: TrainSettings, objective: Objective, num_processes: int
) -> Model | None:
    """The frozen copy of the policy if it is needed; both cut over the processes if asked."""
    if not settings.shard_weights or num_processes == 1:
        return prepare_networks(bare, settings, objective)
    # a GPU has no room for a reference beside it; cutting brings both back, a block at a time
    bare.network.to("cpu")
    reference = prepare_networks(bare, settings, objective)
    shard_networks(settings, objective, bare, reference)
    return reference


def start(run: Run) -> None:
    """Go on from the newest checkpoint if any, and say what runs."""
    s, accelerator = run.settings, run.accelerator
    if s.precompute_reference_errors:
        run.errors = _precompute(run)
    _resume(run)
    if not is_sharded(run.bare.network):
        run.policy = with_network(run.bare, accelerator.prepare_model(run.bare.network))
    if accelerator.is_main_process:
        write_atomic(RunFiles(run.folder).settings, s.model_dump_json(indent=1).encode())
        run.log = RunLog(run.folder, run.step, s.tensorboard)
        _announce(run)


def _identity(data: TrainData, rules: RulePairs | None, context: TrainContext) -> dict[str, Any]:
    """What a run learns from; it goes on with nothing else."""
    return {
        **data.identity(),
        **({} if rules is None else {"rules": rules.identity}),
        "global_batch_size": context.global_batch_size,
        **({} if context.reward is None else {"reward": context.reward.version}),
    }


def _side(context: TrainContext, data: TrainData, rules: RulePairs | None) -> TrainContext:
    """The context of one side of the split."""
    own = None if rules is None else rules.side(data.clips)
    return replace(context, pairs=data.pairs, clips=data.clips, labels=data.labels, rules=own)


def _precompute(run: Run) -> ReferenceErrors:
    """The reference's errors of every step. The policy still is the reference: nothing is resumed yet."""
    s, objective, context = run.settings, run.objective, run.context
    if not isinstance(objective, HasReferenceErrors):
        raise ValueError(
            f"precompute_reference_errors: {s.objective.part_name()} has no errors to precompute; "
            "leave it off"
        )
    shape = [s.per_device_train_batch_size, s.gradient_accumulation_steps, context.num_processes]
    drawn: list[Any] = [objective.reference_settings(), s.curriculum.settings(), s.seed, s.max_steps]
    if s.negatives is not None:
        drawn.append(s.negatives.model_dump(mode="json"))
    key = digest(run.identity, run.held_out_id, shape, run.bare.feature_key, drawn, s.bf16)
    errors = ReferenceErrors(context.workspace.reference_errors / key, context.rank)

    def measure(batch: Any) -> dict[str, torch.Tensor]:
        with run.autocast():
            return objective.reference_errors(run.bare, batch)

    done = errors.compute(
        s.max_steps,
        lambda step: run.objective.batches(context, step, run.bare),
        lambda: run.objective.eval_batches(run.held_out, run.bare),
        measure,
    )
    if run.accelerator.is_main_process:
        say(f"reference errors: {done} steps done, {s.max_steps - done} found in {errors.folder}")
    return errors


def _resume(run: Run) -> None:
    checkpoint = checkpoints.load(run.folder)
    if checkpoint is None:
        return
    checkpoints.refuse_another(run.folder, checkpoint.identity, run.identity)
    load_trained_state(run.bare.network, checkpoint.networks["network"])
    load_optimizer_state(run.optimizer, checkpoint.optimizer)
    if run.ema is not None:
        run.ema.load_state_dict(checkpoint.networks["ema"])
    if isinstance(run.objective, StatefulObjective):
        _restore(run, run.objective, checkpoint.networks.get("objective", {}))
    if run.accelerator.is_main_process:
        run.meter.restore(checkpoint.logs)
    run.step = checkpoint.step


def objective_state(run: Run) -> dict[str, torch.Tensor]:
    """What the objective remembers, rows of all processes in the global order. Every process must call it."""
    if not isinstance(run.objective, StatefulObjective):
        return {}
    state, shared = run.objective.state(), run.objective.shared_state
    return state if shared else {key: run.context.gather(state[key]) for key in sorted(state)}


def _restore(run: Run, objective: StatefulObjective, state: dict[str, torch.Tensor]) -> None:
    own = state if objective.shared_state else {key: run.context.own(value) for key, value in state.items()}
    if own:
        objective.restore(own, run.bare)


def _announce(run: Run) -> None:
    s, context = run.settings, run.context
    size = sum(p.numel() for p in run.bare.network.parameters() if p.requires_grad)
    name, device = s.model.part_name(), context.device
    say(f"train: run {s.run_name!r}, {name} with {size:,} trained parameters on {device}")
    say(f"  {run.objective.summary(run.bare.spec)}")
    if context.pairs:
        say(f"  {context.curriculum.summary(context.pairs, s.max_steps)}")
    if context.rules is not None:
        severities = [context.curriculum.severity(step, s.max_steps) for step in (0, s.max_steps - 1)]
        say(f"  {context.rules.summary(severities, context.global_batch_size)}")
    say(f"  {_counts(context)}; held out: {_counts(run.held_out)}")
    say(f"  effective batch {context.global_batch_size}")
    if s.stop.limits():
        say(f"  {s.stop.summary()}")
    if run.step:
        say(f"  goes on after step {run.step}")


def _counts(context: TrainContext) -> str:
    return TrainData(list(context.pairs), list(context.clips), list(context.labels)).counts()


def look(run: Run) -> Verdict:
    """The verdict after an evaluation, the same on every process; the policy is kept if all is within.

    Call it too before a run goes on: it clears away what a killed run had kept of later steps.
    """
    settings = run.settings.stop
    if not settings.limits():
        return Verdict()
    said = [Verdict()]
    if run.accelerator.is_main_process:
        lines = read_metrics(run.folder)
        check_limits(settings, lines[0] if lines else {})
        said = [judge(settings, lines)]
        for step in [step for step in kept_steps(run.folder) if step > run.step]:
            kept_path(run.folder, step).unlink()
    broadcast_object_list(said)
    if said[0].kept_step == run.step and not said[0].reason:
        state = trained_state(run.bare.network if run.ema is None else run.ema.module)
        if run.accelerator.is_main_process:
            keep(run.folder, run.step, state)
    return said[0]


@torch.no_grad()
def evaluate_held_out(run: Run) -> dict[str, float]:
    """Logs on the held-out pairs under `eval/`, of the policy as it is (never of its moving average)."""
    meter = Meter()
    # the bare network: processes may hold different numbers of batches, and DDP would wait for the missing
    batches = run.objective.eval_batches(run.held_out, run.bare)
    if run.errors is not None:
        batches = run.errors.attach_held_out(batches)
    with run.autocast():
        for batch, counts in _in_step(run, batches):
            loss = run.objective.loss(run.bare, run.reference, batch)
            if counts:
                meter.add(loss.logs)
    meter.reduce()
    return {f"eval/{key}": value for key, value in meter.take().items()}


def _in_step(run: Run, batches: Iterable[Any]) -> Iterable[tuple[Any, bool]]:
    """Batches, and whether each counts: shares of a network run together, so every process does as many."""
    if not is_sharded(run.bare.network):
        return ((batch, True) for batch in batches)
    own = list(batches)
    most = int(run.accelerator.gather(torch.tensor([len(own)], device=run.context.device)).max())
    spare = own[-1:]
    if most and not own:  # fewer batches than processes: the first one has some
        spare = list(run.objective.eval_batches(replace(run.held_out, rank=0), run.bare))[:1]
    return [(batch, True) for batch in own] + [(batch, False) for batch in spare * (most - len(own))]
