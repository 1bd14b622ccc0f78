"""Muon against the singular value decomposition and against torch's own, which works in bfloat16."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from model.training.muon import Muon, orthogonal

SHAPES = [(8, 24), (24, 8), (12, 12)]


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_singular_vectors_stay_and_the_values_become_about_one(
    shape: tuple[int, int], dtype: torch.dtype, within: float
) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    for matrix, made in zip(matrices, orthogonal(matrices, dtype), strict=True):
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        seen = left.T @ made @ right.T
        values = seen.diagonal()
        assert (seen - values.diag()).abs().max() < within
        assert 0.6 < float(values.min()) <= float(values.max()) < 1.3


def test_steps_are_those_of_torch_but_for_its_bfloat16() -> None:
    """Several shapes, several steps, momentum and decay; matrices of one shape must not mix."""
    random = torch.Generator().manual_seed(2)
    start = [torch.randn(shape, generator=random) for shape in (*SHAPES, SHAPES[0])]
    gradients = [[torch.randn(matrix.shape, generator=random) for matrix in start] for _ in range(4)]
    ended: list[list[torch.Tensor]] = []
    for make in (Muon, partial(torch.optim.Muon, adjust_lr_fn="match_rms_adamw")):
        parameters = [torch.nn.Parameter(matrix.clone()) for matrix in start]
        optimiser = make([{"params": parameters}], lr=0.1, weight_decay=0.2)
        for step in gradients:
            for parameter, gradient in zip(parameters, step, strict=True):
                parameter.grad = gradient.clone()
            optimiser.step()
        ended.append([parameter.detach() for parameter in parameters])
    for ours, theirs, begun in zip(*ended, start, strict=True):
        assert (ours - theirs).norm() < 0.02 * (theirs - begun).norm()


def test_its_state_goes_into_torch_s_and_back() -> None:
    """Trainings that were begun with torch's Muon go on with this one."""
    parameter = torch.nn.Parameter(torch.ones(4, 6))
    parameter.grad = torch.full((4, 6), 0.5)
    theirs = torch.optim.Muon([{"params": [parameter]}], lr=0.1, weight_decay=0.0)
    theirs.step()
    ours = Muon([{"params": [parameter]}], lr=0.1, weight_decay=0.0)
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours.state[parameter]["momentum_buffer"], theirs.state[parameter]["momentum_buffer"])
