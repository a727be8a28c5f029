"""The innermost block of a matrix product, as machine instructions: C[rows,:] = S[rows,:] + A[rows,:] @ panels.

The block of C has a fixed number of rows and the width of one panel or several; a panel is as wide as a cache line (16
float32 or 8 float64 columns).  The block stays in vector registers for the whole loop over k; each turn loads one line
of each panel and multiplies it by one number of every row of A:

    for k in range(depth):
        for p in range(panels):                 # unrolled by the generator
            u = panel[p, k]                     # one cache line
            for r in range(rows):               # likewise
                acc[r, p] = fma(A[r, k], u, acc[r, p])

A processor finishes a multiply-add some cycles after it has begun it, and begins one or two in every cycle: it takes
some eight sums side by side to keep it busy.  Eight rows and one panel read the panel least often; where there is one
row alone, several panels give it its sums.

Numba does not keep such a block in registers when it is written as loops.  So an ``@intrinsic`` writes the instructions
in LLVM's own language, and nothing is left to guess.  Vectors are as long as a cache line whatever the machine; LLVM
splits them where its registers are shorter, and there a block of fewer rows fits.

Every element of C is one chain of fused multiply-adds over k, whatever stands beside it: its bits do not depend on the
batch around it, nor on the number of threads.
"""
import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LINE_BYTES = 64
I32, I64 = ir.IntType(32), ir.IntType(64)

HAS_LINE_REGISTERS = bool(llvm.get_host_cpu_features().get("avx512f"))
ROWS = 8 if HAS_LINE_REGISTERS else 4           # accumulators must leave registers for the panel's line and the factor


def block_product(rows, panels=1):
    """An intrinsic f(A, a_start, a_row, a_k, P, p_start, p_ahead, p_step, depth, S, s_start, s_row, C, c_start, c_row).

    A, P, S, C     arrays of one floating-point type, addressed flat; P (panels,K,lanes)
    *_start        index of the first element
    *_row, a_k     distance between neighbours in a column, and in a row of A; s_row = 0: one line of S for all rows
    depth          the number of turns of the loop over k
    p_ahead        where numbers of P begin that will be needed soon: each turn asks the memory for p_step more of them
    """
    @intrinsic
    def block(typingctx, A, a_start, a_row, a_k, P, p_start, p_ahead, p_step, depth, S, s_start, s_row, C, c_start,
              c_row):
        if not A.dtype == P.dtype == S.dtype == C.dtype:
            raise TypeError(f"one dtype expected, got {A.dtype}, {P.dtype}, {S.dtype}, {C.dtype}")
        index = types.int64
        signature = types.void(A, index, index, index, P, index, index, index, index, S, index, index, C, index, index)

        def codegen(context, builder, sig, args):
            _emit(context, builder, sig.args, args, rows, panels)
            return context.get_dummy_value()

        return signature, codegen

    return block


