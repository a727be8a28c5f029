"""Covariates: every index is the right one, nothing from ahead is read, and forecasts learn from what they may read.

Most tables here count: the value at a step is the number of the step, so that an array says where it was read."""
import re

import numpy as np
import pytest
import safetensors.numpy

import minilstm
from helpers import assert_close, same_bits
from minilstm.checks.leaks import check_leaks
from minilstm.conditioning import CovariateSpec, Forecaster

SHOP = {"target": "sales", "history": 4, "horizon": 3, "past": "visitors", "known": ["price", "weekday"],
        "static": ["size", "region"], "categories": {"weekday": 7, "region": 4}}


def counting(lengths, ahead=0):
    """A table that counts, of series of these lengths; known covariates reach some steps further."""
    def count(T, k=0):
        return np.arange(T, dtype="float32") + 1000 * k

    return {"sales": [count(T, s) for s, T in enumerate(lengths)],
            "visitors": [count(T, s) + 0.25 for s, T in enumerate(lengths)],
            "price": [count(T + ahead, s) + 0.5 for s, T in enumerate(lengths)],
            "weekday": [np.arange(T + ahead) % 7 for T in lengths],
            "size": np.arange(len(lengths), dtype="float32"), "region": np.arange(len(lengths)) % 4}


def random_table(rng, S, T, dtype="float64", ahead=0):
    return {"sales": rng.normal(size=(S, T)).astype(dtype), "visitors": rng.normal(size=(S, T)).astype(dtype),
            "month": rng.integers(0, 5, (S, T + ahead)),
            "price": rng.normal(size=(S, T + ahead)).astype(dtype), "weekday": rng.integers(0, 7, (S, T + ahead)),
            "size": rng.normal(size=S).astype(dtype), "region": rng.integers(0, 4, S)}


def trained_weights(rng, model):
    """Random weights and biases throughout."""
    for _, layer in model.walk():
        for name, p in layer.params.items():
            layer.params[name] = (0.6 * rng.normal(size=p.shape)).astype(p.dtype)
    return model


# ---------------------------------------------------------------------------------------------------- which steps

@pytest.mark.parametrize("history, horizon, least, lengths", [
    (4, 3, 4, [12, 7, 9]), (4, 3, 1, [12, 5, 4]), (1, 1, 1, [2]), (5, 1, 2, [5, 5]), (3, 3, 3, [6, 6, 6]),
    (2, 6, 1, [7, 8])])
def test_every_number_in_a_window_says_that_it_was_read_at_the_right_step(history, horizon, least, lengths):
    spec = CovariateSpec(**SHOP | {"history": history, "horizon": horizon}, min_history=least)
    w = spec.windows(counting(lengths))
    assert list(zip(w.series, w.step)) == [(s, t) for s, T in enumerate(lengths)
                                           for t in range(T) if t + 1 >= least and t + horizon < T]
    for n, (s, t) in enumerate(zip(w.series, w.step)):
        behind = [step for step in range(t - history + 1, t + 1)]
        ahead = [t + k for k in range(1, horizon + 1)]
        there = np.array(behind) >= 0
        assert w.inputs["history_mask"][n].tolist() == there.tolist()
        expected = {"past": [(1000 * s + step, 1000 * s + step + 0.25) for step in behind],
                    "known": [(1000 * s + step + 0.5,) for step in behind + ahead],
                    "known_categories": [(step % 7,) for step in behind + ahead]}
        for name, rows in expected.items():
            real = there if name == "past" else np.concatenate([there, np.ones(horizon, bool)])
            assert np.array_equal(w.inputs[name][n], np.where(real[:, None], rows, 0))
        assert w.inputs["static"][n].tolist() == [s] and w.inputs["static_categories"][n].tolist() == [s % 4]
        assert w.target[n].tolist() == [[1000 * s + step] for step in ahead]
        assert w.target_step[n].tolist() == ahead and w.target_mask[n].all()


def test_a_forecast_reads_what_its_window_reads():
    rng = np.random.default_rng(0)
    spec, table = CovariateSpec(**SHOP, min_history=2), random_table(rng, 3, 11)
    w = spec.windows(table)
    for t in range(1, 8):
        at = spec.inputs_at(table, t)
        for name, array in w.inputs.items():
            assert same_bits(at[name], array[w.step == t]), (name, t)
    apart = spec.inputs_at(table, [3, 7, 5])
    for s, t in enumerate([3, 7, 5]):
        assert same_bits(apart["known"][s], spec.inputs_at(table, t)["known"][s])


def test_without_a_step_a_forecast_is_made_after_the_last_one_of_each_series():
    table = counting([6, 9], ahead=3)
    at = CovariateSpec(**SHOP).inputs_at(table)
    assert at["past"][:, :, 0].tolist() == [[2, 3, 4, 5], [1005, 1006, 1007, 1008]]
    assert at["known"][:, -1, 0].tolist() == [8.5, 1011.5]


