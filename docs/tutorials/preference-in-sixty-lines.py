"""Flow matching, preference pairs and Flow-DPO on 2-D points, with nothing but torch: python THIS_FILE

The base model learns eight blobs on a ring. A rater prefers points farther to the right. Pairs of the base's
own samples teach that taste to a copy of it; the base stays as the reference. foleypref does the same with
soundtracks in place of points, and with judges or people in place of the rater.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

torch.manual_seed(0)
BETA, BATCH, NUM_CLIPS, NUM_CANDIDATES = 2.0, 256, 2048, 5


def data(n: int) -> Tensor:  # (n, 2): eight blobs on a ring of radius 2
    angle = torch.randint(8, (n,)) * math.pi / 4
    return 2 * torch.stack([angle.cos(), angle.sin()], dim=1) + 0.1 * torch.randn(n, 2)


def errors(
    model: nn.Module, x1: Tensor, x0: Tensor, t: Tensor
) -> Tensor:  # (B,): mean over each row's elements
    x_t = (1 - t) * x0 + t * x1  # t = 0 is noise, t = 1 is data
    return (model(torch.cat([x_t, t], dim=1)) - (x1 - x0)).square().mean(dim=1)


@torch.no_grad()
def sample(model: nn.Module, n: int, num_steps: int = 20) -> Tensor:  # (n, 2): Euler steps from noise to data
    x = torch.randn(n, 2)
    for step in range(num_steps):
        x = x + model(torch.cat([x, torch.full((n, 1), step / num_steps)], dim=1)) / num_steps
    return x


def tune(reference: nn.Module, chosen: Tensor, rejected: Tensor, max_steps: int = 300) -> nn.Module:
    policy = copy.deepcopy(reference).requires_grad_(True)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)
    for step in range(max_steps):
        # one t and one noise per pair, shared by chosen, rejected, policy and reference
        pair, x0, t = torch.randint(len(chosen), (BATCH,)), torch.randn(BATCH, 2), torch.rand(BATCH, 1)
        sides = [
            errors(policy, x1[pair], x0, t) - errors(reference, x1[pair], x0, t) for x1 in (chosen, rejected)
        ]
        loss = -logsigmoid(-BETA / 2 * (sides[0] - sides[1])).mean()
        assert step > 0 or math.isclose(loss.item(), math.log(2), rel_tol=1e-6)  # policy = reference
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy


base = nn.Sequential(nn.Linear(3, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 2))
optimizer = torch.optim.AdamW(base.parameters(), lr=2e-3)
for _ in range(1500):  # flow matching: the base model
    loss = errors(base, data(BATCH), torch.randn(BATCH, 2), torch.rand(BATCH, 1)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
base.requires_grad_(False)

candidates = sample(base, NUM_CLIPS * NUM_CANDIDATES).view(NUM_CLIPS, NUM_CANDIDATES, 2)
taste, row = candidates[..., 0], torch.arange(NUM_CLIPS)
chosen, rejected = candidates[row, taste.argmax(dim=1)], candidates[row, taste.argmin(dim=1)]
swap = torch.rand(NUM_CLIPS, 1) < 0.5  # the control: the same pairs, but who is chosen is drawn at random
shuffled = torch.where(swap, rejected, chosen), torch.where(swap, chosen, rejected)
models = {"base": base, "flow_dpo": tune(base, chosen, rejected), "shuffled labels": tune(base, *shuffled)}
for name, model in models.items():
    x = sample(model, 4096)
    print(f"{name:<16} right of the middle {(x[:, 0] > 0).float().mean():.2f}, ", end="")
    print(f"distance from the ring {(x.norm(dim=1) - 2).abs().mean():.2f}")
