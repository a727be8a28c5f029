"""The instructions of a GPU that Numba has no name for: all low-level code of the project is in this file.

Each function here is one instruction, or a short sequence, as LLVM IR or inline PTX.  ``twins.py`` has a function
of the same name for each, in Python, which the simulator calls; so what an instruction means can be read there.

Arrays are C-contiguous and addressed flat, whatever their axes: an index counts numbers from the first one.  "4" in a
name: four neighbours at once, 16 bytes; the index is then a multiple of 4.

Source: NVIDIA, Parallel Thread Execution ISA, version 9.0 (PTX); section numbers are not given, the names of the
instructions find them.
"""
from llvmlite import ir

try:                                                    # numba-cuda in the place of numba.cuda
    from numba.cuda import types
    from numba.cuda.extending import intrinsic
    from numba.cuda.types import UniTuple
except ImportError:                                     # enough for the simulator, which compiles nothing of this file
    from numba.core import types
    from numba.core.types import UniTuple
    from numba.extending import intrinsic

F32, I32, I64, VOID = ir.FloatType(), ir.IntType(32), ir.IntType(64), ir.VoidType()
FLOAT4 = UniTuple(types.float32, 4)

TRIES = 1 << 22             # of a wait, before it gives up: some seconds
UNWRITTEN = -1              # the bits, as an int32, of a float that nobody has written yet: a NaN no arithmetic makes


def _pointer(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, value=array).data
    if index.type.width < 64:
        index = builder.sext(index, I64)
    return builder.gep(data, [index])


def _shared_address(context, builder, array_type, array, index):
    """The 32-bit address of a number in a shared array."""
    pointer = _pointer(context, builder, array_type, array, index)
    if pointer.type.addrspace != 3:
        pointer = builder.addrspacecast(pointer, ir.PointerType(pointer.type.pointee, 3))
    return builder.ptrtoint(pointer, I32)


def _asm(builder, returns, arguments, code, constraints, values, side_effect=True, attributes=()):
    inline = ir.InlineAsm(ir.FunctionType(returns, arguments), code, constraints, side_effect=side_effect)
    return builder.call(inline, values, attrs=attributes)


def _floats(context, builder, values):
    return context.make_tuple(builder, FLOAT4, values)


# ------------------------------------------------------------------------------------------ one number, by a flat index

@intrinsic
def load(typingctx, array, index):
    """One number.  ``array[b, t, j]`` computes its place from the shape, in 64 bits, and asks of each index whether it
    is negative: some ten instructions, which count in a loop over time."""
    def codegen(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], *args)
        return context.unpack_value(builder, signature.args[0].dtype, pointer)

    return array.dtype(array, index), codegen


