"""The figures as tables of Markdown, goals beside them, and the sentences that introduce them."""
import datetime

from gpu.parts import SHAPES
from measure import into_readme, markdown_table

UNMEASURED = "GPU figures are still to be measured: no GPU has run this code yet."
WORKS = ("forward", "forward + backward")
COLUMNS = [(layout, work) for layout in ("dense", "ragged") for work in WORKS]


def goal(shape, layout, work):
    """What cuDNN's time over ours should reach with TF32 off and on, at (T, B, H); None: there is no goal."""
    T, B, H = shape
    place = WORKS.index(work)
    if T >= 512 and B <= 16 and H in (256, 512):
        return ((4, 4), (3, 3))[place]
    if layout == "ragged":
        return None
    if H <= 128 and B <= 64:
        return ((1.5, 1.5), (1.2, 1.2))[place]
    return {(1024, 64, 512): ((1.3, 1.5), (1.2, 1.2)), (256, 128, 1024): ((0.9, 0.5), (0.8, 0.4))}.get(
        shape, (None, None))[place]


def rows_of(parts, **labels):
    """All rows with these labels."""
    return [row for part in parts.values() for row in part["rows"]
            if all(row.get(key) == value for key, value in labels.items())]


def pair(rows, key="ratio", form="{:.2f}"):
    """A figure with TF32 off and on, "5.12 / 4.80"; a result that is not right in its place."""
    def one(tf32):
        found = [row for row in rows if row["tf32"] is tf32]
        if not found:
            return "-"
        if key not in found[-1]:
            return found[-1]["result"]
        figure = found[-1][key]
        return figure if isinstance(figure, str) else form.format(figure)               # "nan" and "inf" are words

    return f"{one(False)} / {one(True)}"


def missed(parts):
    """What stays below its goal, in words, the worst first."""
    found = []
    for row in rows_of(parts):
        if row.get("work") in WORKS and "layout" in row and isinstance(row.get("ratio"), (int, float)):
            wanted = goal(tuple(row["shape"]), row["layout"], row["work"])
            if wanted and row["ratio"] < wanted[row["tf32"]]:
                mode = "on" if row["tf32"] else "off"
                found.append((row["ratio"] / wanted[row["tf32"]],
                              f"{row['kind']} {tuple(row['shape'])} {row['layout']} {row['work']}, TF32 {mode}: "
                              f"{row['ratio']:.2f} of {wanted[row['tf32']]}"))
    return [text for _, text in sorted(found)]


# ------------------------------------------------------------------------------------------------------------- tables

def recurrent(parts, kind):
    shapes = sorted({tuple(row["shape"]) for row in rows_of(parts, kind=kind) if "layout" in row},
                    key=lambda shape: (SHAPES + [shape]).index(shape))
    rows = []
    for shape in shapes:
        cells = []
        for layout, work in COLUMNS:
            found = rows_of(parts, kind=kind, shape=list(shape), layout=layout, work=work)
            wanted = goal(shape, layout, work)
            ms = [f" ({row['ms']:.3g} ms)" for row in found[:1] if "ms" in row]
            cells += [pair(found) + "".join(ms), "" if not wanted else " / ".join(map(str, wanted))]
        rows.append([str(shape), *cells])
    head = [name for layout, work in COLUMNS for name in (("ragged " if layout == "ragged" else "") + work, "goal")]
    return markdown_table([f"{kind} (T, B, H)", *head], rows) if rows else ""


def errors(parts):
    """The largest relative error against float64 of each kind of result, ours and PyTorch's."""
    rows = []
    for kind in ("LSTM", "GRU"):
        for tf32 in (False, True):
            judged = [row for row in rows_of(parts, kind=kind, tf32=tf32) if "errors" in row]
            if judged:
                rows.append([kind, "on" if tf32 else "off", *(
                    " / ".join(worst([row[whose].get(name) for row in judged for name in row[whose] if is_of(name)])
                               for whose in ("errors", "their errors"))
                    for is_of in (lambda name: name.startswith("y"), lambda name: name == "dx",
                                  lambda name: name.startswith(("weight", "bias"))))])
    return markdown_table(["errors, ours / cuDNN's", "TF32", "y", "dx", "weights' gradients"], rows) if rows else ""


def worst(found):
    """Text of the largest; a number that is none ("nan") is worse than any."""
    words = [one for one in found if isinstance(one, str)]
    return words[0] if words else f"{max(found):.0e}"


