"""Convolution as a closed family of three: each one's gradients are the other two.

One idea: **on the padded, flattened grid a convolution is a sum of shifts.** Lay the images of a panel end
to end, row after row, each row followed by enough zeros (which also serve as the next row's left padding).
Then every kernel offset, in any number of dimensions and at any dilation, meets its elements of x at one
constant distance in memory, so the im2col matrix is a handful of long contiguous copies instead of a copy per
row, and y is one matrix product with it:

    cols[c, k, p] = buf[c, p + shift(k)]        y = w @ cols        dw = g @ colsᵀ        dcols = wᵀ @ g

A stride s splits x into s phases (its residues), each a grid of its own, within which all steps are one.
The positions between rows hold garbage in y, which is not copied out, and zeros in g.

A panel is as many images as fit the cache; nothing as large as the im2col of a batch ever exists. Where the
channels are many, only the last dimension's offsets are copied into cols and the others are separate
matrix products on shifted views of it (`outer`), which copies kw times the input instead of kh*kw.

With few input channels, or a 1x1 kernel, a plain im2col is quicker: y is written in place (`_direct`).
Depthwise has a way of its own (see `depthwise`). Batches are cut in slices, one per core (see `threads`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from kilograd.kernels import depthwise
from kilograd.kernels.kernel import kernel
from kilograd.kernels.threads import scratch, sliced
from kilograd.kernels.window import Ints, Pairs, out_sizes, pad, windows

BUDGET = 1 << 18  # elements of columns made at a time
ENOUGH = 160  # rows of columns that keep a matrix product busy; more are worth splitting


class Grid(NamedTuple):
    """Where everything lies; depends on geometry alone, so it is made once per layer."""

    pitch: Ints  # distance between rows, planes, images: output size plus shared zeros
    places: list[tuple[tuple, tuple]]  # per phase: index into x, index into the grid
    inner: list[tuple[int, int]]  # kernel offsets copied into columns: (phase, shift)
    outer: list[tuple[int, int]]  # kernel offsets done by separate products: (phase, shift)
    inner_tail: int  # the longest shifts: zeros needed after the last image
    outer_tail: int
    crop: tuple[Any, ...]  # the valid outputs


@lru_cache(maxsize=1024)
def _grid(
    size: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints, out: Ints, split: int
) -> Grid:
    """Kernel dimensions before `split` are outer, the others inner."""
    dims = list(zip(size, kernel, stride, padding, dilation, out, strict=True))
    pitch, residues, spans = [], [], []
    for n, k, s, (a, _), d, o in dims:
        length = o + (k - 1) * d // s  # of a row of one phase, both paddings included
        residues.append(sorted({i * d % s for i in range(k)}))
        span = {}  # residue -> first and last+1 position that hold elements of x
        for r in residues[-1]:
            first = min(max(0, -((r - a) // s)), length)
            span[r] = (first, max(first, min(-((r - a - n) // s), length)))
        spans.append(span)
        # What overlaps the next row must be zeros on both sides.
        pitch.append(max(o, *(max(last, length - first) for first, last in span.values())))
    step = [math.prod(pitch[i + 1 :]) for i in range(len(pitch))]
    phases = list(product(*residues))
    places = []
    for phase in phases:
        source, target = [], []
        for r, span, (_, _, s, (a, _), _, _) in zip(phase, spans, dims, strict=True):
            first, last = span[r]
            begin = s * first + r - a
            source.append(slice(begin, begin + s * (last - first - 1) + 1, s) if last > first
                          else slice(0, 0))  # fmt: skip
            target.append(slice(first, last))
        places.append(((..., *source), (..., *target)))

    def offsets(dims: list, residues: list, step: list) -> list[tuple[int, int]]:
        phases = list(product(*residues))
        found = []
        for i in product(*(range(dim[1]) for dim in dims)):
            at = [(j * d // s, j * d % s) for j, (_, _, s, _, d, _) in zip(i, dims, strict=True)]
            shift = sum(jump * t for (jump, _), t in zip(at, step, strict=True))
            found.append((phases.index(tuple(r for _, r in at)), shift))
        return found

    inner = offsets(dims[split:], residues[split:], step[split:])
    outer = offsets(dims[:split], residues[:split], step[:split])
    return Grid(
        tuple(pitch), places, inner, outer, max(s for _, s in inner), max(s for _, s in outer),
        (..., *map(slice, out)),
    )  # fmt: skip


class _Panels:
    """The memory of one convolution's grid, and its cuts: panels of images, blocks of columns.

    F phases (Fo outer x Fi inner), G groups, Cg and Og channels per group, K inner offsets, and P
    positions; `buf` (Fo, Fi, C, P) holds images, `cols` (Fo, G, Cg, K, P) columns, `acc` (G, Og, P) outputs.
    """

    def __init__(
        self,
        images: int,
        x_shape: Ints,
        w_shape: Ints,
        out: Ints,
        stride: Ints,
        padding: Pairs,
        dilation: Ints,
        groups: int,
        split: bool = True,
    ) -> None:
        self.C, self.Cg, kernel = x_shape[1], w_shape[1], w_shape[2:]
        self.G, self.Og = groups, w_shape[0] // groups
        outer = 0
        while (
            split and outer < len(kernel) - 1 and self.Cg * math.prod(kernel[outer + 1 :]) >= ENOUGH
        ):
            outer += 1
        self.grid = _grid(x_shape[2:], kernel, stride, padding, dilation, out, outer)
        self.K = len(self.grid.inner)
        self.Fi = 1 + max(phase for phase, _ in self.grid.inner)
        self.Fo = 1 + max(phase for phase, _ in self.grid.outer)
        self.area = math.prod(self.grid.pitch)
        block = max(256, BUDGET // (self.Fo * self.C * self.K))
        self.images = min(max(1, block // self.area), images)
        self.length = self.images * self.area
        self.block = min(block, self.length)

    def memory(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All zeros: buf and acc; uninitialised: cols."""
        reach = self.block + self.grid.outer_tail
        tail = self.grid.inner_tail + self.grid.outer_tail
        buf = scratch("conv.buf", (self.Fo, self.Fi, self.C, self.length + tail), dtype)
        acc = scratch("conv.acc", (self.G, self.Og, self.length), dtype)
        cols = scratch("conv.cols", (self.Fo, self.G, self.Cg, self.K, reach), dtype)
        buf[...] = 0
        acc[...] = 0
        return buf, acc, cols

    def panels(self, start: int, stop: int) -> Iterator[slice]:
        """Slices of start:stop of as many images as fit."""
        return (slice(n, min(n + self.images, stop)) for n in range(start, stop, self.images))

    def blocks(self, images: int) -> Iterator[tuple[int, int]]:
        """Consecutive ranges of positions whose columns fit."""
        length = images * self.area
        return ((p, min(p + self.block, length)) for p in range(0, length, self.block))

    def places(self, buf: np.ndarray, x: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Per phase: the same elements in buf and in x (N, C, *spatial), as views."""
        grids = buf[..., : len(x) * self.area].reshape(-1, self.C, len(x), *self.grid.pitch)
        for (in_x, in_grid), grid in zip(self.grid.places, grids, strict=True):
            yield grid[in_grid].swapaxes(0, 1), x[in_x]

    def outputs(self, acc: np.ndarray, images: int) -> np.ndarray:
        """View of acc (G, Og, P) as its valid outputs (N, O, *out)."""
        acc = acc[..., : images * self.area].reshape(-1, images, *self.grid.pitch)
        return acc[self.grid.crop].swapaxes(0, 1)

    def copies(
        self, buf: np.ndarray, cols: np.ndarray, p: int, q: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Per inner offset: (columns p:q and their tail in cols, where they come from in buf)."""
        reach = q - p + self.grid.outer_tail
        for k, (phase, shift) in enumerate(self.grid.inner):
            part = buf[:, phase, :, p + shift : p + shift + reach]
            yield cols[:, :, :, k, :reach], part.reshape(self.Fo, self.G, self.Cg, reach)

    def products(self, cols: np.ndarray, width: int) -> Iterator[np.ndarray]:
        """Per outer offset: its columns, a view (G, Cg*K, width)."""
        flat = cols.reshape(self.Fo, self.G, self.Cg * self.K, -1)
        return (flat[phase, :, :, shift : shift + width] for phase, shift in self.grid.outer)

    def weights(self, w: np.ndarray) -> np.ndarray:
        """The matrix for each outer offset: w (O, Cg, *k) -> (outer, G, Og, Cg*K)."""
        w = w.reshape(self.G, self.Og, self.Cg, -1, self.K)
        return np.moveaxis(w, 3, 0).reshape(-1, self.G, self.Og, self.Cg * self.K)


def _direct(x: np.ndarray, w_shape: Ints, out: Ints, most: int) -> bool:
    """Whether im2col (of at most so many rows) costs less than laying out a grid, as measured."""
    C, kernel = x.shape[1], math.prod(w_shape[2:])
    few = w_shape[1] == C and C * kernel <= most
    return (kernel == 1 or few) and math.prod(out) >= 128


def _im2col(
    x: np.ndarray, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints, out: Ints
) -> Iterator[tuple[slice, np.ndarray]]:
    """Panels of x as (slice of images, columns (images, C*prod(kernel), prod(out)))."""
    C, depth, width = x.shape[1], x.shape[1] * math.prod(kernel), math.prod(out)
    if depth * math.prod(stride) == C and not any(map(any, padding)):
        yield slice(None), x.reshape(len(x), C, width)
        return
    images = min(len(x), max(1, BUDGET // (depth * width)))
    for n in range(0, len(x), images):
        panel = x[n : n + images]
        cols = scratch("conv.cols", (len(panel), C, *kernel, *out), x.dtype)
        cols[...] = windows(pad(panel, padding), kernel, stride, dilation, out)
        yield slice(n, n + len(panel)), cols.reshape(len(panel), depth, width)


@kernel
def conv_forward(
    x: np.ndarray,
    w: np.ndarray,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int = 1,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """x (N, C, *spatial), w (O, C/groups, *k), bias (O,) -> y (N, O, *out).

    padding: (before, after) for each spatial dimension.

    >>> x, w = np.arange(5.0).reshape(1, 1, 5), np.array([[[1.0, 0, -1]]])
    >>> conv_forward(x, w, (1,), ((1, 1),), (1,))
    array([[[-1., -2., -2., -2.,  3.]]])
    """
    kernel = w.shape[2:]
    out = out_sizes(x.shape[2:], kernel, stride, padding, dilation)
    y = np.empty((len(x), len(w), *out), np.result_type(x, w))
    shift = None if bias is None else bias.reshape(-1, *[1] * len(out))
    if y.size == 0 or w.size == 0:
        y[...] = 0 if shift is None else shift
        return y
    if depthwise.suits(x.shape, w.shape, out, groups):
        return depthwise.depthwise_forward(x, w, out, stride, padding, dilation, shift)

    def direct(start: int, stop: int) -> None:
        wm = w.reshape(groups, len(w) // groups, -1)
        part = y[start:stop].reshape(stop - start, *wm.shape[:2], -1)
        for at, cols in _im2col(x[start:stop], kernel, stride, padding, dilation, out):
            np.matmul(wm, cols.reshape(len(cols), groups, wm.shape[2], -1), out=part[at])
            if shift is not None:
                y[start:stop][at] += shift

    def gridded(start: int, stop: int) -> None:
        on = _Panels(stop - start, x.shape, w.shape, out, stride, padding, dilation, groups)
        buf, acc, cols = on.memory(y.dtype)
        more = scratch("conv.more", (on.G, on.Og, on.block), y.dtype)
        wm = on.weights(w)
        for at in on.panels(start, stop):
            for grid, elements in on.places(buf, x[at]):
                grid[...] = elements
            for p, q in on.blocks(at.stop - at.start):
                for columns, shifted in on.copies(buf, cols, p, q):
                    columns[...] = shifted
                for i, rhs in enumerate(on.products(cols, q - p)):
                    target = more[..., : q - p] if i else acc[..., p:q]
                    np.matmul(wm[i], rhs, out=target)
                    if i:
                        acc[..., p:q] += target
            if shift is None:
                y[at] = on.outputs(acc, at.stop - at.start)
            else:
                np.add(on.outputs(acc, at.stop - at.start), shift, out=y[at])

    run = direct if _direct(x, w.shape, out, 3 * (x.shape[1] + len(w))) else gridded
    sliced(run, len(x), x.size + y.size)
    return y


@kernel
def conv_input_grad(
    g: np.ndarray,
    w: np.ndarray,
    x_shape: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int = 1,
) -> np.ndarray:
    """g (N, O, *out), w (O, C/groups, *k) -> (N, C, *spatial) == x_shape.

    Used as a forward it is the transposed convolution, for any x_shape that conv_forward maps to g's.

    >>> g, w = np.array([[[1.0, 10, 100]]]), np.array([[[1.0, 2]]])
    >>> conv_input_grad(g, w, (1, 1, 6), (2,), ((0, 0),), (1,))
    array([[[  1.,   2.,  10.,  20., 100., 200.]]])
    """
    kernel, out, dtype = w.shape[2:], g.shape[2:], np.result_type(g, w)
    if g.size == 0 or w.size == 0:
        return np.zeros(x_shape, dtype)
    if depthwise.suits(x_shape, w.shape, out, groups):
        return depthwise.depthwise_input_grad(g, w, x_shape, stride, padding, dilation)
    back = _full(x_shape, kernel, padding, dilation, out)
    narrow = len(w) <= x_shape[1] or math.prod(kernel) == 1
    if narrow and all(s == 1 for s in stride) and all(min(pair) >= 0 for pair in back):
        # Stride 1: the transpose is a convolution itself, by the flipped kernel.
        flip = (slice(None),) * 3 + (slice(None, None, -1),) * len(kernel)
        turned = w.reshape(groups, -1, *w.shape[1:])[flip].swapaxes(1, 2)
        turned = np.ascontiguousarray(turned).reshape(x_shape[1], -1, *kernel)
        return conv_forward(g, turned, stride, back, dilation, groups)
    dx = np.zeros(x_shape, dtype)

    def gridded(start: int, stop: int) -> None:
        on = _Panels(
            stop - start, x_shape, w.shape, out, stride, padding, dilation, groups, split=False
        )
        buf, acc, cols = on.memory(dtype)
        wm = on.weights(w)[0].swapaxes(1, 2)
        multiply = np.matmul if on.Og > 1 else np.multiply
        for at in on.panels(start, stop):
            on.outputs(acc, at.stop - at.start)[...] = g[at]
            buf[...] = 0
            for p, q in on.blocks(at.stop - at.start):
                (lhs,) = on.products(cols, q - p)
                multiply(wm, acc[..., p:q], out=lhs)
                for columns, shifted in on.copies(buf, cols, p, q):
                    shifted += columns
            for grid, elements in on.places(buf, dx[at]):
                elements[...] = grid

    sliced(gridded, len(g), dx.size + g.size)
    return dx


def _full(x_shape: Ints, kernel: Ints, padding: Pairs, dilation: Ints, out: Ints) -> Pairs:
    """The padding of g under which a stride-1 convolution by the flipped kernel has x's size."""
    pairs = []
    for n, k, (a, _), d, o in zip(x_shape[2:], kernel, padding, dilation, out, strict=True):
        before = d * (k - 1) - a
        pairs.append((before, n + d * (k - 1) - o - before))
    return tuple(pairs)


@kernel
def conv_weight_grad(
    g: np.ndarray,
    x: np.ndarray,
    w_shape: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int = 1,
) -> np.ndarray:
    """g (N, O, *out), x (N, C, *spatial) -> (O, C/groups, *k) == w_shape.

    >>> g, x = np.array([[[1.0, 10]]]), np.array([[[1.0, 2, 3]]])
    >>> conv_weight_grad(g, x, (1, 1, 2), (1,), ((0, 0),), (1,))
    array([[[21., 32.]]])
    """
    kernel, out, dtype = w_shape[2:], g.shape[2:], np.result_type(g, x)
    if g.size == 0 or x.size == 0:
        return np.zeros(w_shape, dtype)
    if depthwise.suits(x.shape, w_shape, out, groups):
        return depthwise.depthwise_weight_grad(g, x, w_shape, stride, padding, dilation)

    def direct(start: int, stop: int) -> np.ndarray:
        total = np.zeros((groups, w_shape[0] // groups, math.prod(w_shape[1:])), dtype)
        part = g[start:stop].reshape(stop - start, *total.shape[:2], -1)
        for at, cols in _im2col(x[start:stop], kernel, stride, padding, dilation, out):
            rhs = cols.reshape(len(cols), groups, total.shape[2], -1).swapaxes(2, 3)
            total += (part[at] @ rhs).sum(0)
        return total.reshape(w_shape)

    def gridded(start: int, stop: int) -> np.ndarray:
        on = _Panels(stop - start, x.shape, w_shape, out, stride, padding, dilation, groups)
        buf, acc, cols = on.memory(dtype)
        total = np.zeros((len(on.grid.outer), on.G, on.Cg * on.K, on.Og), dtype)
        for at in on.panels(start, stop):
            for grid, elements in on.places(buf, x[at]):
                grid[...] = elements
            on.outputs(acc, at.stop - at.start)[...] = g[at]
            for p, q in on.blocks(at.stop - at.start):
                for columns, shifted in on.copies(buf, cols, p, q):
                    columns[...] = shifted
                # BLAS is half again as quick on cols @ gᵀ, with gᵀ laid out, as on g @ colsᵀ.
                right = np.ascontiguousarray(acc[..., p:q].swapaxes(1, 2))
                for i, rhs in enumerate(on.products(cols, q - p)):
                    total[i] += rhs @ right
        total = total.reshape(-1, on.G, on.Cg, on.K, on.Og)  # (outer, G, Cg, K, Og)
        return total.transpose(1, 4, 2, 0, 3).reshape(w_shape)

    run = direct if _direct(x, w_shape, out, 100) else gridded
    parts = sliced(run, len(x), x.size + g.size)
    return sum(parts[1:], start=parts[0])