def test_what_is_printed_is_what_is_read():
    """The numbers in the text, against arrays that count."""
    for history, horizon, least, steps in ((4, 3, 2, 14), (1, 1, 1, 2), (3, 5, 3, 20)):
        spec = CovariateSpec(**SHOP | {"history": history, "horizon": horizon}, min_history=least)
        reads, forecasts = spec.explain(steps).split("forecasts\n")
        lines = {line[:12].strip(): line for line in reads.splitlines()}
        table = counting([steps], ahead=horizon)
        w, now = spec.windows(table, stop=steps), spec.inputs_at(table)
        for name, array, column in (("sales", "past", 0), ("visitors", "past", 1), ("price", "known", 0)):
            for place, (inputs, row) in enumerate(((w.inputs, 0), (w.inputs, -1), (now, 0))):
                padding = history - int(inputs["history_mask"][row].sum())
                read = np.floor(inputs[array][row, padding:, column]).astype(int).tolist()
                assert words(lines[name])[place] == read, (name, place)
        assert words(forecasts.splitlines()[0])[:2] == [w.target_step[0].tolist(), w.target_step[-1].tolist()]
        assert f"{len(w.step)} windows" in forecasts


def words(line):
    """"0 ... 3   4" -> [[0, 1, 2, 3], [4]], behind the column with t in it."""
    cells = [cell for cell in re.split(r"\s{3,}", line.strip()) if re.fullmatch(r"\d+( \.\.\. \d+)?", cell)]
    ends = [[int(number) for number in cell.split(" ... ")] for cell in cells]
    return [list(range(pair[0], pair[-1] + 1)) for pair in ends]


def test_the_text_of_a_specification():
    assert str(CovariateSpec(**SHOP, min_history=2)) == """\
4 steps of history, at least 2, padding in front; 1 ... 3 ahead; a series of 14 steps, 0 ... 13
                                    after step t   training, first   training, last   a forecast
                                                   t = 1             t = 10           t = 13
reads
  sales      target                 t-3 ... t      0 ... 1           7 ... 10         10 ... 13
  visitors   past                   t-3 ... t      0 ... 1           7 ... 10         10 ... 13
  price      known                  t-3 ... t+3    0 ... 4           7 ... 13         10 ... 16
  weekday    known, 7 categories    t-3 ... t+3    0 ... 4           7 ... 13         10 ... 16
  size       static                 one value      one value         one value        one value
  region     static, 4 categories   one value      one value         one value        one value
forecasts
  sales                             t+1 ... t+3    2 ... 4           11 ... 13        14 ... 16
10 windows for training, one after each of steps 1 ... 10"""


def test_a_cut_in_time_forecasts_no_step_twice():
    spec, table = CovariateSpec(**SHOP), counting([20, 16])
    everything = spec.windows(table)
    before, behind = spec.windows(table, stop=12), spec.windows(table, start=12)
    assert before.target_step.max() == 11 and behind.target_step.min() == 12
    assert len(before.step) + len(behind.step) == len(everything.step) - 2 * 2, "two of each series straddle the cut"
    assert behind.inputs["past"][0, :, 0].tolist() == [8, 9, 10, 11], "the history may lie before it"
    assert spec.windows(table, stride=5).step.tolist() == [3, 8, 13, 3, 8]


def test_arrays_lists_and_a_single_series_are_the_same_table():
    rng = np.random.default_rng(1)
    spec, table = CovariateSpec(**SHOP), random_table(rng, 3, 9)
    listed = {name: column if column.ndim == 1 else list(column) for name, column in table.items()}
    single = {name: column[1:2] if column.ndim == 1 else column[1] for name, column in table.items()}
    w = spec.windows(table)
    for name, array in spec.windows(listed).inputs.items():
        assert same_bits(array, w.inputs[name])
    for name, array in spec.windows(single).inputs.items():
        assert same_bits(array, w.inputs[name][w.series == 1])


def test_what_is_not_to_be_read_is_not_even_checked():
    """NaN and categories that are none, everywhere but in the steps that a forecast after step 6 reads."""
    rng = np.random.default_rng(2)
    spec, table = CovariateSpec(**SHOP), random_table(rng, 2, 15)
    rubbish = {name: column.copy() for name, column in table.items()}
    for name, steps in spec.reads(6).items():
        elsewhere = np.setdiff1d(np.arange(15), steps)
        if spec.roles[name] != "static":
            rubbish[name][:, elsewhere] = 99 if name in spec.categories else np.nan
    for name, array in spec.inputs_at(table, 6).items():
        assert same_bits(array, spec.inputs_at(rubbish, 6)[name])


def test_missing_readings_are_zero_and_said_to_be_missing():
    spec = CovariateSpec(**SHOP | {"target": ["sales", "orders"]}, missing=["visitors", "orders"])
    table = counting([9]) | {"orders": np.arange(9, dtype="float32") + 50}
    table["visitors"][0][[0, 2]] = np.nan
    table["orders"][[3, 6]] = np.nan
    assert spec.columns()["past"] == ["sales", "orders", "visitors", "visitors measured", "orders measured"]
    w = spec.windows(table)
    assert w.inputs["past"][0].tolist() == [[0, 50, 0, 0, 1], [1, 51, 1.25, 1, 1], [2, 52, 0, 0, 1], [3, 0, 3.25, 1, 0]]
    assert w.target_mask.tolist() == [[True, True, False], [True, False, True], [False, True, True]]
    assert w.target[0, :2].tolist() == [[4, 54], [5, 55]] and w.target[0, 2, 0] == 6 and np.isnan(w.target[0, 2, 1])
    assert np.isfinite(w.target[w.target_mask]).all()