def ladder(parts):
    rows = []
    for row in rows_of(parts, work="forward"):
        if "rung" in row:
            [both] = rows_of(parts, **{key: row[key] for key in ("kind", "shape", "rung", "tf32")},
                             work="forward + backward") or [{}]
            name = row["rung"] + (", TF32" if row["tf32"] else "")
            rows.append([row["kind"], tuple(row["shape"]), name, *(
                f"{one['ms']:.3g} ms ({one['ratio']:.2f})" if "ms" in one else one.get("result", "-")
                for one in (row, both))])
    return markdown_table(["ladder", "(T, B, H)", "rung", *WORKS], rows) if rows else ""


def products(parts):
    found = rows_of(parts, what="product")
    shapes = list(dict.fromkeys((*row["shape"], row["transposed"]) for row in found))
    rows = []
    for name in dict.fromkeys(row["kernel"] for row in found):
        cells = [[row for row in found if (row["kernel"], *row["shape"], row["transposed"]) == (name, *shape)]
                 for shape in shapes]
        rows.append([name, *(pair(cell) + "".join(f" ({row['TFLOP/s']:.3g} TFLOP/s)" for row in cell[:1]
                                                  if "TFLOP/s" in row) for cell in cells)])
    head = [f"({M}, {N}, {K}){', A transposed' if transposed else ''}" for M, N, K, transposed in shapes]
    return markdown_table(["product, (M, N, K)", *head], rows) if rows else ""


def attention(parts):
    found = rows_of(parts, what="attention")
    rows = [[shape, *(pair([row for row in found if (tuple(row["shape"]), row["form"], row.get("work")) ==
                            (shape, form, work)]) for form in ("dense", "padded", "causal") for work in WORKS)]
            for shape in dict.fromkeys(tuple(row["shape"]) for row in found)]
    head = [f"{form}, {work}" for form in ("dense", "padded", "causal") for work in WORKS]
    return markdown_table(["attention (B, T, d)", *head], rows) if rows else ""


def training(parts):
    found = rows_of(parts, what="training")
    rows = []
    for shape in dict.fromkeys(tuple(row["shape"]) for row in found):
        of_shape = [row for row in found if tuple(row["shape"]) == shape]
        rows.append([shape, pair(of_shape), pair(of_shape, "host ratio"), pair(of_shape, "host ms", "{:.3g} ms")])
    head = ["training step (T, B, H)", "ratio", "by the host's clock", "our time by it"]
    return markdown_table(head, rows) if rows else ""


def small_times(parts):
    """Launches and steps of time, in microseconds."""
    rows = [[row["program"], f"{row['us']:.2f}", ""] for row in rows_of(parts, what="launch")]
    steps = rows_of(parts, what="step of time")
    for B, H, work in dict.fromkeys((row["rows"], row["units"], row["work"]) for row in steps):
        found = [row for row in steps if (row["rows"], row["units"], row["work"]) == (B, H, work)]
        rows.append([f"a step of an LSTM, B {B}, H {H}, {work}", pair(found, "us a step"),
                     pair(found, "their us a step")])
    return markdown_table(["microseconds", "ours", "cuDNN's"], rows) if rows else ""


def all_tables(parts):
    found = [recurrent(parts, "LSTM"), recurrent(parts, "GRU"), ladder(parts), products(parts), attention(parts),
             training(parts), small_times(parts), errors(parts)]
    return "\n\n".join(table for table in found if table)


# ------------------------------------------------------------------------------------------------------------- README

def caption(parts, day):
    facts = {key: value for part in parts.values() for key, value in part["facts"].items()}
    versions = ", ".join(f"{name} {facts[name]}" for name in ("numba", "numba-cuda", "torch", "cuDNN") if name in facts)
    return (f"cuDNN's time / ours with TF32 off / on, D = H, the input's products included (our time with TF32 off), "
            f"float32, {facts.get('GPU', 'no GPU')}, driver {facts.get('driver_version', '-')}, {versions}, {day}:")


def readme(parts=None, day=None):
    """Put the tables into README.md, or, without figures, the sentence that says so."""
    day = day or datetime.date.today()
    into_readme("gpu", f"{caption(parts, day)}\n\n{all_tables(parts)}" if parts else UNMEASURED)
