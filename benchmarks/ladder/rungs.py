"""The forward pass of an LSTM layer, five times: from Python to the last rung before the library's own.

Every rung has one idea that the one before it has not, the same parameters and the same result:

    x (B,T,D), weights W (4H,D), U (4H,H), b (4H,) -> y (B,T,H), from a state of zeros, without a mask

Beside each stands what it moves, in bytes: everything that it reads or writes between one operation and the next,
counted from its lines, each array as often as a line names it.  What stays in a processor's registers is free.
"""
import math

import numba
import numpy as np

from minilstm.cells import lstm
from minilstm.machine.buffers import empty
from minilstm.machine.kernel import SETTINGS
from minilstm.machine.threads import get_num_threads, spread

compiled = numba.njit(**SETTINGS)


# ------------------------------------------------------------------ 1: the equations, number by number, in plain Python

def pure_python(x, W, U, b):
    x, W, U, b = (a.tolist() for a in (x, W, U, b))
    return np.array([sequence_in_python(row, W, U, b) for row in x], np.float32)


def sequence_in_python(x, W, U, b):
    H = len(U[0])
    h, c, y = [0.0] * H, [0.0] * H, []
    for x_t in x:
        a = [sum(w * v for w, v in zip(W[k], x_t)) + sum(u * v for u, v in zip(U[k], h)) + b[k] for k in range(4 * H)]
        for j in range(H):
            i, f, o = (1 / (1 + math.exp(-a[k])) for k in (j, H + j, 3 * H + j))
            c[j] = f * c[j] + i * math.tanh(a[2 * H + j])
            h[j] = o * math.tanh(c[j])
        y.append(h.copy())
    return y


def bytes_of_pure_python(B, T, D, H):
    """Each number is a pointer and an object of its own, 8 + 24 bytes."""
    return 32 * B * T * (2 * 4 * H * (D + H) + 20 * H)


# ----------------------------------------------------------------------------- 2: a step of all rows at once, in NumPy

def numpy_per_step(x, W, U, b):
    B, T, _ = x.shape
    h, c = np.zeros((2, B, U.shape[1]), x.dtype)
    y = empty((B, T, U.shape[1]), x.dtype)
    for t in range(T):
        a = x[:, t] @ W.T + h @ U.T + b
        _, _, _, _, h, c = lstm.forward(*np.split(a, 4, axis=1), c)
        y[:, t] = h
    return y


def bytes_of_numpy_per_step(B, T, D, H):
    products = 4 * H * (D + H) + B * (D + H) + 2 * B * 4 * H        # the weights, x_t and h, two results
    sums, formulas = 2 * 3 * B * 4 * H, 36 * B * H                  # some 36 passes over arrays of (B,H)
    return 4 * T * (products + sums + formulas)


# ----------------------------------------------------------- 3: the input's products of all steps before the first step

def one_projection(x, W, U, b):
    B, T, _ = x.shape
    a_x = projection(x, W, b)
    h, c = np.zeros((2, B, U.shape[1]), x.dtype)
    y = empty((B, T, U.shape[1]), x.dtype)
    for t in range(T):
        _, _, _, _, h, c = lstm.forward(*np.split(a_x[:, t] + h @ U.T, 4, axis=1), c)
        y[:, t] = h
    return y


def projection(x, W, b):
    """In memory that is used again: to fill 20 MB of new memory would cost more than the product."""
    a_x = np.matmul(x, W.T, out=empty((*x.shape[:2], len(W)), x.dtype))
    a_x += b
    return a_x


def bytes_of_one_projection(B, T, D, H):
    before = 4 * H * D + B * T * (D + 3 * 4 * H)
    step = 4 * H * H + B * H + B * 4 * H + 3 * B * 4 * H + 36 * B * H
    return 4 * (before + T * step)


# ------------------------------------------------------------- 4: the formulas of a step in one pass, compiled by Numba

def compiled_gates(x, W, U, b):
    B, T, _ = x.shape
    H = U.shape[1]
    a_x = projection(x, W, b)
    state, gates, own = np.zeros((2, B, 2, H), x.dtype), np.empty((4, H), x.dtype), np.empty((0, H), x.dtype)
    y = empty((B, T, H), x.dtype)
    for t in range(T):
        before, after = state[t % 2], state[(t + 1) % 2]
        gates_of_rows(a_x, before[:, 0] @ U.T, own, before, after, gates, y, t)
    return y


