"""Connectionist temporal classification (Graves et al., 2006): all alignments of a label sequence.

The extended sequence has a blank before, between and after its labels, 2S + 1 places. alpha[t, s] is
the log-probability of all ways to have emitted its first s places by time t; beta, of all ways to
emit the rest. One step moves a place on by 0, 1, or (from a label to a different one) 2.
"""

from __future__ import annotations

import math

import numpy as np

from kilograd.ops import elementwise as ew
from kilograd.ops.activation import log_softmax as log_softmax_op
from kilograd.ops.elementwise import where
from kilograd.ops.index import gather
from kilograd.ops.op import op
from kilograd.ops.shape import concatenate, stack

LOW = -1e30  # stands for log 0 in the composition, where infinities would make NaN gradients


def _places(targets, blank):
    """Labels at all places (N, 2S+1), and where a step of 2 may end."""
    N, S = targets.shape
    labels = np.full((N, 2 * S + 1), blank, np.int64)
    labels[:, 1::2] = targets
    jump = np.zeros(labels.shape, bool)
    jump[:, 2:] = (labels[:, 2:] != blank) & (labels[:, 2:] != labels[:, :-2])
    return labels, jump


def _log_sum(*terms):
    highest = np.maximum.reduce(terms)
    highest[highest == -math.inf] = 0
    with np.errstate(divide="ignore"):
        return np.log(sum(np.exp(t - highest) for t in terms)) + highest


def _moved(a, by, fill=-math.inf):
    """a (N, places) moved to the right."""
    out = np.full_like(a, fill)
    out[:, by:] = a[:, : a.shape[1] - by]
    return out


def _alphas(emit, jump):
    """emit (T, N, places): the log-probability of each place's label at each time."""
    alpha = np.full_like(emit, -math.inf)
    alpha[0, :, :2] = emit[0, :, :2]
    for t in range(1, len(emit)):
        before = alpha[t - 1]
        two = np.where(jump, _moved(before, 2), -math.inf)
        alpha[t] = _log_sum(before, _moved(before, 1), two) + emit[t]
    return alpha


def _composition(x, targets, lengths, target_lengths, *, blank):
    lengths, target_lengths, targets = map(np.asarray, (lengths, target_lengths, targets))
    labels, jump = _places(targets, blank)
    T, N = x.shape[:2]
    emit = gather(log_softmax_op(x, axis=2), np.broadcast_to(labels, (T, *labels.shape)), axis=2)
    first = np.arange(labels.shape[1]) < 2
    alpha = where(first, emit[0], LOW)
    alphas = [alpha]
    for t in range(1, T):
        one = concatenate(alpha[:, :1] * 0 + LOW, alpha[:, :-1], axis=1)
        ways = ew.logaddexp(alpha, one)
        if alpha.shape[1] > 2:
            two = concatenate(alpha[:, :2] * 0 + LOW, alpha[:, :-2], axis=1)
            ways = ew.logaddexp(ways, where(jump, two, LOW))
        alpha = ways + emit[t]
        alphas.append(alpha)
    n = np.arange(N)
    table = stack(*alphas, axis=0)
    last = table[(np.maximum(lengths - 1, 0), n, 2 * target_lengths)]
    label = table[(np.maximum(lengths - 1, 0), n, np.maximum(2 * target_lengths - 1, 0))]
    loss = -ew.logaddexp(last, where(target_lengths > 0, label, LOW))
    loss = where(loss > -LOW / 2, math.inf, loss)
    return where(lengths > 0, loss, where(target_lengths > 0, math.inf, 0.0))


@op(residuals=("alpha",), composition=_composition)
def ctc_loss(x, targets, lengths, target_lengths, *, blank):
    """Minus the log-probability of each target: (N,).

    x (T, N, C) log-probabilities; targets (N, S), padded with any label; lengths and
    target_lengths (N,) say how much of each counts.
    """
    labels, jump = _places(targets, blank)
    T, N = x.shape[:2]
    emit = np.take_along_axis(x, np.broadcast_to(labels, (T, *labels.shape)), 2)
    alpha = _alphas(emit, jump)
    n = np.arange(N)
    end = alpha[np.maximum(lengths - 1, 0), n]
    last = end[n, 2 * target_lengths]
    label = np.where(target_lengths > 0, end[n, 2 * target_lengths - 1], -math.inf)
    loss = -_log_sum(last, label)
    loss = np.where(lengths > 0, loss, np.where(target_lengths > 0, math.inf, 0))
    return loss.astype(x.dtype), alpha


@ctc_loss.vjp("x")
def _(g, x, targets, lengths, target_lengths, y, alpha, blank):
    # As in PyTorch, this is the gradient through the log_softmax that made x: what the model says
    # less what the alignments say.
    labels, jump = _places(targets, blank)
    T, N = x.shape[:2]
    n, places = np.arange(N), labels.shape[1]
    emit = np.take_along_axis(x, np.broadcast_to(labels, (T, *labels.shape)), 2)
    beta = np.full((N, places), -math.inf, x.dtype)  # the rest after time t, t's own label included
    jump_from = np.zeros_like(jump)
    jump_from[:, :-2] = jump[:, 2:]
    finish = np.full((N, places), -math.inf, x.dtype)
    finish[n, 2 * target_lengths] = 0
    some = target_lengths > 0
    finish[n[some], 2 * target_lengths[some] - 1] = 0
    d = np.exp(x)
    for t in range(T - 1, -1, -1):
        back = beta[:, ::-1]
        one, two = (
            _moved(back, 1)[:, ::-1],
            np.where(jump_from, _moved(back, 2)[:, ::-1], -math.inf),
        )
        rest = _log_sum(beta, one, two)
        rest = np.where((lengths == t + 1)[:, None], finish, rest)
        share = np.exp(alpha[t] + rest + y[:, None])  # of the alignments, at each place
        np.add.at(d[t], (n[:, None], labels), -share)
        beta = rest + emit[t]
    d = np.where(g[:, None] == 0, x.dtype.type(0), d * g[:, None])
    d[np.arange(T)[:, None] >= lengths] = 0
    return d
