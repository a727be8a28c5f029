"""How fast are minilstm's LSTM and GRU beside other libraries, on the same threads of the same processor?

For each shape, kind of layer and number of threads, on float32 and the same weights:

    forward     outputs and final states, nothing kept    PyTorch, ONNX Runtime, JAX
    training    forward, then the gradients of x and of every weight and bias, from a given gradient of y
                                                          PyTorch, JAX
    ragged      training on rows of T/4 to T real steps   PyTorch on a packed sequence
    online      one sequence: forward, squared error, gradients, a step of Adam
                                                          PyTorch

Everything is checked against PyTorch, or PyTorch against us, before it is timed.  All programs hold their arrays before
the clock starts, in the layout that their library likes best: ONNX Runtime and JAX get time first.  A ratio is the
peer's time over ours, the median over pairs of neighbouring runs: above 1, minilstm is faster.

ONNX Runtime and JAX take part where they are installed.  JAX is a scan over the steps, compiled, its input multiplied
for all steps at once; it cannot be held to some threads, so with one thread it runs on one core, as all then do.

Run:  pip install -e '.[peers]' && python benchmarks/peers.py                   (about ten minutes)
      --quick: the three smallest shapes; --save: keep figures in benchmarks/results/ and the tables in README.md
"""
import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import minilstm
from measure import geometric_mean, interleaved, into_readme, machine, markdown_table, median_ratio, save
from minilstm.interop import from_pytorch, to_onnx

SHAPES = [(1, 100, 8, 8), (8, 100, 64, 64), (32, 50, 32, 64), (32, 100, 64, 128), (64, 100, 128, 256),
          (64, 50, 256, 512), (64, 25, 512, 1024)]                              # (B, T, D, H)
ONLINE = [(1, 10, 8, 8), (1, 10, 32, 32), (1, 100, 8, 8), (1, 100, 32, 32)]
KINDS = ("LSTM", "GRU")
WORK = {"forward": ("PyTorch", "ONNX Runtime", "JAX"), "training": ("PyTorch", "JAX"), "ragged": ("PyTorch",)}
ALLOWED_ERROR = 1e-4                                                            # of the largest number in an array


class Case:
    """Our layer, PyTorch's with the same weights, and what goes through them."""

    def __init__(self, kind, shape):
        B, T, D, H = shape
        torch.manual_seed(0)
        self.theirs = getattr(torch.nn, kind)(D, H, batch_first=True)
        self.ours = from_pytorch(self.theirs)
        self.x_torch, self.dy_torch = torch.randn(B, T, D, requires_grad=True), torch.randn(B, T, H)
        self.x, self.dy = self.x_torch.detach().numpy(), self.dy_torch.numpy()
        self.lengths = np.linspace(T, T // 4, B).round().astype(int)
        self.weights = [p.detach().numpy() for p in self.theirs.parameters()]       # W, U, b_ih, b_hh

    # ------------------------------------------------------------------------------------------------------- ours

    def our_forward(self):
        return self.ours.forward(self.x, cache=False)

    def our_training(self, lengths=None):
        self.ours.zero_grads()
        out, cache = self.ours.forward(self.x, lengths=lengths)
        return out.y, self.ours.backward(cache, self.dy).dx

    def our_ragged(self):
        return self.our_training(self.lengths)

    # ---------------------------------------------------------------------------------------------------- PyTorch

    def torch_forward(self):
        with torch.no_grad():
            return self.theirs(self.x_torch)

    def torch_training(self):
        self.theirs.zero_grad()
        self.x_torch.grad = None
        y, _ = self.theirs(self.x_torch)
        y.backward(self.dy_torch)
        return y

    def torch_ragged(self):
        self.theirs.zero_grad()
        self.x_torch.grad = None
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            self.x_torch, torch.from_numpy(self.lengths), batch_first=True, enforce_sorted=False)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(
            self.theirs(packed)[0], batch_first=True, total_length=self.x.shape[1])
        y.backward(self.dy_torch)
        return y

    # ------------------------------------------------------------------------------------------------ the programs

    def programs(self, threads):
        """dict (work, who) -> program, all checked."""
        found = {("forward", "minilstm"): self.our_forward, ("forward", "PyTorch"): self.torch_forward,
                 ("training", "minilstm"): self.our_training, ("training", "PyTorch"): self.torch_training,
                 ("ragged", "minilstm"): self.our_ragged, ("ragged", "PyTorch"): self.torch_ragged}
        for work in ("ragged", "training"):
            y_torch = found[work, "PyTorch"]().detach().numpy()
            y, dx = found[work, "minilstm"]()
            check(f"{work}: y", y, y_torch)
            check(f"{work}: dx", dx, self.x_torch.grad.numpy())
            for name, p in self.theirs.named_parameters():
                check(f"{work}: {name}", self.ours.grads[name], p.grad.numpy())
        check("forward: y", self.our_forward()[0].y, y_torch)
        if importlib.util.find_spec("onnxruntime"):
            found["forward", "ONNX Runtime"] = onnx_forward(self, threads, y_torch)
        if importlib.util.find_spec("jax"):
            found["forward", "JAX"], found["training", "JAX"] = jax_programs(self, y_torch, self.x_torch.grad.numpy())
        return found