# ---------------------------------------------------------------------------------------------------------- errors

def table_with(**columns):
    return counting([10, 12]) | columns


def cut(name, length):
    return {name: [column[:length] for column in counting([10, 12])[name]]}


def nan_at(name, steps):
    columns = counting([10, 12])[name]
    columns[1][steps] = np.nan
    return {name: columns}


@pytest.mark.parametrize("call, error, text", [
    (lambda s: s.inputs_at(table_with(**cut("price", 9)), 8), ValueError,
     r"price \(known covariate\) of series 0: a forecast after step 8 reads steps 5 ... 11, there are steps 0 ... 8; "
     r"missing: steps 9 ... 11; what is not known so far ahead is a past covariate"),
    (lambda s: s.inputs_at(table_with()), ValueError,
     r"price .* of series 0: a forecast after step 9 reads steps 6 ... 12, .* missing: steps 10 ... 12"),
    (lambda s: s.inputs_at(table_with(**cut("visitors", 7)), 8), ValueError,
     r"visitors \(past covariate\) of series 0: a forecast after step 8 reads steps 5 ... 8, there are steps 0 ... 6; "
     r"missing: steps 7 ... 8$"),
    (lambda s: s.windows(table_with(**cut("price", 11))), ValueError,
     r"price .* of series 1: windows for forecasts after steps 3 ... 8 read steps 0 ... 11, there are steps 0 ... 10; "
     r"missing: step 11;"),
    (lambda s: s.inputs_at(table_with(), 20), ValueError, "sales .* of series 0: .* reads steps 17 ... 20, .* 0 ... 9"),
    (lambda s: s.inputs_at(table_with(), 2), ValueError, "t: expected 3 or more, to have 4 of history, got 2 for"),
    (lambda s: s.inputs_at(table_with(), [5]), ValueError, "t: expected an integer, or 2, one for each series, got"),
    (lambda s: s.inputs_at(table_with(), 5.0), ValueError, "t: expected an integer"),
    (lambda s: s.inputs_at(table_with(**nan_at("sales", [-1]))), ValueError,
     "t: expected a step, since sales of series 1 ends with NaN: has it not been measured, or is it still to come"),
    (lambda s: s.windows(table_with(**nan_at("sales", [5, 6, 8]))), ValueError,
     r"sales \(target\) of series 1: expected finite number., got nan at steps 5 ... 6, 8; missing=\['sales'\] "),
    (lambda s: s.windows(table_with(**nan_at("price", [4]))), ValueError, "price .*: .* got nan at step 4$"),
    (lambda s: s.windows(table_with(weekday=[np.arange(12)] * 2)), ValueError,
     r"weekday \(known covariate\) of series 0: expected categories 0 ... 6, got 7 at steps 7 ... 9"),
    (lambda s: s.windows(table_with(region=np.array([0, -1]))), ValueError,
     r"region \(static covariate\) of series 1: expected categories 0 ... 3, got -1$"),
    (lambda s: s.windows(table_with(size=np.array([1, np.inf], "float32"))), ValueError, "size .* got inf$"),
    (lambda s: s.windows(table_with(**cut("sales", 6))), ValueError,
     "table: expected 7 steps or more, 4 to read and 3 to forecast, got 6 in series 0"),
    (lambda s: s.windows(table_with(), start=11), ValueError, "start, stop: expected room for 3 steps"),
    (lambda s: s.windows({"sales": np.zeros(9)}), ValueError, r"missing: \['visitors', 'price', 'weekday', 'size'"),
    (lambda s: s.windows(table_with(price=np.ma.zeros((2, 12), "float32"))), TypeError, r"price'\]: expected an array"),
    (lambda s: s.windows(table_with(sales=np.zeros((0, 12), "float32"))), TypeError, r"sales'\]: expected an array"),
    (lambda s: s.windows([1, 2]), TypeError, "table: expected a dict name -> column, got list"),
    (lambda s: s.windows(table_with(price=np.zeros((3, 12), "float32"))), ValueError, "expected 2 series, as sales"),
    (lambda s: s.windows(table_with(size=np.float32([1, 2, 3]))), ValueError, "size.*expected 2 series.*got 3"),
    (lambda s: s.windows(table_with(size=3.5)), TypeError, r"size'\]: expected an array \(S,\), .*got float"),
    (lambda s: s.windows(table_with(size=np.zeros((2, 12), "float32"))), TypeError, "one value for a series"),
    (lambda s: s.windows(table_with(price=[1.0, 2.0])), TypeError, r"price'\]: expected an array \(T,\)"),
    (lambda s: s.windows(table_with(price=np.zeros((2, 12)))), TypeError,
     "price.*expected float32, as sales has, got float64 .*nothing is cast silently"),
    (lambda s: s.windows(table_with(price=np.zeros((2, 12), int))), TypeError,
     r"price.*expected float32, .*; or categories=\{'price': how many\}"),
    (lambda s: s.windows(table_with(weekday=np.zeros((2, 12)))), TypeError, "weekday.*expected integers from 0"),
    (lambda s: s.windows(table_with(sales=np.zeros((2, 12), int))), TypeError, "sales.*expected float32 or float64"),
    (lambda s: s.explain(6), ValueError, "steps: expected 7 or more, got 6"),
], ids=lambda value: value[:30] if isinstance(value, str) else "")
def test_an_error_names_the_column_and_the_steps(call, error, text):
    with pytest.raises(error, match=text):
        call(CovariateSpec(**SHOP))


