"""How fast are minilstm's LSTM and GRU on a GPU beside PyTorch's, that is beside cuDNN?

    facts           versions, the card and its clocks as they are found; do both libraries use one stream?
    lstm-T-B-H      forward, training forward, forward + backward, for D = H, with TF32 off and on, dense and ragged
    gru-T-B-H       likewise; ragged rows have T/4 to T steps, PyTorch's are packed before the clock starts
    launches        microseconds of a launch, for the host
    steps           microseconds of a step of time in the kernel whose blocks wait for each other
    ladder          the recurrent kernels one by one: a launch a step, a block owns rows, blocks that share, TF32
    products        every matrix product beside torch.addmm
    training        LSTM, Linear, mean squared error, clipping, Adam
    attention       beside scaled_dot_product_attention: dense, padded, causal

Each part runs in a process of its own, up to four side by side; one of them measures at a time, the others compile.
A crash, a hang or a wrong number costs that part.  Everything is checked against float64 before it is timed, twice, on
memory filled with rubbish, for equal bits; what is wrong gets no time.  Times are medians between CUDA events, with
work queued before, so that launches are not in them; "host" in the results is the host's clock with everything.
Programs run in turn on fresh inputs.  A ratio is PyTorch's time over ours, the median over pairs: above 1, minilstm is
faster.

Run:  pip install -e '.[gpu]' torch && python benchmarks/gpu_vs_cudnn.py        (some minutes)
      --quick: one shape; --only lstm,ladder: parts whose names begin so
      --out FOLDER: gpu_vs_cudnn.json and gpu_vs_cudnn.md there, written again after every part
      --from FILE: no GPU needed, the tables of such a file, made earlier or elsewhere
      --save: keep the figures in benchmarks/results/ and the tables in README.md
      --simulated: no GPU needed, all parts at toy sizes in the simulator; the times mean nothing

Exit status: 0 all is right, 1 something is not, 3 there is no GPU.
"""
import argparse
import datetime
import json
import sys
import tempfile
import time
from pathlib import Path

from gpu import tables
from gpu.parts import NO_GPU, chosen, in_this_process, run_parts
from gpu.processes import end_on_signals
from gpu.record import in_words, write
from measure import save

NAME, WORST = "gpu_vs_cudnn", 15


def main():
    arguments = parsed()
    if arguments.part:
        return in_this_process(arguments.part, arguments.into, arguments.simulated, arguments.lock)
    end_on_signals()
    if arguments.file:
        results = json.loads(arguments.file.read_text())
    else:
        try:
            parts = chosen(arguments.only, arguments.quick)
        except ValueError as error:
            raise SystemExit(str(error))
        results = compare(parts, arguments.out, time.monotonic() + arguments.seconds, arguments.simulated)
        if "no GPU" in results:
            print(results["no GPU"])
            return NO_GPU
    print(report(results["parts"]))
    if arguments.save:
        day = datetime.date.fromisoformat(results["date"])
        print("saved:", save(NAME, results, day))
        tables.readme(results["parts"], day)
    return 0 if all(part["result"] == "ok" for part in results["parts"].values()) else 1


def compare(parts, out=None, until=float("inf"), simulated=False):
    """Run parts, facts first -> {"date": ..., "parts": name -> what it found}, or {"no GPU": why}; kept in ``out``
    after each part."""
    results = {"date": str(datetime.date.today()), "parts": {}}

    def keep(found):
        results["parts"] |= found
        if out:
            out.mkdir(parents=True, exist_ok=True)
            write(out / f"{NAME}.json", results)
            write(out / f"{NAME}.md", report(results["parts"]) + "\n")
            write(out / f"{NAME}.log", "\n".join(f"==== {log.stem}\n{log.read_text(errors='replace')[-20_000:]}"
                                                 for log in sorted(Path(folder).glob("*.log"))))

    with tempfile.TemporaryDirectory() as folder:
        facts = run_parts(["facts"], folder, until, simulated)
        if facts["facts"]["result"] == f"exit {NO_GPU}":
            return {"no GPU": facts["facts"]["errors"][-1]}
        keep(facts)
        keep(run_parts(parts, folder, until, simulated, keep))
    return results


def report(parts):
    """Everything to read: how the parts went, what stays below its goal, the tables."""
    try:
        return _report(parts)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return f"no tables, for {in_words(error)}; the figures are in {NAME}.json"      # and the rest is to be measured


def _report(parts):
    lines = [", ".join(f"{name} {part['result']} {part['seconds'] or 0:.0f} s" for name, part in parts.items())]
    lines += [f"{name}: {error}" for name, part in parts.items() for error in part["errors"]]
    below = tables.missed(parts)
    lines += ["", f"Below the goal, {len(below)} figures, the worst:", *below[:WORST]] if below else []
    facts = parts.get("facts", {"facts": {}})["facts"]
    return "\n".join([", ".join(f"{key} {value}" for key, value in facts.items()), "", *lines, "",
                      tables.all_tables(parts)])


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one shape")
    parser.add_argument("--only", metavar="PART,...", help="parts whose names begin so")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep results there after every part")
    parser.add_argument("--from", type=Path, metavar="FILE", dest="file", help="show results of an earlier run")
    parser.add_argument("--save", action="store_true", help="keep the figures in benchmarks/results/ and README.md")
    parser.add_argument("--simulated", action="store_true", help="toy sizes in the simulator")
    parser.add_argument("--seconds", type=float, default=540, help="for everything")
    for internal in ("--part", "--into", "--lock"):
        parser.add_argument(internal, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
