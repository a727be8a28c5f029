"""The innermost block of a matrix product, as machine instructions: C[rows,:] += A[rows,:] @ panel.

The block of C has a fixed number of rows and the width of one cache line (16 float32 or 8 float64 columns).  It stays
in vector registers for the whole loop over k; each turn loads one row of the panel and multiplies it by one number of
every row of A:

    for k in range(depth):
        u = panel[k]                            # one cache line
        for r in range(rows):                   # unrolled by the generator
            acc[r] = fma(A[r, k], u, acc[r])

Numba does not keep such a block in registers when it is written as loops.  So an ``@intrinsic`` writes the instructions
in LLVM's own language, and nothing is left to guess.  Vectors are as long as a cache line whatever the machine; LLVM
splits them where its registers are shorter, and there a block of fewer rows fits.

Every element of C is one chain of fused multiply-adds over k, whatever rows stand beside it: its bits do not depend on
the batch around it, nor on the number of threads.
"""
import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LINE_BYTES = 64
I32, I64 = ir.IntType(32), ir.IntType(64)

HAS_LINE_REGISTERS = bool(llvm.get_host_cpu_features().get("avx512f"))
ROWS = 8 if HAS_LINE_REGISTERS else 4           # accumulators must leave registers for the panel row and the factor


def block_product(rows):
    """An intrinsic f(A, a_start, a_row, a_k, panels, p_start, depth, C, c_start, c_row) for ``rows`` rows.

    A, panels, C   arrays of one floating-point type, addressed flat
    *_start        index of the first element
    *_row, a_k     distance between neighbours in a column, and in a row of A
    depth          the number of turns of the loop over k
    """
    @intrinsic
    def block(typingctx, A, a_start, a_row, a_k, panels, p_start, depth, C, c_start, c_row):
        if not A.dtype == panels.dtype == C.dtype:
            raise TypeError(f"one dtype expected, got {A.dtype}, {panels.dtype}, {C.dtype}")
        index = types.int64
        signature = types.void(A, index, index, index, panels, index, index, C, index, index)

        def codegen(context, builder, sig, args):
            _emit(context, builder, sig.args, args, rows)
            return context.get_dummy_value()

        return signature, codegen

    return block


def _emit(context, builder, arg_types, args, rows):
    A, a_start, a_row, a_k, panels, p_start, depth, C, c_start, c_row = args
    scalar = context.get_data_type(arg_types[0].dtype)
    item_bytes = arg_types[0].dtype.bitwidth // 8
    lanes = LINE_BYTES // item_bytes
    vector = ir.VectorType(scalar, lanes)
    undefined = ir.Constant(vector, ir.Undefined)
    lane_zero = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
    fma = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}f{8 * item_bytes}")

    def row_pointers(position, array, start, stride):
        first = builder.gep(context.make_array(arg_types[position])(context, builder, array).data, [start])
        return [builder.gep(first, [builder.mul(stride, I64(r))]) for r in range(rows)]

    def as_vector(pointer):
        return builder.bitcast(pointer, vector.as_pointer())

    def broadcast(number):
        return builder.shuffle_vector(builder.insert_element(undefined, number, I32(0)), undefined, lane_zero)

    a_rows = row_pointers(0, A, a_start, a_row)
    c_rows = row_pointers(7, C, c_start, c_row)
    panel = builder.gep(context.make_array(arg_types[4])(context, builder, panels).data, [p_start])

    accumulators = [cgutils.alloca_once(builder, vector) for _ in range(rows)]      # LLVM turns these into registers
    for accumulator, pointer in zip(accumulators, c_rows):
        builder.store(builder.load(as_vector(pointer), align=item_bytes), accumulator)
    with cgutils.for_range(builder, depth, intp=I64) as loop:
        u = builder.load(as_vector(builder.gep(panel, [builder.mul(loop.index, I64(lanes))])), align=item_bytes)
        along_k = builder.mul(loop.index, a_k)
        for accumulator, pointer in zip(accumulators, a_rows):
            factor = broadcast(builder.load(builder.gep(pointer, [along_k])))
            builder.store(builder.call(fma, [factor, u, builder.load(accumulator)]), accumulator)
    for accumulator, pointer in zip(accumulators, c_rows):
        builder.store(builder.load(accumulator), as_vector(pointer), align=item_bytes)