@pytest.mark.parametrize("changes, error, text", [
    ({"past": "sales"}, ValueError, "past: expected each name once, got 'sales', which is target too"),
    ({"target": ()}, ValueError, "target: expected one name or more, got none"),
    ({"past": [3]}, TypeError, r"past: expected a name or names, got \[3\]"),
    ({"past": "sales measured", "missing": "sales"}, ValueError, "missing: expected no column that is called 'sales m"),
    ({"categories": ["day"]}, TypeError, r"categories: expected a dict name -> how many, got \['day'\]"),
    ({"categories": {"sales": 3}}, ValueError, "categories: expected some of .*'visitors', 'price'.*got 'sales'"),
    ({"categories": {"weekday": 0}}, ValueError, r"categories\['weekday'\]: expected a positive integer, got 0"),
    ({"missing": ["price"]}, ValueError, r"missing: expected some of \['sales', 'visitors'\], got 'price'"),
    ({"min_history": 5}, ValueError, "min_history: expected at most history=4, got 5"),
    ({"horizon": 0}, ValueError, "horizon: expected a positive integer, got 0"),
])
def test_a_specification_that_makes_no_sense_is_refused(changes, error, text):
    with pytest.raises(error, match=text):
        CovariateSpec(**SHOP | changes)


# ------------------------------------------------------------------------------------------------------ the forecaster

FORMS = {"everything": {"missing": ["visitors"], "min_history": 2},
         "two targets": {"target": ["sales", "visitors"], "past": (), "known": "price", "static": "region",
                         "categories": {"region": 4}, "min_history": 1},
         "alone": {"past": (), "known": (), "static": (), "categories": {}},
         "two categories": {"past": (), "known": ["month", "weekday"], "static": (),
                            "categories": {"weekday": 7, "month": 5}},
         "categories only": {"past": "weekday", "known": (), "static": "region", "history": 3}}


@pytest.mark.parametrize("form, num_layers", [*((form, 1) for form in FORMS), ("everything", 2)])
def test_gradients(form, num_layers):
    rng = np.random.default_rng(3)
    spec, table = CovariateSpec(**SHOP | FORMS[form]), random_table(rng, 2, 8)
    if spec.missing:
        table["visitors"][:, ::3] = np.nan
    model = trained_weights(rng, Forecaster(spec, 4, embedding_size=2, num_layers=num_layers))
    inputs = spec.windows(table).inputs
    report = minilstm.check_gradients(model, max_entries=8, **inputs)
    assert report.ok, report
    numbers = [name for name, columns in spec.columns().items() if columns and not name.endswith("categories")]
    assert {row.name for row in report.rows} == {"past", "known", "static", *model.state_dict()}
    assert all(row.largest > 0 for row in report.rows if "." in row.name or row.name in numbers)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_backends_give_the_same(dtype):
    rng = np.random.default_rng(4)
    spec = CovariateSpec(**SHOP, min_history=1)
    model = trained_weights(rng, Forecaster(spec, 5, dtype=dtype))
    plain = Forecaster(spec, 5, dtype=dtype, backend="reference")
    plain.load_state_dict(model.state_dict())
    w = spec.windows(random_table(rng, 2, 9, dtype))
    dy = rng.normal(size=w.target.shape).astype(dtype)
    found = []
    for one in (model, plain):
        y, cache = one.forward(**w.inputs)
        gradients = one.backward(cache, dy)
        grads = {prefix + name: g for prefix, layer in one.walk() for name, g in layer.grads.items()}
        found.append({"y": y} | gradients._asdict() | grads)
    for name, array in found[0].items():
        assert_close(array, found[1][name], f"same formulas, {dtype}", name)
    assert not found[0]["dpast"][~w.inputs["history_mask"]].any()
    assert same_bits(model.forward(**w.inputs, cache=False)[0], found[0]["y"])


def test_a_short_history_gives_what_a_forecaster_without_padding_gives():
    """The same weights, with less history to read; and what stands in the padding is never read."""
    rng = np.random.default_rng(5)
    table = random_table(rng, 3, 12)
    long = trained_weights(rng, Forecaster(CovariateSpec(**SHOP | {"history": 6}, min_history=1), 4, dtype="float64"))
    for length in range(1, 6):
        short = Forecaster(CovariateSpec(**SHOP | {"history": length}), 4, dtype="float64")
        short.load_state_dict(long.state_dict())
        assert same_bits(long.forecast(table, length - 1), short.forecast(table, length - 1))
    inputs = long.spec.inputs_at(table, 2)
    y, cache = long.forward(**inputs)
    padded = ~inputs["history_mask"]
    inputs["past"][padded], inputs["known"][:, :6][padded] = np.nan, np.inf
    inputs["known_categories"][:, :6][padded] = -5
    again, cache = long.forward(**inputs)
    assert same_bits(y, again)
    gradients = long.backward(cache, np.ones_like(y))
    assert all(np.isfinite(d).all() for d in gradients) and not gradients.dpast[padded].any()
    inputs["history_mask"][:] = False
    assert np.isfinite(long.forward(**inputs)[0]).all(), "no history at all is legal"