@compiled
def gates_of_rows(a_x, a, own, before, after, gates, y, t):
    _, H = gates.shape
    for row in range(len(a)):
        for k in range(4 * H):
            a[row, k] += a_x[row, t, k]
        lstm.forward_row(a[row].reshape((4, H)), own, before[row], after[row], gates)
        y[row, t] = after[row, 0]


def bytes_of_compiled_gates(B, T, D, H):
    before = 4 * H * D + B * T * (D + 3 * 4 * H)
    step = 4 * H * H + 3 * B * H + B * 4 * H + 2 * B * 4 * H + 4 * B * H
    return 4 * (before + T * step)


# ----------------------------------- 5: whole sequences in one compiled function, a share of the rows for every thread

def whole_sequences(x, W, U, b):
    B, T, _ = x.shape
    y = empty((B, T, U.shape[1]), x.dtype)
    W_T, U_T = (np.ascontiguousarray(matrix.T) for matrix in (W, U))
    threads = get_num_threads()
    cuts = [B * k // threads for k in range(threads + 1)]
    spread(lambda k: sequences(x[cuts[k]:cuts[k + 1]], W_T, U_T, b, y[cuts[k]:cuts[k + 1]]), threads, threads)
    return y


@compiled
def sequences(x, W_T, U_T, b, y):
    B, T, H = y.shape
    own, gates, state = np.empty((0, H), x.dtype), np.empty((4, H), x.dtype), np.zeros((2, B, 2, H), x.dtype)
    a = np.empty((B, 4 * H), x.dtype)
    for t in range(T):                                              # all rows of a step: the weights stay near
        before, after = state[t % 2], state[(t + 1) % 2]
        a[:] = b
        add_product(x[:, t], W_T, a)
        add_product(before[:, 0], U_T, a)
        for row in range(B):
            lstm.forward_row(a[row].reshape((4, H)), own, before[row], after[row], gates)
            y[row, t] = after[row, 0]


@compiled
def add_product(v, M, a):
    """a += v @ M, four rows of a and four of M at a time, so that each is read and written a quarter as often."""
    rows, depth = len(v) // 4 * 4, len(M) // 4 * 4
    for r in range(0, rows, 4):
        a_0, a_1, a_2, a_3 = a[r], a[r + 1], a[r + 2], a[r + 3]
        for k in range(0, depth, 4):
            v_0, v_1, v_2, v_3 = v[r, k:k + 4], v[r + 1, k:k + 4], v[r + 2, k:k + 4], v[r + 3, k:k + 4]
            M_0, M_1, M_2, M_3 = M[k], M[k + 1], M[k + 2], M[k + 3]
            for j in range(a.shape[1]):
                a_0[j] += v_0[0] * M_0[j] + v_0[1] * M_1[j] + v_0[2] * M_2[j] + v_0[3] * M_3[j]
                a_1[j] += v_1[0] * M_0[j] + v_1[1] * M_1[j] + v_1[2] * M_2[j] + v_1[3] * M_3[j]
                a_2[j] += v_2[0] * M_0[j] + v_2[1] * M_1[j] + v_2[2] * M_2[j] + v_2[3] * M_3[j]
                a_3[j] += v_3[0] * M_0[j] + v_3[1] * M_1[j] + v_3[2] * M_2[j] + v_3[3] * M_3[j]
    for r in range(len(v)):                                         # what is left over, plainly
        for k in range(depth if r < rows else 0, len(M)):
            for j in range(a.shape[1]):
                a[r, j] += v[r, k] * M[k, j]


def bytes_of_whole_sequences(B, T, D, H):
    """For every four rows of the batch the weights once; for every four of their rows the sums in and out."""
    return 4 * B * T * (4 * H * (D + H) // 4 + 2 * 4 * H * (D + H) // 4 + D + 14 * H)


def bytes_of_the_library(B, T, D, H):
    """Panels of weights once for every eight rows, h and x of the rows once for every panel of 16 columns, sums of 64
    units in and out; nothing is kept of the gates."""
    blocks, panels = -(-B // 8), 4 * H // 16
    return 4 * T * (blocks * 4 * H * (D + H) + panels * B * (D + H) + 3 * B * 4 * H + 4 * B * H)