def _emit(context, builder, arg_types, args, rows, panels):
    A, a_start, a_row, a_k, P, p_start, p_ahead, p_step, depth, S, s_start, s_row, C, c_start, c_row = args
    scalar = context.get_data_type(arg_types[0].dtype)
    item_bytes = arg_types[0].dtype.bitwidth // 8
    lanes = LINE_BYTES // item_bytes
    vector = ir.VectorType(scalar, lanes)
    undefined = ir.Constant(vector, ir.Undefined)
    lane_zero = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
    fma = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}f{8 * item_bytes}")

    def struct(position, array):
        return context.make_array(arg_types[position])(context, builder, array)

    def pointers(position, array, start, stride, count):
        first = builder.gep(struct(position, array).data, [start])
        return [builder.gep(first, [builder.mul(stride, I64(n))]) for n in range(count)]

    def lines(position, array, start, stride):
        """Pointers to the lines of a block of C or S, in the order of the accumulators."""
        return [builder.bitcast(builder.gep(row, [I64(p * lanes)]), vector.as_pointer())
                for row in pointers(position, array, start, stride, rows) for p in range(panels)]

    def broadcast(number):
        return builder.shuffle_vector(builder.insert_element(undefined, number, I32(0)), undefined, lane_zero)

    a_rows = pointers(0, A, a_start, a_row, rows)
    depth_of_panel = builder.extract_value(struct(4, P).shape, 1)
    panel_starts = pointers(4, P, p_start, builder.mul(depth_of_panel, I64(lanes)), panels)

    accumulators = [cgutils.alloca_once(builder, vector) for _ in range(rows * panels)]    # LLVM makes them registers
    for accumulator, line in zip(accumulators, lines(9, S, s_start, s_row)):
        builder.store(builder.load(line, align=item_bytes), accumulator)
    for line in lines(9, S, builder.add(s_start, builder.mul(s_row, I64(rows))), s_row):       # of the rows below
        prefetch(builder, line)
    ahead = builder.gep(struct(4, P).data, [p_ahead])
    with cgutils.for_range(builder, depth, intp=I64) as loop:
        prefetch(builder, builder.gep(ahead, [builder.mul(loop.index, p_step)]))
        along_panel, along_a = builder.mul(loop.index, I64(lanes)), builder.mul(loop.index, a_k)
        us = [builder.load(builder.bitcast(builder.gep(start, [along_panel]), vector.as_pointer()), align=item_bytes)
              for start in panel_starts]
        for r, row in enumerate(a_rows):
            factor = broadcast(builder.load(builder.gep(row, [along_a])))
            for accumulator, u in zip(accumulators[r * panels:], us):
                builder.store(builder.call(fma, [factor, u, builder.load(accumulator)]), accumulator)
    for accumulator, line in zip(accumulators, lines(12, C, c_start, c_row)):
        builder.store(builder.load(accumulator), line, align=item_bytes)


def block_copy(count):
    """An intrinsic f(source, s_start, target, t_start) that copies so many neighbours, flat, as one vector.  A loop
    copies one by one: the compiler cannot know that the two arrays do not overlap."""
    @intrinsic
    def copy(typingctx, source, s_start, target, t_start):
        def codegen(context, builder, signature, args):
            item_bytes = source.dtype.bitwidth // 8
            vector = ir.VectorType(context.get_data_type(source.dtype), count).as_pointer()
            start, end = (builder.bitcast(builder.gep(context.make_array(kind)(context, builder, array).data, [first]),
                                          vector) for kind, array, first in ((source, *args[:2]), (target, *args[2:])))
            builder.store(builder.load(start, align=item_bytes), end, align=item_bytes)
            return context.get_dummy_value()

        return types.void(source, types.int64, target, types.int64), codegen

    return copy


def block_transpose(count):
    """An intrinsic f(source, s_start, s_step, target, t_start, t_step) for a square of so many numbers each way:
    target[t_start + k * t_step + j] = source[s_start + j * s_step + k].

    The rows are vectors.  Blocks beside the diagonal change places, first those of half the width, then of a quarter
    inside each, down to single numbers."""
    @intrinsic
    def transpose(typingctx, source, s_start, s_step, target, t_start, t_step):
        def codegen(context, builder, signature, args):
            item_bytes = source.dtype.bitwidth // 8
            vector = ir.VectorType(context.get_data_type(source.dtype), count).as_pointer()

            def pointers(kind, array, start, step):
                data = context.make_array(kind)(context, builder, array).data
                return [builder.bitcast(builder.gep(data, [builder.add(start, builder.mul(step, I64(n)))]), vector)
                        for n in range(count)]

            def picked(one, other, places):
                return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(I32, count), places))

            rows = [builder.load(pointer, align=item_bytes) for pointer in pointers(source, *args[:3])]
            width = count // 2
            while width:
                for j in range(count):
                    if not j & width:
                        upper, lower = rows[j], rows[j + width]
                        rows[j] = picked(upper, lower, [count + k - width if k & width else k for k in range(count)])
                        rows[j + width] = picked(
                            upper, lower, [count + k if k & width else k + width for k in range(count)])
                width //= 2
            for row, pointer in zip(rows, pointers(target, *args[3:])):
                builder.store(row, pointer, align=item_bytes)
            return context.get_dummy_value()

        index = types.int64
        return types.void(source, index, index, target, index, index), codegen

    return transpose


def prefetch(builder, pointer):
    """Ask for a cache line that will be read soon."""
    byte = ir.IntType(8).as_pointer()
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32]), "llvm.prefetch.p0i8")
    builder.call(function, [builder.bitcast(pointer, byte), I32(0), I32(2), I32(1)])