@intrinsic
def store(typingctx, array, index, value):
    """One number."""
    def codegen(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        context.pack_value(builder, signature.args[0].dtype, args[2], pointer)

    return types.void(array, index, array.dtype), codegen


# ------------------------------------------------------------------------------------------------------- 16-byte access

@intrinsic
def load4(typingctx, array, index):
    """Four floats, from global or shared memory, in one instruction -> a tuple."""
    def codegen(context, builder, signature, args):
        vector = ir.VectorType(F32, 4)
        pointer = _pointer(context, builder, signature.args[0], *args)
        value = builder.load(builder.bitcast(pointer, vector.as_pointer()))
        value.align = 16
        return _floats(context, builder, [builder.extract_element(value, I32(k)) for k in range(4)])

    return FLOAT4(array, index), codegen


@intrinsic
def store4(typingctx, array, index, a, b, c, d):
    """Four floats, to global or shared memory, in one instruction."""
    def codegen(context, builder, signature, args):
        vector = ir.VectorType(F32, 4)
        value = ir.Constant(vector, ir.Undefined)
        for k in range(4):
            value = builder.insert_element(value, args[2 + k], I32(k))
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        builder.store(value, builder.bitcast(pointer, vector.as_pointer())).align = 16

    return types.void(array, index, *[types.float32] * 4), codegen


# --------------------------------------------------------------------------- between blocks, through global memory

# A try of a wait that failed: every 64 tries look whether anybody has given up; give up after TRIES, and say so.
_GIVE_UP = """add.u32 %n, %n, 1;
and.b32 %e, %n, 63;
setp.ne.u32 %pp, %e, 0;
@%pp bra LOOP_${{:uid}};
ld.relaxed.gpu.global.b32 %e, [{error}];
setp.ne.u32 %pp, %e, 0;
@%pp bra DONE_${{:uid}};
setp.lt.u32 %pp, %n, {tries};
@%pp bra LOOP_${{:uid}};
mov.u32 %e, 1;
st.relaxed.gpu.global.b32 [{error}], %e;
DONE_${{:uid}}:
"""


@intrinsic
def poll4(typingctx, array, index, error):
    """Look at four floats until none of them is UNWRITTEN -> a tuple.

    The numbers are their own flag: another block writes them with ``store_relaxed``, each once.  After TRIES looks
    error[0] (int32) becomes 1 and the numbers are returned as they are; from then on nobody waits long, so a kernel
    with a bug ends, with NaN in its results, and does not hang the machine."""
    def codegen(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        flag = _pointer(context, builder, signature.args[2], args[2], ir.Constant(I64, 0))
        code = ("{ .reg .pred %pp; .reg .b32 %q0,%q1,%q2,%q3,%n,%e;\n"
                "mov.u32 %n, 0;\n"
                "LOOP_${:uid}:\n"
                "ld.relaxed.gpu.global.v4.b32 {%q0,%q1,%q2,%q3}, [$4];\n"
                "setp.ne.s32 %pp, %q0, -1;\n" + "".join(f"setp.ne.and.s32 %pp, %q{k}, -1, %pp;\n" for k in (1, 2, 3)) +
                "@%pp bra DONE_${:uid};\n" + _GIVE_UP.format(error="$5", tries=TRIES) +
                "mov.b32 $0,%q0; mov.b32 $1,%q1; mov.b32 $2,%q2; mov.b32 $3,%q3; }")
        found = _asm(builder, ir.LiteralStructType([F32] * 4), [pointer.type, flag.type], code,
                     "=f,=f,=f,=f,l,l,~{memory}", [pointer, flag])
        return _floats(context, builder, [builder.extract_value(found, k) for k in range(4)])

    return FLOAT4(array, index, error), codegen


@intrinsic
def load4_relaxed(typingctx, array, index):
    """Four floats, as they are now, UNWRITTEN or not: the first look of a wait, so that several can be under way."""
    def codegen(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], *args)
        found = _asm(builder, ir.LiteralStructType([F32] * 4), [pointer.type],
                     "ld.relaxed.gpu.global.v4.f32 {$0,$1,$2,$3}, [$4];", "=f,=f,=f,=f,l,~{memory}", [pointer])
        return _floats(context, builder, [builder.extract_value(found, k) for k in range(4)])

    return FLOAT4(array, index), codegen


@intrinsic
def store_relaxed(typingctx, array, index, value):
    """Write a float that other blocks poll: in the memory model of PTX an ordinary store would race with them."""
    def codegen(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        _asm(builder, VOID, [pointer.type, F32], "st.relaxed.gpu.global.f32 [$0], $1;", "l,f,~{memory}",
             [pointer, args[2]])

    return types.void(array, index, types.float32), codegen


# --------------------------------------------------------------------------------------------- functions and their bits

def _unary(name, code, doc):
    def function(typingctx, x):
        def codegen(context, builder, signature, args):
            return _asm(builder, F32, [F32], code, "=f,f", args, side_effect=False)

        return types.float32(types.float32), codegen

    function.__name__, function.__doc__ = name, doc
    return intrinsic(function)


exp2 = _unary("exp2", "ex2.approx.ftz.f32 $0, $1;", "2**x to 2 ulp; 0 for a result below the smallest normal number.")
log2 = _unary("log2", "lg2.approx.ftz.f32 $0, $1;", "The logarithm to base 2, to 2**-22 absolute.")
reciprocal = _unary("reciprocal", "rcp.approx.ftz.f32 $0, $1;", "1 / x to 1 ulp.")


@intrinsic
def times(typingctx, a, b):
    """a * b, rounded.  What is written ``a * b + c`` may become one instruction, which does not round the product."""
    def codegen(context, builder, signature, args):
        return _asm(builder, F32, [F32, F32], "mul.rn.f32 $0, $1, $2;", "=f,f,f", args, side_effect=False)

    return types.float32(types.float32, types.float32), codegen


@intrinsic
def bits_of(typingctx, x):
    """The bits of a float32, as an int32."""
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], I32)

    return types.int32(types.float32), codegen


