"""Kernels of many shapes, and lowering them with and without the pass."""

from __future__ import annotations

import math

import numpy as np
import tinycore_pass_tile

from tinycore.codegen.compile import assemble
from tinycore.codegen.linearize import linearize
from tinycore.codegen.pipeline import AFTER_TILE, BEFORE_TILE, LOWERING, Context, index_dtype
from tinycore.interpret import interpret_kernel, interpret_program
from tinycore.ir import Capabilities, Target, UOp, dims, dtypes, ops
from tinycore.ir.verify import verify
from tinycore.schedule import KernelStep, make_schedule, number_buffers

NATIVE = frozenset(op for op in ops if op.elementwise)
LANES = Target(
    "LANES",
    capabilities=Capabilities(
        ops=NATIVE | {ops.SHUFFLE},
        vector_bytes=64,
        vector_registers=32,
        threads=4,
        index_bits=(32, 64),
        cache_bytes=(1 << 9, 1 << 13),
    ),
)
NARROW = Target(
    "NARROW",
    capabilities=Capabilities(
        ops=NATIVE | {ops.SHUFFLE}, vector_bytes=16, vector_registers=16, threads=1, index_bits=(32, 64)
    ),
)
GROUPS = Target(
    "GROUPS",
    capabilities=Capabilities(
        ops=NATIVE, workgroups=True, local_size=256, shared_bytes=1 << 15, index_bits=(32, 64)
    ),
)
SMALL_GROUPS = Target(
    "SMALL GROUPS",
    capabilities=Capabilities(
        ops=NATIVE, workgroups=True, local_size=32, shared_bytes=1 << 10, index_bits=(64,)
    ),
)
TARGETS = (LANES, NARROW, GROUPS, SMALL_GROUPS)
N = UOp.variable("n", 0, 70)


def x(*shape, identity=1, dtype=dtypes.int32):
    return UOp(ops.BUFFER, dtype, (), (identity, shape, "X"))


def reshape(a, *shape):
    return UOp(ops.RESHAPE, a.dtype, (a,), shape)


def permute(a, *axes):
    return UOp(ops.PERMUTE, a.dtype, (a,), axes)


def expand(a, *shape):
    return UOp(ops.EXPAND, a.dtype, (a,), shape) if a.shape != shape else a


def reduce(a, op, *axes):
    return UOp(ops.REDUCE, a.dtype, (a,), (op, axes))


def total(a, *axes):
    return reduce(a, ops.ADD, *axes)


def pad(a, *padding):
    return UOp(ops.PAD, a.dtype, (a,), padding)


def shrink(a, *limits):
    return UOp(ops.SHRINK, a.dtype, (a,), limits)