def test_series_are_apart_and_layers_begin_with_weights_of_their_own():
    rng = np.random.default_rng(6)
    spec = CovariateSpec("sales", history=3, horizon=3, known=["a", "b"], categories={"a": 5, "b": 5})
    model = Forecaster(spec, 4, embedding_size=3)
    assert not np.array_equal(model.embeddings["a"].params["weight"], model.embeddings["b"].params["weight"])
    other = Forecaster(spec, 4, embedding_size=3, seed=1)
    assert not np.array_equal(model.encoder.params["weight_hh_l0"], other.encoder.params["weight_hh_l0"])
    assert not Forecaster(spec, 4, seed=None).head.params["weight"].any()
    model = trained_weights(rng, Forecaster(CovariateSpec(**SHOP), 4))
    table = random_table(rng, 3, 9, "float32")
    y = model.forecast(table, 5)
    order = [2, 0, 1]
    assert same_bits(model.forecast({name: column[order] for name, column in table.items()}, 5), y[order])
    assert same_bits(model.forecast({name: column[:1] for name, column in table.items()}, 5), y[:1])


def test_arguments_build_the_forecaster_again():
    model = Forecaster(CovariateSpec(**SHOP, missing="sales"), 4, num_layers=2)
    again = Forecaster(**model.arguments(), seed=None)
    again.load_state_dict(model.state_dict())
    table = counting([9])
    assert again.spec == model.spec and again.spec != CovariateSpec(**SHOP)
    assert eval(repr(model.spec)) == model.spec and hash(again.spec) == hash(model.spec)
    assert same_bits(again.forecast(table, 5), model.forecast(table, 5))


def test_a_forecaster_comes_back_from_a_file(tmp_path):
    model = Forecaster(CovariateSpec(**SHOP, missing="sales"), 4, num_layers=2, embedding_size=3)
    minilstm.save(tmp_path / "model.safetensors", model)
    again = minilstm.load(tmp_path / "model.safetensors")
    table = counting([9, 8])
    assert again.spec == model.spec and same_bits(again.forecast(table, 4), model.forecast(table, 4))


@pytest.mark.parametrize("whole, damaged, text", [
    ('"weekday": 7', '"weekday": 70000', "more than its tensors hold"),
    ('"hidden_size": 4', '"hidden_size": 4000', "more than its tensors hold"),
    ('"categories": {', '"categories": 7, "x": {', "int"), ('"spec": {', '"spec": 3, "x": {', "int"),
    ('"history": 4', '"history": 4.5', "history: expected a positive integer, got 4.5")])
def test_a_damaged_file_is_refused_before_it_takes_all_memory(tmp_path, whole, damaged, text):
    path = tmp_path / "model.safetensors"
    minilstm.save(path, Forecaster(CovariateSpec(**SHOP), 4))
    with safetensors.safe_open(path, framework="numpy") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    assert whole in metadata["layer"]
    metadata["layer"] = metadata["layer"].replace(whole, damaged)
    path.write_bytes(safetensors.numpy.save(tensors, metadata))
    with pytest.raises(minilstm.FormatError, match=text):
        minilstm.load(path)


def test_it_learns_what_each_kind_of_covariate_tells():
    """y[t+1] = a[kind] * y[t] + price[t+1] + size + noise.  Without any one of the three the error is several times
    the noise; with all it comes near."""
    rng = np.random.default_rng(7)
    S, T, noise = 64, 20, 0.1
    table = {"kind": rng.integers(0, 2, S), "size": rng.normal(size=S).astype("float32"),
             "price": rng.normal(size=(S, T)).astype("float32"), "sales": np.zeros((S, T), "float32")}
    a = np.where(table["kind"], 0.8, -0.8)
    for t in range(T - 1):
        table["sales"][:, t + 1] = (a * table["sales"][:, t] + table["price"][:, t + 1] + table["size"]
                                    + noise * rng.standard_normal(S))
    spec = CovariateSpec("sales", history=1, horizon=1, known="price", static=["size", "kind"], categories={"kind": 2})
    model = Forecaster(spec, 16, seed=1)
    w, test = spec.windows(table, stop=15), spec.windows(table, start=15)
    for epochs, rate in ((25, 0.02), (10, 0.004)):
        minilstm.fit(model, w.inputs, w.target, loss_mask=w.target_mask, epochs=epochs, batch_size=32,
                     optimizer=minilstm.Adam(rate), progress=False)

    def error(**changed):
        return np.square(model.forward(**test.inputs | changed, cache=False)[0] - test.target).mean()

    assert error() < 3 * noise**2
    for name in ("known", "static", "static_categories"):
        assert error(**{name: np.roll(test.inputs[name], 7, axis=0)}) > 20 * noise**2, name