@intrinsic
def float_of(typingctx, bits):
    """The float32 with the bits of an int32."""
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], F32)

    return types.float32(types.int32), codegen


# --------------------------------------------------------------------------------------------------------- tensor cores

@intrinsic
def to_tf32(typingctx, x):
    """A float rounded to TF32, which has 8 bits of exponent and 10 of mantissa -> its bits, as an int32."""
    def codegen(context, builder, signature, args):
        return _asm(builder, I32, [F32], "cvt.rna.tf32.f32 $0, $1;", "=r,f", args, side_effect=False)

    return types.int32(types.float32), codegen


@intrinsic
def mma_tf32(typingctx, a, b, c):
    """A (16,8) @ B (8,8) + C (16,8), by the 32 lanes of a warp together, which hold the matrices between them.  Said to
    have side effects and to be convergent, so that the compiler neither moves nor copies it to where the lanes may not
    be together.

    With group, t = divmod(lane, 4) a lane gives and gets
        a: 4 int32, TF32 bits of A[group, t], A[group + 8, t], A[group, t + 4], A[group + 8, t + 4]
        b: 2 int32, TF32 bits of B[t, group], B[t + 4, group]
        c, and the result: 4 float32, C[group, 2t], C[group, 2t + 1], C[group + 8, 2t], C[group + 8, 2t + 1]"""
    def codegen(context, builder, signature, args):
        operands = [builder.extract_value(group, k) for group, n in zip(args, (4, 2, 4)) for k in range(n)]
        code = ("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};")
        found = _asm(builder, ir.LiteralStructType([F32] * 4), [I32] * 6 + [F32] * 4, code,
                     "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f", operands, attributes=("convergent",))
        return _floats(context, builder, [builder.extract_value(found, k) for k in range(4)])

    return FLOAT4(UniTuple(types.int32, 4), UniTuple(types.int32, 2), FLOAT4), codegen


# ----------------------------------------------------------------------- copies from global to shared memory, meanwhile

@intrinsic
def copy4(typingctx, shared, to, array, index, count):
    """Begin to copy the first ``count`` (0 to 4) of four floats from array[index] to shared[to], and zeros for the
    rest, past the registers.  array[index] must be an address in the array even if count is 0."""
    def codegen(context, builder, signature, args):
        target = _shared_address(context, builder, signature.args[0], args[0], args[1])
        source = _pointer(context, builder, signature.args[2], args[2], args[3])
        size = builder.shl(builder.trunc(args[4], I32) if args[4].type.width > 32 else args[4], I32(2))
        _asm(builder, VOID, [I32, source.type, I32], "cp.async.cg.shared.global [$0], [$1], 16, $2;", "r,l,r,~{memory}",
             [target, source, size])

    return types.void(shared, to, array, index, count), codegen


@intrinsic
def copy1(typingctx, shared, to, array, index, count):
    """Begin to copy array[index] to shared[to], or a zero if count is 0.  array[index] must exist even then."""
    def codegen(context, builder, signature, args):
        target = _shared_address(context, builder, signature.args[0], args[0], args[1])
        source = _pointer(context, builder, signature.args[2], args[2], args[3])
        size = builder.shl(builder.trunc(args[4], I32) if args[4].type.width > 32 else args[4], I32(2))
        _asm(builder, VOID, [I32, source.type, I32], "cp.async.ca.shared.global [$0], [$1], 4, $2;",
             "r,l,r,~{memory}", [target, source, size])

    return types.void(shared, to, array, index, count), codegen


@intrinsic
def copies_commit(typingctx):
    """The copies begun since the last commit are one group."""
    def codegen(context, builder, signature, args):
        _asm(builder, VOID, [], "cp.async.commit_group;", "~{memory}", [])

    return types.void(), codegen


@intrinsic
def copies_wait(typingctx, pending):
    """Wait until at most so many groups of this thread's copies (a literal number) are still under way."""
    if not isinstance(pending, types.IntegerLiteral):
        return None
    groups = pending.literal_value

    def codegen(context, builder, signature, args):
        _asm(builder, VOID, [], f"cp.async.wait_group {groups};", "~{memory}", [])

    return types.void(pending), codegen
