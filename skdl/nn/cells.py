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


def _previous(states_TNHB: Tensor) -> Tensor:
    """The state before each step."""
    return torch.cat([torch.zeros_like(states_TNHB[:1]), states_TNHB[:-1]])


def _weight_gradients(grad_TNGB: Tensor, previous_TNHB: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the weight and the bias for those of what they give."""
    grad_NGR = grad_TNGB.permute(1, 2, 0, 3).flatten(2)
    return torch.bmm(grad_NGR, previous_TNHB.permute(1, 0, 3, 2).flatten(1, 2)), grad_NGR.sum(2, keepdim=True)


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
        weight_NHG = weight_NGH.transpose(1, 2)
        later = torch.zeros_like(states[0])
        for grad, slope in _backwards(grad_TNHB, grad_TNGB):
            later = torch.bmm(weight_NHG, slope.mul_(later.add_(grad)))
        return grad_TNGB, *_weight_gradients(grad_TNGB, _previous(states))


class GRUSteps(CellSteps):
    """Gated recurrent unit (Cho et al. 2014), its gates in torch's order: reset, update, new."""

    @staticmethod
    def forward(projected_TNGB: Tensor, weight_NGH: Tensor, bias_NG1: Tensor) -> tuple[Tensor, ...]:
        h = weight_NGH.shape[2]
        hidden = torch.empty_like(projected_TNGB)
        gates = torch.empty_like(projected_TNGB[:, :, : 2 * h], memory_format=torch.contiguous_format)
        new, states = (torch.empty_like(gates[:, :, :h], memory_format=torch.contiguous_format) for _ in range(2))
        state = torch.zeros_like(states[0])
        steps = zip(
            *(x.unbind() for x in (hidden, hidden[:, :, : 2 * h], hidden[:, :, 2 * h :])),
            *(x.unbind() for x in (projected_TNGB[:, :, : 2 * h], projected_TNGB[:, :, 2 * h :])),
            *(x.unbind() for x in (gates, gates[:, :, :h], gates[:, :, h:], new, states)),
            strict=True,
        )
        for into, hidden_gates, hidden_new, input_gates, input_new, both, reset, update, candidate, after in steps:
            torch.baddbmm(bias_NG1, weight_NGH, state, out=into)
            torch.add(input_gates, hidden_gates, out=both).sigmoid_()
            torch.addcmul(input_new, reset, hidden_new, out=candidate).tanh_()
            state = torch.lerp(candidate, state, update, out=after)
        return states, gates, new, hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TNHB: Tensor, *_: None) -> tuple[Tensor, ...]:
        weight_NGH, states, gates, new, hidden = ctx.saved_tensors
        h = weight_NGH.shape[2]
        reset, update = gates.split(h, dim=2)
        previous, taken = _previous(states), 1 - update
        # What a change of the state is worth to each gate, by the input and by the state before.
        slopes = torch.empty_like(hidden)
        of_new = torch.mul(taken, 1 - new * new, out=slopes[:, :, 2 * h :])
        torch.mul(previous - new, update * taken, out=slopes[:, :, h : 2 * h])
        torch.mul(of_new * hidden[:, :, 2 * h :], reset * (1 - reset), out=slopes[:, :, :h])
        hidden_slopes = slopes.clone()
        hidden_slopes[:, :, 2 * h :] *= reset
        grads = torch.empty_like(states)
        weight_NHG = weight_NGH.transpose(1, 2)
        later = torch.zeros_like(states[0])
        steps = _backwards(grad_TNHB, update, hidden_slopes, hidden_slopes.unflatten(2, (3, h)), grads)
        for grad, kept, slope, slope_of_gate, into in steps:
            torch.add(later, grad, out=into)
            slope_of_gate.mul_(into.unsqueeze(1))
            later = torch.baddbmm(into * kept, weight_NHG, slope)
        slopes.unflatten(2, (3, h)).mul_(grads.unsqueeze(2))
        return slopes, *_weight_gradients(hidden_slopes, previous)