def onnx_forward(case, threads, y_expected):
    """ONNX's operator alone, without the transposes that our export puts around it."""
    import onnx
    import onnxruntime
    kind = type(case.ours).__name__
    whole = onnx.shape_inference.infer_shapes(to_onnx(case.ours))
    states = [value.name for value in whole.graph.input if value.name in ("h0", "c0")]
    operator = onnx.utils.Extractor(whole).extract_model(["x.time_first", "sequence_lens", *states], [f"{kind}_l0.Y"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(operator.SerializeToString(), options, providers=["CPUExecutionProvider"])
    B, T, _ = case.x.shape
    inputs = {"x.time_first": np.ascontiguousarray(case.x.swapaxes(0, 1)), "sequence_lens": np.full(B, T, "int32")}
    inputs |= {name: np.zeros((1, 1, B, case.ours.hidden_size), "float32") for name in states}
    check("forward: y of ONNX Runtime", session.run(None, inputs)[0][:, 0].swapaxes(0, 1), y_expected)
    return lambda: session.run(None, inputs)


def jax_programs(case, y_expected, dx_expected):
    """(forward, training): a scan over the steps, compiled."""
    import jax
    from jax import numpy as jnp
    lstm = type(case.ours) is minilstm.LSTM

    def forward(weights, x):
        W, U, b_ih, b_hh = weights
        a_x = x @ W.T + b_ih                                                    # x (T,B,D)
        zeros = jnp.zeros((x.shape[1], U.shape[1]), x.dtype)

        def lstm_step(state, a_x):
            h, c = state
            i, f, g, o = jnp.split(a_x + h @ U.T + b_hh, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        def gru_step(h, a_x):
            (x_r, x_z, x_n), (h_r, h_z, h_n) = jnp.split(a_x, 3, axis=1), jnp.split(h @ U.T + b_hh, 3, axis=1)
            z, n = jax.nn.sigmoid(x_z + h_z), jnp.tanh(x_n + jax.nn.sigmoid(x_r + h_r) * h_n)
            h = (1 - z) * n + z * h
            return h, h

        return jax.lax.scan(lstm_step, (zeros, zeros), a_x)[1] if lstm else jax.lax.scan(gru_step, zeros, a_x)[1]

    def loss(weights, x, dy):
        return jnp.sum(forward(weights, x) * dy)

    weights = [jnp.asarray(w) for w in case.weights]
    x, dy = (jnp.asarray(np.ascontiguousarray(a.swapaxes(0, 1))) for a in (case.x, case.dy))
    compiled_forward, compiled_gradients = jax.jit(forward), jax.jit(jax.grad(loss, argnums=(0, 1)))
    check("forward: y of JAX", np.asarray(compiled_forward(weights, x)).swapaxes(0, 1), y_expected)
    _, dx = compiled_gradients(weights, x, dy)
    check("training: dx of JAX", np.asarray(dx).swapaxes(0, 1), dx_expected)
    return (lambda: compiled_forward(weights, x).block_until_ready(),
            lambda: jax.block_until_ready(compiled_gradients(weights, x, dy)))


def online_programs(kind, shape):
    """One sequence, squared error against a target, a step of Adam."""
    case = Case(kind, shape)
    target = 0.1 * case.dy
    torch_target = torch.from_numpy(target)
    our_adam, torch_adam = minilstm.Adam(0.001), torch.optim.Adam(case.theirs.parameters(), 0.001)

    def ours():
        out, cache = case.ours.forward(case.x)
        _, dy = minilstm.mean_squared_error(out.y, target)
        case.ours.zero_grads()
        case.ours.backward(cache, dy)
        our_adam.step(case.ours)

    x = case.x_torch.detach()

    def theirs():
        y, _ = case.theirs(x)
        torch_adam.zero_grad()
        torch.nn.functional.mse_loss(y, torch_target).backward()
        torch_adam.step()

    for _ in range(3):
        ours()
        theirs()
    for name, p in case.theirs.named_parameters():
        check(f"online: {name}", case.ours.params[name], p.detach().numpy())
    return {("online", "minilstm"): ours, ("online", "PyTorch"): theirs}


def check(name, found, expected):
    error = np.abs(found - expected).max() / np.abs(expected).max()
    if not error <= ALLOWED_ERROR:                                              # a NaN fails too
        raise SystemExit(f"{name}: relative error {error:.1e}, allowed {ALLOWED_ERROR:.0e}")


def measure(threads, repeats, shapes):
    """-> a list of results, one for each kind, shape, work and peer."""
    torch.set_num_threads(threads)
    minilstm.set_num_threads(threads)
    found = []
    for kind in KINDS:
        for shape in shapes:
            found += timed(kind, shape, threads, interleaved(Case(kind, shape).programs(threads), repeats))
        if threads == 1:                                # one sequence is no work for a second one
            for shape in ONLINE:
                found += timed(kind, shape, threads, interleaved(online_programs(kind, shape), repeats))
    return found


def timed(kind, shape, threads, times):
    results = []
    for work, peer in times:
        if peer != "minilstm":
            ratio = median_ratio(times, (work, peer), (work, "minilstm"))
            ours, theirs = (1e3 * statistics.median(times[work, who]) for who in ("minilstm", peer))
            results.append({"kind": kind, "shape": shape, "threads": threads, "work": work, "peer": peer,
                            "ratio": round(ratio, 3), "our ms": round(ours, 4), "peer's ms": round(theirs, 4)})
            print(f"{threads} thread(s)  {kind:4s}  {str(shape):22s} {work:8s} {peer:12s} {ratio:6.2f}    "
                  f"{ours:9.3f} ms against {theirs:9.3f} ms", flush=True)
    return results


def in_new_process(threads, arguments):
    """``measure`` in a process of its own: JAX and NumPy read how many threads they may use when they are imported."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        options = ["--quick"] if arguments.quick else []
        command = [sys.executable, __file__, "--into", str(path), "--threads", str(threads), "--repeats",
                   str(arguments.repeats), *options]
        if threads == 1 and hasattr(os, "sched_setaffinity"):
            cores = os.sched_getaffinity(0)
            subprocess.run(command, env=environment, check=True,
                           preexec_fn=lambda: os.sched_setaffinity(0, {max(cores)}))
        else:
            subprocess.run(command, env=environment, check=True)
        return json.loads(path.read_text())


def tables(results):
    """Markdown: for each kind a table of ratios, with all numbers of threads in a cell; then the online ones."""
    threads = sorted({r["threads"] for r in results})
    text = []
    for kind in KINDS:
        ratios = {(tuple(r["shape"]), r["work"], r["peer"], r["threads"]): r["ratio"]
                  for r in results if r["kind"] == kind}
        shapes = [shape for shape in SHAPES if any(key[0] == shape for key in ratios)]
        columns = [(work, peer) for work, peers in WORK.items() for peer in peers
                   if any(key[1:3] == (work, peer) for key in ratios)]

        def cell(shapes, work, peer):
            return " / ".join(f"{geometric_mean([ratios[s, work, peer, count] for s in shapes]):.2f}"
                              for count in threads)

        rows = [[shape, *(cell([shape], *column) for column in columns)] for shape in shapes]
        rows.append(["**geometric mean**", *(f"**{cell(shapes, *column)}**" for column in columns)])
        text.append(markdown_table([f"{kind} (B, T, D, H)", *(f"{work}, {peer}" for work, peer in columns)], rows))
    online = {(r["kind"], tuple(r["shape"])): r for r in results if r["work"] == "online"}
    if online:
        rows = [[shape, *(f"{online[kind, shape]['ratio']:.1f} ({online[kind, shape]['our ms']:.2f} ms)"
                          for kind in KINDS)] for shape in ONLINE]
        text.append(markdown_table(["online (B, T, D, H)", *(f"{kind}, PyTorch" for kind in KINDS)], rows))
    return "\n\n".join(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", help="default: 1 and all cores")
    parser.add_argument("--repeats", type=int, default=7, help="pairs of runs for each figure")
    parser.add_argument("--quick", action="store_true", help="the three smallest shapes")
    parser.add_argument("--save", action="store_true", help="keep the figures in benchmarks/results/ and README.md")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.into:
        [threads] = arguments.threads
        found = measure(threads, arguments.repeats, SHAPES[:3] if arguments.quick else SHAPES)
        arguments.into.write_text(json.dumps(found))
        return
    peers = [name for name in ("torch", "onnxruntime", "jax") if importlib.util.find_spec(name)]
    here = machine() | {name: importlib.metadata.version(name) for name in peers}
    print(", ".join(f"{key} {value}" for key, value in here.items()))
    results = [r for threads in arguments.threads or sorted({1, here["cores"]})
               for r in in_new_process(threads, arguments)]
    text = tables(results)
    print(text)
    if arguments.save:
        path = save("peers", {"machine": here, "ratio": "peer's time / ours, median over pairs",
                              "repeats": arguments.repeats, "results": results})
        versions = ", ".join(f"{name} {here[name]}" for name in ["numba", *peers])
        counts = " / ".join(str(count) for count in sorted({r["threads"] for r in results}))
        caption = (f"The peer's time / ours on {counts} threads, float32, {here['processor']}, {here['cores']} cores, "
                   f"{versions}, {datetime.date.today()}:\n\n")
        into_readme("peers", caption + text)
        print(f"saved: {path}")


if __name__ == "__main__":
    main()