def strided(a, axis, step):
    """Every `step`-th element, by reshape and shrink."""
    shape = a.shape
    split = (*shape[:axis], shape[axis] // step, step, *shape[axis + 1 :])
    limits = [(0, size) for size in split]
    limits[axis + 1] = (0, 1)
    return reshape(
        shrink(reshape(a, *split), *limits), *shape[:axis], shape[axis] // step, *shape[axis + 1 :]
    )


def matmul(a, b):
    *batch, m, k = a.shape
    n = b.shape[-1]
    full = (*batch, m, k, n)
    product = expand(reshape(a, *batch, m, k, 1), *full) * expand(reshape(b, *batch, 1, k, n), *full)
    return reshape(total(product, len(batch) + 1), *batch, m, n)


def windows(a, axis, size):
    """Sliding windows as an axis of their own, behind `axis`: the tile-and-cut trick of movement ops."""
    length = a.shape[axis]
    count = length - size + 1
    shape = a.shape
    before, after = shape[:axis], shape[axis + 1 :]
    repeated = expand(reshape(a, *before, 1, length, *after), *before, size + 1, length, *after)
    flat = reshape(repeated, *before, (size + 1) * length, *after)
    cut = [(0, s) for s in flat.shape]
    cut[axis] = (0, size * (length + 1))
    table = reshape(shrink(flat, *cut), *before, size, length + 1, *after)
    keep = [(0, s) for s in table.shape]
    keep[axis + 1] = (0, count)
    rank = len(table.shape)
    order = [*range(axis), axis + 1, axis, *range(axis + 2, rank)]
    return permute(shrink(table, *keep), *order)


def convolution(image, weight):
    """(batch, channels, height, width) with (out, channels, kh, kw), padded by 1."""
    image = pad(image, (0, 0), (0, 0), (1, 1), (1, 1))
    out, channels, kh, kw = weight.shape
    patches = windows(windows(image, 3, kw), 2, kh)  # batch, channels, h, kh, w, kw
    batch, _, height, _, width, _ = patches.shape
    full = (batch, out, channels, height, kh, width, kw)
    a = expand(reshape(patches, batch, 1, channels, height, kh, width, kw), *full)
    b = expand(reshape(weight, 1, out, channels, 1, kh, 1, kw), *full)
    return reshape(total(a * b, 2, 4, 6), batch, out, height, width)


def convolution_of_planes(n, c, h, w, size, step=1, padding=1):
    """Channels first, a window of its own for each: (n, c, h, w)."""
    image = pad(x(n, c, h, w), (0, 0), (0, 0), (padding, padding), (padding, padding))
    patches = windows(windows(image, 3, size), 2, size)  # n, c, rows, kh, columns, kw
    for axis in (2, 4):
        length = patches.shape[axis]
        whole = -(-length // step) * step
        patches = strided(pad(patches, *[(0, (whole - length) * (k == axis)) for k in range(6)]), axis, step)
    weight = expand(reshape(x(c, size, size, identity=2), 1, c, 1, size, 1, size), *patches.shape)
    return reshape(total(patches * weight, 3, 5), n, c, patches.shape[2], patches.shape[4])


def convolution_of_pixels(n, h, w, c, f, size, step=1, block=None, padding=1):
    """Channels last on both sides, the weights (blocks of filters, kh, kw, c, filters): lanes go to the filters."""
    image = permute(x(n, h, w, c), 0, 3, 1, 2)
    block = block or f
    packed = permute(x(f // block, size, size, c, block, identity=2), 0, 4, 3, 1, 2)
    image = pad(image, (0, 0), (0, 0), (padding, padding), (padding, padding))
    patches = windows(windows(image, 3, size), 2, size)  # n, c, h, kh, w, kw
    _, _, h, _, w, _ = patches.shape
    patches = shrink(patches, (0, n), (0, c), (0, h - h % step), (0, size), (0, w - w % step), (0, size))
    patches = strided(strided(patches, 2, step), 4, step)
    _, _, h, _, w, _ = patches.shape
    full = (n, f // block, block, c, h, size, w, size)
    a = expand(reshape(patches, n, 1, 1, c, h, size, w, size), *full)
    b = expand(reshape(packed, 1, f // block, block, c, 1, size, 1, size), *full)
    result = reshape(total(a * b, 3, 5, 7), n, f // block, block, h, w)
    return permute(result, 0, 3, 4, 1, 2) + 1


def sums_for_places(pieces, group, h, w, c, f, size, step=1, padding=1, channels_last=True):
    """The gradient of a convolution by its weights: (pieces, c, kh, kw, f), each piece summed over some images."""
    n = pieces * group
    image = permute(x(n, h, w, c), 0, 3, 1, 2) if channels_last else x(n, c, h, w)
    image = pad(image, (0, 0), (0, 0), (padding, padding), (padding, padding))
    patches = windows(windows(image, 3, size), 2, size)  # n, c, h, kh, w, kw
    _, _, h, _, w, _ = patches.shape
    patches = shrink(patches, (0, n), (0, c), (0, h - h % step), (0, size), (0, w - w % step), (0, size))
    patches = strided(strided(patches, 2, step), 4, step)
    _, _, h, _, w, _ = patches.shape
    full = (pieces, c, size, size, f, group, h, w)
    a = permute(reshape(patches, pieces, group, c, h, size, w, size), 0, 2, 4, 6, 1, 3, 5)
    a = expand(reshape(a, pieces, c, size, size, 1, group, h, w), *full)
    b = permute(reshape(x(n, h, w, f, identity=2), pieces, group, h, w, f), 0, 4, 1, 2, 3)
    b = expand(reshape(b, pieces, 1, 1, 1, f, group, h, w), *full)
    return reshape(total(a * b, 5, 6, 7), pieces, c, size, size, f)


def convolution_of_sequence(n, length, c, f, size):
    """One axis of windows, channels last."""
    patches = windows(pad(permute(x(n, length, c), 0, 2, 1), (0, 0), (0, 0), (1, 1)), 2, size)  # n, c, l, k
    packed = permute(x(size, c, f, identity=2), 2, 1, 0)
    length = patches.shape[2]
    full = (n, f, c, length, size)
    a = expand(reshape(patches, n, 1, c, length, size), *full)
    result = total(a * expand(reshape(packed, 1, f, c, 1, size), *full), 2, 4)
    return permute(reshape(result, n, f, length), 0, 2, 1) * 2


def rows(a):
    return a - expand(reduce(a, ops.MAX, len(a.shape) - 1), *a.shape)


def scan(a, axis):
    return UOp(ops.SCAN, a.dtype, (a,), (ops.ADD, axis))


def scatter(base, index, updates):
    return UOp(ops.SCATTER, base.dtype, (base, index, updates), (ops.ADD, 0))


def gather(a, index):
    return UOp(ops.GATHER, a.dtype, (a, index), 0)


def assign(base, view, value):
    return UOp(ops.ASSIGN, base.dtype, (base, view, value))


def product(m, k, n):
    return matmul(x(m, k), x(k, n, identity=2))


CASES = {
    "one element": lambda: x(1) + 1,
    "elementwise": lambda: x(100, 37) * 2 + x(100, 37, identity=2),
    "long elementwise": lambda: x(40_000) * 3 + 1,
    "prime": lambda: x(1009) * 3 + 1,
    "bytes": lambda: x(333, dtype=dtypes.int8) * 3 + 1,
    "wide": lambda: x(77, dtype=dtypes.int64) * 3 + 1,
    "mixed widths": lambda: (
        x(129, dtype=dtypes.int8).cast(dtypes.int64) + x(129, identity=2, dtype=dtypes.int64)
    ),
    "comparison": lambda: x(129) < x(129, identity=2),
    "transpose": lambda: permute(x(33, 50), 1, 0) + 1,
    "transpose even": lambda: permute(x(256, 160), 1, 0) + x(160, 256, identity=2),
    "transpose prime": lambda: permute(x(131, 257), 1, 0) + x(257, 131, identity=2),
    "transpose of bytes": lambda: permute(x(129, 70, dtype=dtypes.uint8), 1, 0) * 3,
    "transpose wide": lambda: permute(x(65, 130, dtype=dtypes.int64), 1, 0) * 3,
    "transpose of few": lambda: permute(x(300, 3), 1, 0) + 1,
    "transpose to few": lambda: permute(x(3, 300), 1, 0) + 1,
    "transposes": lambda: permute(x(64, 80) * x(64, 80, identity=2), 1, 0) - x(80, 64, identity=3),
    "transpose of a padded": lambda: permute(pad(x(30, 41), (2, 3), (1, 0)), 1, 0) + 1,
    "transpose of long rows": lambda: permute(x(210, 67), 1, 0) + x(67, 210, identity=2),
    "transpose of long rows of bytes": lambda: permute(x(801, 35, dtype=dtypes.int8), 1, 0) + 1,
    "transpose of a padded image": lambda: permute(pad(x(216, 40), (2, 3), (1, 0)), 1, 0) * 2,
    "transposes of one matrix": lambda: permute(x(130, 130), 1, 0) - x(130, 130),
    "transpose of long batches": lambda: permute(x(3, 140, 37), 0, 2, 1) + 1,
    "channels last": lambda: permute(x(2, 20, 9, 11), 0, 2, 3, 1) + 0,
    "channels first": lambda: permute(x(3, 9, 11, 20), 0, 3, 1, 2) + 0,
    "symbolic transpose": lambda: permute(x(N, 33), 1, 0) * 2,
    "transpose of symbolic batches": lambda: permute(x(N, 17, 20), 0, 2, 1) * 2,
    "heads joined": lambda: matmul(
        reshape(permute(x(6, 20, 8), 1, 0, 2), 20, 48), permute(x(40, 48, identity=2), 1, 0)
    ),
    "heads apart": lambda: permute(reshape(x(40, 48), 40, 6, 8), 1, 0, 2) + 1,
    "reshape of a permuted": lambda: (
        reshape(permute(x(6, 20, 4, 2), 1, 0, 3, 2), 20, 48) + x(20, 48, identity=2)
    ),
    "batches of rows": lambda: rows(x(4, 5, 300)),
    "four axes": lambda: permute(x(3, 5, 7, 9), 2, 0, 3, 1) + x(7, 3, 9, 5, identity=2),
    "five axes": lambda: permute(x(2, 3, 4, 5, 6), 4, 0, 3, 1, 2) * 2,
    "broadcast row": lambda: x(40, 33) + expand(reshape(x(33, identity=2), 1, 33), 40, 33),
    "broadcast column": lambda: x(40, 33) + expand(reshape(x(40, identity=2), 40, 1), 40, 33),
    "padded": lambda: pad(x(30, 41), (2, 3), (1, 0)) + 1,
    "strided": lambda: strided(x(30, 64), 1, 4) * 2,
    "strided rows": lambda: strided(x(30, 64), 0, 3) * 2,
    "row sums": lambda: total(x(40, 129), 1),
    "short rows": lambda: total(x(300, 3), 1),
    "column sums": lambda: total(x(129, 40), 0),
    "middle": lambda: total(x(9, 31, 17), 1) + 1,
    "outer axes": lambda: total(x(9, 31, 17), 0, 2),
    "all": lambda: total(x(2000), 0),
    "long rows": lambda: total(x(3, 5003), 1),
    "maximum of rows": lambda: reduce(x(5, 700), ops.MAX, 1),
    "product of a padded": lambda: total(pad(x(9, 300), (1, 1), (3, 4)), 1),
    "rows": lambda: rows(x(20, 67)),
    "long row": lambda: rows(x(2, 1500)),
    "matmul 1": lambda: product(1, 1, 1),
    "matmul row": lambda: product(1, 64, 48),
    "matmul column": lambda: product(48, 64, 1),
    "matmul small": lambda: product(7, 5, 3),
    "matmul odd": lambda: product(33, 17, 45),
    "matmul even": lambda: product(32, 64, 64),
    "matmul prime": lambda: product(37, 41, 43),
    "matmul one tile": lambda: product(16, 32, 32),
    "matmul with transposed": lambda: matmul(permute(x(31, 40), 1, 0), permute(x(35, 31, identity=2), 1, 0)),
    "matmul with itself": lambda: matmul(x(20, 20), permute(x(20, 20), 1, 0)),
    "matmul and more": lambda: product(24, 20, 40).alu(ops.MAX, UOp.const(dtypes.int32, 0, (24, 40))) * 2,
    "batched": lambda: matmul(x(3, 18, 20), x(3, 20, 22, identity=2)),
    "many batches": lambda: matmul(x(2, 2, 2, 17, 18), x(2, 2, 2, 18, 19, identity=2)),
    "convolution": lambda: convolution(x(2, 3, 8, 9), x(5, 3, 3, 3, identity=2)),
    "wide convolution": lambda: convolution(x(1, 4, 6, 40), x(8, 4, 3, 3, identity=2)),
    "staged convolution": lambda: convolution(x(1, 5, 4, 17), x(16, 5, 3, 3, identity=2)),
    "pointwise": lambda: convolution(x(1, 16, 7, 7), x(20, 16, 1, 1, identity=2)),
    "pixels": lambda: convolution_of_pixels(2, 6, 16, 8, 32, 3),
    "pixels odd": lambda: convolution_of_pixels(1, 7, 17, 5, 33, 3),
    "pixels square": lambda: convolution_of_pixels(1, 7, 7, 12, 64, 3, block=32),
    "pixels apart": lambda: convolution_of_pixels(1, 9, 28, 6, 32, 3, step=2),
    "pixels far apart": lambda: convolution_of_pixels(1, 12, 12, 4, 16, 2, step=3),
    "pixels of few filters": lambda: convolution_of_pixels(3, 8, 14, 3, 9, 5, padding=2),
    "pixels of inner windows": lambda: convolution_of_pixels(1, 8, 16, 4, 32, 3, padding=0),
    "pixels of many channels": lambda: convolution_of_pixels(1, 3, 4, 70, 64, 3, block=32),
    "planes": lambda: convolution_of_planes(2, 9, 7, 7, 5, padding=2),
    "planes in blocks": lambda: convolution_of_planes(1, 8, 40, 29, 3),
    "planes apart": lambda: convolution_of_planes(2, 8, 13, 33, 3, step=2),
    "planes far apart": lambda: convolution_of_planes(1, 9, 15, 50, 4, step=3),
    "planes of inner windows": lambda: convolution_of_planes(1, 8, 14, 30, 5, step=2, padding=0),
    "symbolic pixels": lambda: convolution_of_pixels(N, 5, 6, 3, 16, 3),
    "places": lambda: sums_for_places(2, 2, 4, 5, 12, 32, 3),
    "places odd": lambda: sums_for_places(3, 1, 5, 5, 13, 17, 3),
    "places in planes": lambda: sums_for_places(2, 2, 4, 4, 8, 16, 3, channels_last=False),
    "places apart": lambda: sums_for_places(2, 2, 5, 8, 4, 32, 3, step=2),
    "places of large windows": lambda: sums_for_places(1, 2, 4, 5, 8, 16, 5, padding=2),
    "places of inner windows": lambda: sums_for_places(2, 2, 4, 5, 5, 17, 2, padding=0),
    "places of many channels": lambda: sums_for_places(1, 1, 4, 4, 64, 16, 2, padding=0),
    "places of few channels": lambda: sums_for_places(2, 2, 4, 4, 3, 16, 3),
    "sequence": lambda: convolution_of_sequence(2, 30, 7, 32, 3),
    "long sequence": lambda: convolution_of_sequence(1, 362, 4, 16, 3),
    "gather": lambda: gather(x(30, 21), x(17, identity=2)) + 1,
    "scan": lambda: scan(x(13, 40), 0) + 0,
    "scan of rows": lambda: scan(x(13, 40), 1) + 0,
    "scan of many rows": lambda: scan(x(1030, 40), 1) + 0,
    "scan of columns": lambda: scan(x(50, 1030), 0) + 0,
    "scan in the middle": lambda: scan(x(7, 9, 50), 1) + 0,
    "scan of bytes": lambda: scan(x(37, 40, dtype=dtypes.int8), 1) + 0,
    "scatter": lambda: scatter(x(30, 21), x(17, identity=2), x(17, 21, identity=3)),
    "in place": lambda: assign(
        x(30, 21), shrink(x(30, 21), (1, 29), (0, 20)), shrink(x(30, 21), (1, 29), (0, 20)) * 3
    ),
    "constant": lambda: UOp.const(dtypes.int32, 7, (200,)),
    "symbolic": lambda: x(N, 33) * 2 + x(N, 33, identity=2),
    "symbolic inside": lambda: x(9, N) * 2 + 1,
    "symbolic sums": lambda: total(x(9, N), 1),
    "symbolic columns": lambda: total(x(N, 20), 0),
    "symbolic rows": lambda: rows(x(N, 20)),
    "rows of symbolic": lambda: rows(x(6, N)),
    "symbolic matmul": lambda: matmul(x(N, 20), x(20, 40, identity=2)),
    "matmul over symbolic": lambda: matmul(x(20, N), x(N, 40, identity=2)),
    "symbolic square": lambda: matmul(x(N, 16), permute(x(N, 16, identity=2), 1, 0)),
}


def kernels_of(root):
    numbered, _ = number_buffers([root])
    return [step.kernel for step in make_schedule(numbered, "X").steps if isinstance(step, KernelStep)]


def arrays_for(kernel, size):
    random = np.random.default_rng(0)
    found = {}
    for node in kernel.toposort():
        if node.op is ops.PARAM:
            slot, shape = node.arg
            count = math.prod(s if isinstance(s, int) else dims.evaluate(s, {N: size}) for s in shape)
            found[slot] = random.integers(0, 7, count).astype(node.dtype.numpy)
    return found


def meaning(kernel, arrays, size):
    result = {slot: array.copy() for slot, array in arrays.items()}
    interpret_kernel(kernel, result, {N: size})
    return result[0]


def tiled(kernel, target):
    """The kernel behind the pass."""
    context = Context(target)
    for step in BEFORE_TILE:
        kernel = step.run(kernel, context)
    result = tinycore_pass_tile.run(kernel, context)
    verify(result, "kernel")
    return result


def lowered(kernel, target):
    """The program behind the pass, verified."""
    result = tiled(kernel, target)
    for step in (*AFTER_TILE, *LOWERING):
        result = step.run(result, Context(target))
        verify(result, "kernel")
    linear = linearize(result, target, index_dtype(result, target))
    verify(linear, "program")
    return assemble(kernel, linear)


def run(program, arrays, size):
    result = {slot: array.copy() for slot, array in arrays.items()}
    grid = [s if isinstance(s, int) else dims.evaluate(s, {N: size}) for s in program.grid]
    interpret_program(program.linear, result, {N: size}, grid, program.group)
    return result[0]