@pytest.mark.parametrize("changed, error, text", [
    ({"history_mask": np.ones((2, 4))}, ValueError, r"history_mask: expected bool \(N, L=4\), got float64 \(2, 4\)"),
    ({"past": np.zeros((2, 4, 3))}, ValueError, r"past: expected float64 \(N=2, steps=4, columns=2\), got"),
    ({"known": np.zeros((2, 6, 1))}, ValueError, r"known: expected float64 \(N=2, steps=7, columns=1\), got"),
    ({"static": np.zeros((2, 1), "float32")}, TypeError, "static: expected float64 .*nothing is cast silently"),
    ({"known_categories": np.zeros((2, 7, 1))}, ValueError, r"known_categories: expected integers \(2, 7, 1\), got fl"),
    ({"static_categories": np.full((2, 1), 4)}, ValueError, "expected categories from 0 to 3, got 4"),
])
def test_inputs_that_do_not_fit_are_named(changed, error, text):
    spec = CovariateSpec(**SHOP)
    model = Forecaster(spec, 3, dtype="float64")
    inputs = spec.inputs_at(random_table(np.random.default_rng(8), 2, 9), 5)
    with pytest.raises(error, match=text):
        model.forward(**inputs | changed)
    with pytest.raises(TypeError, match="cache: expected what forward returned"):
        model.backward(None, np.zeros((2, 3, 1)))


# ---------------------------------------------------------------------------------------------------------------- leaks

@pytest.fixture
def shop():
    """A forecaster, and a table with some readings missing, that reaches well beyond the forecasts."""
    rng = np.random.default_rng(9)
    spec = CovariateSpec(**SHOP, missing="visitors", min_history=2)
    table = random_table(rng, 3, 25)
    table["visitors"][:, ::4] = np.nan
    return trained_weights(rng, Forecaster(spec, 4, dtype="float64")), table


STEPS = [2, 9, 15]


def test_an_honest_forecaster_has_no_leak(shop):
    model, table = shop
    as_lists = {name: list(column) if column.ndim == 2 else column for name, column in table.items()}
    for one in (table, as_lists):
        report = check_leaks(model.forecast, model.spec, one, STEPS)
        assert report.ok and all(row.uses for row in report.rows), report
    assert [row.name for row in report.rows] == ["sales", "visitors", "price", "weekday", "visitors, with gaps"]
    assert [row.beyond for row in report.rows] == ["t+1", "t+1", "t+4", "t+4", "t+1"]
    assert "LEAKS" not in str(report) and "the same forecasts" in str(report)


def one_step_ahead(model, table, t, name):
    return model.forecast(table | {name: np.roll(table[name], -1, axis=1)}, t)


def normalised(model, table, t, scale):
    return model.forecast(table | {"sales": table["sales"] / scale(table["sales"])}, t)


def filled_backward(model, table, t):
    filled = np.nan_to_num(table["visitors"])
    for step in range(filled.shape[1] - 2, -1, -1):
        gap = np.isnan(table["visitors"][:, step])
        filled[gap, step] = filled[gap, step + 1]
    return model.forecast(table | {"visitors": filled}, t)


def centred_average(model, table, t):
    smooth = np.apply_along_axis(np.convolve, 1, table["sales"], np.ones(3) / 3, "same")
    return model.forecast(table | {"sales": smooth}, t)


LEAKING = {
    "the window of the target is one step late": (lambda *a: one_step_ahead(*a, "sales"), {"sales"}),
    "the window of a known covariate": (lambda *a: one_step_ahead(*a, "price"), {"price"}),
    "the window of a category": (lambda *a: one_step_ahead(*a, "weekday"), {"weekday"}),
    "the deviation of the whole series": (lambda *a: normalised(*a, np.std), {"sales"}),
    "its maximum": (lambda *a: normalised(*a, np.max), {"sales"}),
    "its median": (lambda *a: normalised(*a, lambda x: 2 + np.median(x)), {"sales"}),
    "a very high number anywhere": (lambda *a: normalised(*a, lambda x: 1 + (x.max() > 50)), {"sales"}),
    "a very low number anywhere": (lambda *a: normalised(*a, lambda x: 1 + (x.min() < -50)), {"sales"}),
    "gaps filled from behind": (filled_backward, {"visitors, with gaps"}),
    "a centred average": (centred_average, {"sales"}),
}


@pytest.mark.parametrize("leak", LEAKING)
def test_a_leak_is_found_and_its_column_named(shop, leak):
    (forecast, guilty), (model, table) = LEAKING[leak], shop
    report = check_leaks(lambda table, t: forecast(model, table, t), model.spec, table, STEPS)
    assert guilty <= {row.name for row in report.rows if not row.ok} <= guilty | {
        name + ", with gaps" for name in guilty} | {name.split(",")[0] for name in guilty}, report
    assert not report.ok and "LEAKS" in str(report)


def test_what_needs_the_future_only_to_be_there_is_found_too(shop):
    """It reads nothing ahead; on the day it could not run."""
    model, table = shop

    def forecast(table, t):
        table["sales"][:, t + 1]
        return model.forecast(table, t)

    report = check_leaks(forecast, model.spec, table, STEPS)
    assert all(row.ok for row in report.rows) and not report.ok and "t = 2: IndexError" in str(report)


