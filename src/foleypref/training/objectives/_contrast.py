"""Flow-DPO's arithmetic: from errors to a loss, and how hard a loser may be pushed.

    Δ = e_policy − e_reference        logit = −β/2 · (Δ_w − Δ_l)        for one modality of one pair

    sigmoid   −(1 − ε) log σ(logit) − ε log σ(−logit)     arXiv 2305.18290; ε > 0 is conservative DPO
    ipo       (logit − 1/2)²                              arXiv 2310.12036 times β²
    hinge     max(0, 1 − logit)                           arXiv 2305.10425

IPO's own scale, (m/2 − 1/(2β))² with m = −(Δ_w − Δ_l), is the above divided by β². That is 7e-7 at β = 600,
and its gradients would vanish beside Adam's ε and the bound on the norm. Multiplied by β² it has the same
minimum (logit ½, m = 1/β) and the weight of the other two at the start, and stays finite if β goes to 0.

Letters: B pairs, n = 2B rows, chosen first, w chosen (winner), l rejected (loser).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LossType = Literal["sigmoid", "ipo", "hinge"]
BetaSchedule = Literal["constant", "t_squared"]
Scope = Literal["pair", "batch"]

INITIAL = {"sigmoid": math.log(2), "ipo": 0.25, "hinge": 1.0}
"""The loss of one modality while policy = reference."""
SATURATED_LOGIT = 3.0  # σ(−3) = 0.047 and σ′(3) = σ′(0) / 5: beyond it an item has almost no gradient left


def beta_of(beta: float | dict[str, float], modality: str, objective: str) -> float:
    """Return β of a modality. Raises a ValueError in the objective's name if a mapping leaves it out."""
    if not isinstance(beta, dict):
        return beta
    if modality not in beta:
        raise ValueError(f"{objective}: beta has {', '.join(beta)}, the model also has {modality!r}")
    return beta[modality]


class Contrast(NamedTuple):
    """The loss and the implicit rewards of one modality, each (B,)."""

    loss: Float[Tensor, " B"]
    reward_chosen: Float[Tensor, " B"]  # −(β/2) Δ_chosen
    reward_rejected: Float[Tensor, " B"]


def contrast(
    policy_error: Float[Tensor, " n"],
    reference_error: Float[Tensor, " n"],
    beta: float | Float[Tensor, " B"],
    loss_type: LossType = "sigmoid",
    label_smoothing: float = 0.0,
) -> Contrast:
    """Return the loss of packed errors (n,), n = 2B, chosen first; β is one number or one per pair."""
    delta_w, delta_l = (policy_error - reference_error).chunk(2)
    logit = -beta / 2 * (delta_w - delta_l)
    if loss_type == "ipo":
        loss = (logit - 0.5).square()
    elif loss_type == "hinge":
        loss = F.relu(1 - logit)
    else:
        loss = F.softplus(-logit)  # softplus(−x) = −log σ(x), finite for every x
        if label_smoothing:
            loss = (1 - label_smoothing) * loss + label_smoothing * F.softplus(logit)
    return Contrast(loss, -beta / 2 * delta_w, -beta / 2 * delta_l)


def gradient_factor(
    logit: Float[Tensor, " B"], loss_type: LossType, label_smoothing: float
) -> Float[Tensor, " B"]:
    """Return −∂loss/∂logit: how hard a pair is still pushed; below 0 it is pushed back."""
    if loss_type == "ipo":
        return 1 - 2 * logit
    if loss_type == "hinge":
        return (logit < 1).float()
    return torch.sigmoid(-logit) - label_smoothing


def beta_at(beta: float, t: Float[Tensor, " B"], schedule: BetaSchedule) -> float | Float[Tensor, " B"]:
    """Return β(t): constant, or β t².

    VideoAlign (arXiv 2501.13918) derives the latter as β (1 − t)², with t = 1 as noise, but trains with a
    constant β, which did better.
    """
    return beta if schedule == "constant" else beta * t.square()


def loser_scale(residual: Float[Tensor, " n *row"], mu: float, scope: Scope) -> Float[Tensor, " n//2"]:
    """Return λ of Diffusion-SDPO (arXiv 2511.03317) from the residuals ρ = v_θ − v (n, ...), chosen first.

    λ = 1 if ⟨ρ_w, ρ_l⟩ ≤ 0, else min(1, (1 − μ) ‖ρ_w‖² / ⟨ρ_w, ρ_l⟩). A step down g_w − λ g_l in the space of
    outputs then lowers the winner's error by at least μ ‖g_w‖², to first order, while the loss widens the
    margin (past its target, IPO narrows it). Scope "batch" sums both products over the rows before dividing.
    """
    winner, loser = residual.detach().float().flatten(1).chunk(2)
    aligned, own = (winner * loser).sum(1), winner.square().sum(1)  # (B,)
    if scope == "batch":
        aligned, own = (value.sum().expand(len(value)) for value in (aligned, own))
    return torch.where(aligned > 0, ((1 - mu) * own / aligned).clamp(max=1), torch.ones_like(own))


def with_scaled_loser(error: Float[Tensor, " n"], scale: Float[Tensor, " n//2"]) -> Float[Tensor, " n"]:
    """Return the same errors, but multiply the gradient of the losers' half by `scale`."""
    winner, loser = error.chunk(2)
    constant = loser.detach()
    return torch.cat([winner, constant + scale * (loser - constant)])
