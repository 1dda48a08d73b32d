"""Recurrent cells with a backward pass of their own, for a processor.

torch's loops over these cells build a graph of some ten calls a step, and run one network in one direction. Here
several networks, and both directions of each, take a step together, and all of the backward pass that does not run
through time is one call for all steps. Long short-term memory is not here: for that torch has a faster loop.

Axes: T steps, N networks and directions side by side, G units of all gates, H units, B series. Series stand last, so
that the units of a gate lie in one piece.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class CellSteps(torch.autograd.Function):
    """The steps of a cell: ``(projected_TNGB, weight_NGH, bias_NG1)`` to its states ``(T, N, H, B)``.

    ``projected_TNGB`` is what the gates get of the inputs, ``weight_NGH`` and ``bias_NG1`` what they get of the state
    before. States start at zero. What comes behind the states in the output is for the backward pass.
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[1], *output)

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[tuple[Tensor, ...], int]:
        """Models stand beside the networks and directions that there are."""
        # Where the models go: in front of N.
        places = (1, 0, 0)
        folded = [
            (
                x.unsqueeze(place).expand(*x.shape[:place], info.batch_size, *x.shape[place:])
                if dim is None
                else x.movedim(dim, place)
            ).flatten(place, place + 1)
            for x, dim, place in zip(inputs, in_dims, places, strict=True)
        ]
        return tuple(x.unflatten(1, (info.batch_size, -1)) for x in cls.apply(*folded)), 1


def _weight_gradients(grad_TNGB: Tensor, states_TNHB: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the weight and the bias for those of what they give at each step."""
    grad_NGH = grad_TNGB.new_zeros(*grad_TNGB.shape[1:3], states_TNHB.shape[2])
    # All steps as one product would need copies in which they lie side by side.
    for grad_NGB, before_NHB in zip(grad_TNGB[1:].unbind(), states_TNHB[:-1].unbind(), strict=True):
        grad_NGH.baddbmm_(grad_NGB, before_NHB.mT)
    return grad_NGH, grad_TNGB.sum((0, 3)).unsqueeze(2)


def _backwards(*tensors: Tensor) -> Any:
    """The tensors' steps, from the last one to the first."""
    return zip(*(reversed(tensor.unbind()) for tensor in tensors), strict=True)


class TanhSteps(CellSteps):
    """Plain units with tanh."""

    @staticmethod
    def forward(projected_TNGB: Tensor, weight_NGH: Tensor, bias_NG1: Tensor) -> tuple[Tensor, ...]:
        states = projected_TNGB + bias_NG1
        state = torch.zeros_like(states[0])
        for into in states.unbind():
            state = into.baddbmm_(weight_NGH, state).tanh_()
        return (states,)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TNHB: Tensor) -> tuple[Tensor, ...]:
        weight_NGH, states = ctx.saved_tensors
        grad_TNGB = 1 - states * states
        later = torch.zeros_like(states[0])
        for grad, slope in _backwards(grad_TNHB, grad_TNGB):
            later = torch.bmm(weight_NGH.mT, slope.mul_(later.add_(grad)))
        return grad_TNGB, *_weight_gradients(grad_TNGB, states)


class GRUSteps(CellSteps):
    """Gated recurrent unit (Cho et al. 2014), its gates in torch's order: reset, update, new."""

    @staticmethod
    def forward(projected_TNGB: Tensor, weight_NGH: Tensor, bias_NG1: Tensor) -> tuple[Tensor, ...]:
        n_units = weight_NGH.shape[2]
        sizes = [2 * n_units, n_units]
        (input_gates, input_new), (gate_weight, new_weight), (gate_bias, new_bias) = (
            projected_TNGB.split(sizes, dim=2),
            weight_NGH.split(sizes, dim=1),
            bias_NG1.split(sizes, dim=1),
        )
        # A copy, also where the bias has the shape already.
        gates, recalled = (
            input_gates + gate_bias,
            new_bias.expand_as(input_new).clone(memory_format=torch.contiguous_format),
        )
        new, states = torch.empty_like(recalled), torch.empty_like(recalled)
        state = torch.zeros_like(states[0])
        tensors = (gates, *gates.chunk(2, dim=2), recalled, input_new, new, states)
        for both, reset, update, recall, given, candidate, after in zip(*(x.unbind() for x in tensors), strict=True):
            both.baddbmm_(gate_weight, state).sigmoid_()
            recall.baddbmm_(new_weight, state)
            torch.addcmul(given, reset, recall, out=candidate).tanh_()
            state = torch.lerp(candidate, state, update, out=after)
        return states, gates, recalled, new

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TNHB: Tensor, *_: None) -> tuple[Tensor, ...]:
        weight_NGH, states, gates, recalled, new = ctx.saved_tensors
        reset, update = gates.chunk(2, dim=2)
        # What a change of the state is worth to each gate; the loop makes gradients of it.
        grads = states.new_empty(*gates.shape[:2], 3, *states.shape[2:])
        of_reset, of_update, of_new = grads.unbind(2)
        taken = 1 - update
        of_input = taken * (1 - new * new)
        torch.mul(of_input, reset, out=of_new)
        torch.mul(of_new, recalled, out=of_reset).mul_(1 - reset)
        torch.neg(new, out=of_update)[1:] += states[:-1]
        of_update.mul_(update).mul_(taken)
        grads_TNGB = grads.flatten(2, 3)
        later = torch.zeros_like(states[0])
        steps = _backwards(grad_TNHB, update, of_input, grads, grads_TNGB)
        for grad, kept, slope_of_input, slopes, grad_NGB in steps:
            later.add_(grad)
            slopes.mul_(later.unsqueeze(1))
            slope_of_input.mul_(later)
            later = later.mul_(kept).baddbmm_(weight_NGH.mT, grad_NGB)
        of_weight = _weight_gradients(grads_TNGB, states)
        # The input goes past the reset gate.
        of_new.copy_(of_input)
        return grads_TNGB, *of_weight