def test_a_covariate_that_is_read_a_step_too_early_leaks_nothing_and_shows(shop):
    model, table = shop

    def forecast(table, t):
        return model.forecast(table | {"price": np.pad(table["price"], ((0, 0), (1, 0)))}, t)

    late = check_leaks(forecast, model.spec, table, STEPS)
    assert late.ok and {row.name for row in late.rows if not row.uses} == {"price"}


def test_a_check_that_could_find_nothing_is_refused(shop):
    model, table = shop
    with pytest.raises(ValueError, match=r"something in sales to be changed, got \[21\]: all that is there may be rea"):
        check_leaks(model.forecast, model.spec, table | {"sales": table["sales"][:, :22]}, [21])
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="expected the same answer each time"):
        check_leaks(lambda table, t: rng.random(3), model.spec, table, [5])


# ---------------------------------------------------------------------------- an example of a popular answer, and right

def static_only(T):
    """Three numbers and one category that a series has throughout, beside a sequence of five features."""
    spec = CovariateSpec("y", history=T, horizon=1, past=["b", "c", "d", "e"], static=["s1", "s2", "s3", "kind"],
                         categories={"kind": 6}, min_history=1)
    return trained_weights(np.random.default_rng(10), Forecaster(spec, 8, dtype="float64"))


def static_inputs(rng, model, N, lengths=None):
    T = model.spec.history
    mask = np.ones((N, T), bool) if lengths is None else np.arange(T)[::-1] < np.array(lengths)[:, None]
    return {"past": rng.normal(size=(N, T, 5)), "past_categories": np.zeros((N, T, 0), int),
            "known": np.zeros((N, T + 1, 0)), "known_categories": np.zeros((N, T + 1, 0), int),
            "static": rng.normal(size=(N, 3)), "static_categories": rng.integers(0, 6, (N, 1)), "history_mask": mask}


@pytest.mark.parametrize("T", [1, 3, 4, 7])
def test_a_static_covariate_is_a_bias_of_the_gates_whatever_the_number_of_steps(T):
    """Three covariates and three steps are nothing special; nor are as many sequences as steps."""
    rng = np.random.default_rng(11)
    model = static_only(T)
    for N in (1, 3, 4):
        inputs = static_inputs(rng, model, N)
        y, _ = model.forward(**inputs)
        for n in range(N):
            vector = model.embeddings["kind"].params["weight"][inputs["static_categories"][n, 0]]
            s = np.concatenate([inputs["static"][n], vector])
            states = {}
            for net, D in ((model.encoder, 5), (model.decoder, 0)):
                bare = minilstm.LSTM(max(1, D), 8, dtype="float64")
                W = net.params["weight_ih_l0"]
                lead = W[:, -1] if D == 0 else 0                    # which is 1 for a horizon of one step
                bare.load_state_dict(net.state_dict() | {
                    "weight_ih_l0": W[:, :D] if D else np.zeros((32, 1)),
                    "bias_ih_l0": net.params["bias_ih_l0"] + W[:, D:D + 7] @ s + lead})
                x = inputs["past"][n:n + 1] if D else np.zeros((1, 1, 1))
                out, _ = bare.forward(x, **states)
                states = {"h0": out.h_n, "c0": out.c_n}
            expected, _ = model.head.forward(out.y)
            assert_close(y[n], expected[0], "same formulas, float64")


def test_as_it_is_written_three_covariates_are_told_at_three_steps_one_each():
    """The example in pieces.  One argument is the number of covariates and of categories; so numbers are refused, and
    a fourth category is.  What is embedded, (B,3,10), stands where steps do: with any other number of steps it raises.
    With three it runs, and covariate j is told at step j only: a sequence of two steps never hears of the last one.
    Right, one vector of all three stands at every step, and the last one moves every output."""
    rng = np.random.default_rng(14)
    embedding = minilstm.Embedding(3, 10, dtype="float64")
    net = trained_weights(rng, minilstm.LSTM(15, 8, dtype="float64"))
    covariates = rng.integers(0, 3, (4, 3))
    with pytest.raises(TypeError, match=r"x: expected integers \(B,T\) from 0 to 2, got float64 \(4, 3\)"):
        embedding.forward(rng.normal(size=(4, 3)))
    with pytest.raises(ValueError, match="from 0 to 2, got 3"):
        embedding.forward(np.full((4, 3), 3))

    def example(x, covariates, **given):
        return net.forward(np.concatenate([x, embedding.forward(covariates)[0]], axis=2), **given)[0]

    with pytest.raises(ValueError, match="must match exactly, but along dimension 1"):
        example(rng.normal(size=(4, 7, 5)), covariates)
    x, other = rng.normal(size=(4, 3, 5)), covariates.copy()
    other[:, 2] = (other[:, 2] + 1) % 3
    y, moved = example(x, covariates).y, example(x, other).y
    assert same_bits(moved[:, :2], y[:, :2]) and (np.abs(moved - y)[:, 2].max(axis=1) > 1e-3).all()
    short, short_moved = (example(x, c, lengths=[2] * 4).h_n for c in (covariates, other))
    assert same_bits(short_moved, short)

    wide = trained_weights(rng, minilstm.LSTM(5 + 3 * 10, 8, dtype="float64"))
    for T in (1, 3, 7):                                             # right: all of them, at every step
        x = rng.normal(size=(4, T, 5))
        y, moved = (wide.forward(np.concatenate(
            [x, np.repeat(embedding.forward(c)[0].reshape(4, 1, 30), T, axis=1)], axis=2))[0].y
            for c in (covariates, other))
        assert (np.abs(moved - y).max(axis=2) > 1e-6).all()


@pytest.mark.peers
def test_the_example_as_it_is_written_and_right():
    """One class of a popular answer takes the number of covariates for the number of categories, spreads static
    covariates over time in place of repeating them, and reads the last step, padding or not."""
    torch = pytest.importorskip("torch", reason="comparison with PyTorch: it is not installed")
    nn = torch.nn

    class LSTMWithCovariates(nn.Module):
        def __init__(self, input_size_seq, input_size_cov, hidden_size, output_size, embedding_dim=10):
            super().__init__()
            self.embedding = nn.Embedding(input_size_cov, embedding_dim) if isinstance(input_size_cov, int) else None
            self.linear_cov = nn.Linear(input_size_cov, hidden_size) if not isinstance(input_size_cov, int) else None
            self.lstm = nn.LSTM(input_size_seq + (embedding_dim if self.embedding else 0)
                                + (hidden_size if self.linear_cov else 0), hidden_size, batch_first=True)
            self.fc = nn.Linear(hidden_size, output_size)

        def forward(self, seq, covariates):
            covariates_emb = self.embedding(covariates) if self.embedding else covariates
            covariates_linear = torch.zeros((covariates_emb.shape[0], seq.shape[1], 0))
            combined_input = torch.cat((seq, covariates_emb, covariates_linear), dim=2)
            lstm_out, _ = self.lstm(combined_input)
            return self.fc(lstm_out[:, -1, :])

    torch.manual_seed(0)
    model = LSTMWithCovariates(5, 3, 128, 1)
    numbers, categories = torch.randn(4, 3), torch.randint(0, 3, (4, 3))
    with pytest.raises(RuntimeError, match="Expected tensor for argument #1 'indices'"):
        model(torch.randn(4, 7, 5), numbers)
    with pytest.raises(RuntimeError, match="Expected size 7 but got size 3"):
        model(torch.randn(4, 7, 5), categories)
    with pytest.raises(IndexError):
        model(torch.randn(4, 3, 5), categories + 1)                 # 3 covariates were taken for 3 categories
    with pytest.raises(TypeError):
        LSTMWithCovariates(5, (3,), 128, 1)                         # so numbers cannot be had at all
    seq = torch.randn(4, 3, 5)
    y = model(seq, categories)                                      # three steps, three covariates: it runs
    per_step = [torch.cat((seq[:, j], model.embedding(categories[:, j])), dim=1) for j in range(3)]
    assert torch.equal(y, model.fc(model.lstm(torch.stack(per_step, dim=1))[0][:, -1])), "covariate j only at step j"
    padded = torch.cat((seq, torch.zeros(4, 2, 5)), dim=1)
    longer = torch.cat((categories, torch.zeros(4, 2, dtype=torch.long)), dim=1)
    off = (model(padded, longer) - y).abs().max()
    assert off > 0.01, "the last step is padding"

    rng = np.random.default_rng(12)
    right = static_only(7)
    inputs = static_inputs(rng, right, 4, lengths=[3, 7, 1, 5])
    y, _ = right.forward(**inputs)
    for n, length in enumerate([3, 7, 1, 5]):
        alone = static_only(length)
        own = {name: array[n:n + 1] for name, array in inputs.items()}
        own |= {name: own[name][:, 7 - length:] for name in ("past", "past_categories", "history_mask")}
        own |= {name: own[name][:, 7 - length:] for name in ("known", "known_categories")}
        assert same_bits(alone.forward(**own)[0], y[n:n + 1]), "whatever the padding"


def test_the_example_trains_when_it_is_right():
    """The category decides the sign with which the last number counts: what has to be forecast is +y or -y, plus a
    number of the series.  Sequences have different lengths."""
    rng = np.random.default_rng(13)
    N, T = 512, 4
    spec = CovariateSpec("y", history=T, horizon=1, static=["level", "kind"], categories={"kind": 2}, min_history=1)
    lengths = rng.integers(1, T + 1, N)
    table = {"y": [rng.normal(size=length + 1).astype("float32") for length in lengths],
             "level": rng.normal(size=N).astype("float32"), "kind": rng.integers(0, 2, N)}
    for y, level, kind in zip(table["y"], table["level"], table["kind"]):
        y[-1] = level + (y[-2] if kind else -y[-2])
    model = Forecaster(spec, 16, seed=2)
    inputs = spec.inputs_at(table, lengths - 1)
    target = np.float32([y[-1:] for y in table["y"]])[:, :, None]
    losses = minilstm.fit(model, inputs, target, epochs=40, optimizer=minilstm.Adam(0.02), progress=False)
    assert losses[-1] < 0.05 * target.var() < 0.2
