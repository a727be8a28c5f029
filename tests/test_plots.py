"""The pictures show the numbers of the layers and can be read: everything drawn is finite, has labels and a legend,
masked steps have no value, and no two lines look alike in print."""
import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import minilstm
from helpers import HOLES, gradients_of, random_net, states_of
from minilstm import plots
from minilstm.checks import gradient_paths
from minilstm.plots.style import LINES
from minilstm.training import History

# ------------------------------------------------------------------------------------------------------------ pictures


def history(seed=0, epochs=8):
    rng = np.random.default_rng(seed)
    return History(rng.random(epochs) + 0.1, validation=list(rng.random(epochs) + 0.2), rates=[0.1] * epochs,
                   norms=rng.random(3 * epochs), best_epoch=3)


def fan(levels, target=True):
    rng = np.random.default_rng(0)
    past, mask = rng.normal(size=9), np.arange(9) != 4
    past[4] = np.nan
    quantiles = np.sort(rng.normal(size=(5, len(levels))), axis=1)
    times = np.datetime64("2024-02-26") + np.arange(14)
    return plots.quantile_forecast(times, past, quantiles, levels, rng.normal(size=5) if target else None, mask=mask)


def of_net(function, kind, **options):
    rng, net, batch = random_net(kind, num_layers=2, bidirectional=True)
    mask = HOLES
    x = np.where(mask[:, :, None], batch["x"], np.nan)
    given = gradients_of(batch) if function is plots.gradient_flow else {}
    row = {} if function is plots.saturation else {"row": 1}
    return function(net, x, mask, layer=1, direction=1, **row, **states_of(batch), **given, **options)


def attention_weights(*shape):
    weights = np.random.default_rng(0).random(shape)
    return weights / weights.sum(axis=-1, keepdims=True)


TALL = np.arange(5) < 4
PICTURES = {        # name -> (function, number of panels, lines in each or None, handles in the legend)
    "gates, LSTM": (lambda: of_net(plots.gates, "LSTM, projection"), 6, 0, 1),
    "gates, GRU": (lambda: of_net(plots.gates, "GRU"), 4, 0, 1),
    "gates, RNN": (lambda: of_net(plots.gates, "RNN, relu"), 1, 0, 1),
    "gradients, LSTM": (lambda: of_net(plots.gradient_flow, "LSTM, projection"), 2, None, 8),
    "gradients, GRU": (lambda: of_net(plots.gradient_flow, "GRU, reset before"), 1, None, 6),
    "gradients, RNN": (lambda: of_net(plots.gradient_flow, "RNN, tanh"), 1, None, 3),
    "saturation": (lambda: of_net(plots.saturation, "LSTM"), 3, 2, 2),
    "attention": (lambda: plots.attention_map(attention_weights(7, 5)), 1, 0, 0),
    "attention, masked": (lambda: plots.attention_map(attention_weights(6, 7, 5), TALL, np.arange(7) > 1,
                                                      key_labels=list("abcde"),
                                                      query_labels=range(7), head_labels=list("uvwxyz")), 6, 0, 1),
    "forecast": (lambda: fan([0.05, 0.25, 0.5, 0.75, 0.95]), 1, 4, 7),
    "forecast, no median": (lambda: fan([0.1, 0.9], target=False), 1, 2, 4),
    "training": (lambda: plots.training_curves([3.0, 2.0, 0.1]), 1, 1, 1),
    "training, all": (lambda: plots.training_curves(history()), 3, None, 3),
    "training, several": (lambda: plots.training_curves({str(k): history(k) for k in range(len(LINES))}), 3, None,
                          3 * len(LINES)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture(name):
    draw, panels, lines, handles = PICTURES[name]
    figure = draw()
    assert type(figure) is Figure
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    assert file.getvalue().startswith(b"\x89PNG") and len(file.getvalue()) > 3000
    drawn = [axes for axes in figure.axes if axes.axison and axes.get_label() != "<colorbar>"]
    assert len(drawn) == panels
    for axes in drawn:
        assert axes.get_xlabel() or any(other.get_xlabel() for other in drawn)
        assert axes.get_ylabel() or any(other.get_ylabel() for other in drawn)
        assert axes.lines or axes.images
        assert lines is None or len(axes.lines) == lines
        for line in axes.lines:
            x, y = (np.ma.masked_invalid(np.ma.asarray(data, float)).compressed() for data in line.get_data())
            assert len(y) > 0 and np.isfinite(x).all()
        for image in axes.images:
            assert np.isfinite(image.get_array().compressed()).all() and len(image.get_array().compressed())
        assert all_differ(axes.lines)
    legend = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert len(legend) == handles and len(set(legend)) == handles and all(legend)


@pytest.mark.parametrize("T", [2, 10, 30, 60])
def test_no_legend_is_wider_than_its_picture(T):
    rng = np.random.default_rng(0)
    x, mask = rng.normal(size=(1, T, 2)).astype("float32"), np.arange(T)[None] > 0
    for net in (minilstm.LSTM(2, 4), minilstm.GRU(2, 4)):
        figure = plots.gradient_flow(net, x, mask, dy=np.ones((1, T, 4), "float32"))
        figure.savefig(io.BytesIO(), format="png", dpi=figure.dpi)
        [legend] = figure.legends
        extent = legend.get_window_extent()
        assert extent.x0 >= 0 and extent.x1 <= figure.bbox.width


def luminance(color):
    """0 black to 1 white, as WCAG 2 has it."""
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def all_differ(lines):
    """Any two by their dashes, their marker or clearly by their luminance."""
    looks = [((line.get_linestyle(), *line._unscaled_dash_pattern), line.get_marker(), luminance(line.get_color()))
             for line in lines]
    return all(one[:2] != other[:2] or abs(one[2] - other[2]) > 0.2
               for k, one in enumerate(looks) for other in looks[:k])


def test_gates_are_those_of_the_trace():
    """Every value, in its panel, transposed; the masked steps and no others without one, whatever x holds there."""
    rng, net, batch = random_net("LSTM")
    mask = HOLES
    figure = plots.gates(net, np.where(mask[:, :, None], batch["x"], np.inf), mask, row=1, **states_of(batch))
    trace = minilstm.trace(net, batch["x"], mask, row=1, **states_of(batch))
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title()[0] for axes in panels] == list("ifgoch")
    for axes in panels:
        drawn, expected = axes.images[0].get_array(), trace.series(axes.get_title()[0])
        assert (np.ma.getmaskarray(drawn) == ~mask[1]).all()
        assert drawn[:, mask[1]].data.tolist() == expected[mask[1]].T.tolist()


def test_a_sequence_without_real_steps_is_all_hatched():
    rng, net, batch = random_net("GRU")
    mask = np.ones((3, 6), bool)
    mask[1] = False
    figure = plots.gates(net, batch["x"], mask, row=1)
    assert [np.ma.count(axes.images[0].get_array()) for axes in figure.axes if axes.images] == [0, 0, 0, 0]
    figure = plots.gradient_flow(net, batch["x"], mask, row=1, dy=batch["dy"])
    assert not figure.axes[0].lines and "no gradient" in [text.get_text() for text in figure.axes[0].texts]


def test_gradient_lines_are_the_lengths():
    """With a gap at masked steps, and nothing for a path of length 0."""
    rng, net, batch = random_net("LSTM")
    mask = HOLES
    options = {"row": 1, **states_of(batch), **gradients_of(batch)}
    figure = plots.gradient_flow(net, batch["x"], mask, **options)
    norms = gradient_paths(net, batch["x"], mask, **options).norms()
    for axes, (state, lengths) in zip(figure.axes, norms.items(), strict=True):
        assert axes.get_yscale() == "log" and f"dL/d{state}" in axes.get_title()
        expected = {path: length for path, length in lengths.items() if (length[mask[1]] > 0).any()}
        assert len(axes.lines) == len(expected) == 5 + 2 * (state == "c")
        for line, length in zip(axes.lines, expected.values()):
            drawn = np.ma.masked_invalid(line.get_ydata())
            shown = mask[1] & (length > 0)              # at the last step nothing has come through a gate yet
            assert (np.ma.getmaskarray(drawn) == ~shown).all() and shown.sum() >= mask[1].sum() - 1 > 1
            assert drawn.compressed().tolist() == length[shown].tolist()


def test_attention_rows_are_queries_from_above():
    """And rubbish where query or key is masked is not drawn, nor does it move the scale."""
    weights = attention_weights(2, 4, 5)
    keys, queries = np.arange(5) < 3, np.arange(4) > 0
    weights[:, :, ~keys], weights[:, ~queries] = np.nan, 1e30
    figure = plots.attention_map(weights, keys, queries)
    for head, axes in enumerate(axes for axes in figure.axes if axes.images):
        image = axes.images[0].get_array()
        shown = queries[:, None] & keys
        assert axes.get_ylim()[0] > axes.get_ylim()[1]
        assert (np.ma.getmaskarray(image) == ~shown).all()
        assert image.data[shown].tolist() == weights[head][shown].tolist()
        assert axes.images[0].get_clim() == (0, weights[:, shown].max())


def test_the_fan_is_made_of_pairs_of_quantiles():
    past, forecast = np.array([1.0, 2.0, 3.0]), np.array([[1.0, 2.0, 4.0, 5.0, 9.0], [0.0, 2.0, 5.0, 6.0, 10.0]])
    axes, = plots.quantile_forecast([0, 1, 2, 3, 4], past, forecast, [0.1, 0.2, 0.5, 0.8, 0.9], unit="tons").axes
    wide, narrow = (interval.get_paths()[0].vertices for interval in axes.collections)
    for path, columns in ((wide, (0, 4)), (narrow, (1, 3))):
        for step, row in zip((3, 4), forecast):
            assert set(row[list(columns)]) <= set(path[path[:, 0] == step, 1])
    assert [interval.get_label() for interval in axes.collections] == ["80 %: 0.1 to 0.9", "60 %: 0.2 to 0.8"]
    median = next(line for line in axes.lines if line.get_label() == "median")
    assert median.get_ydata().tolist() == [4.0, 5.0] and axes.get_ylabel() == "tons"
    one, = plots.quantile_forecast([0, 1, 2, 3], past, forecast[:1], [0.1, 0.2, 0.5, 0.8, 0.9]).axes
    extent = one.collections[0].get_paths()[0].vertices
    assert set(extent[:, 0]) == {2.5, 3.5} and set(extent[:, 1]) == {1.0, 9.0}         # one step has a width


def test_training_curves_stand_at_their_epochs():
    given = History([4.0, 2.0, 1.0, 0.1], validation=[5.0, 3.0, 2.5, 2.6], norms=[1.0] * 8, best_epoch=3)
    losses, norms = plots.training_curves(given).axes
    training, validation, best = losses.lines
    assert training.get_xdata().tolist() == [1, 2, 3, 4] and training.get_ydata().tolist() == given
    assert validation.get_ydata().tolist() == given.validation
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (3, 2.5)
    assert norms.lines[0].get_xdata().tolist() == [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]
    assert losses.get_yscale() == "log"
    assert plots.training_curves([2.0, 1.0]).axes[0].get_yscale() == "linear"
    assert plots.training_curves([2.0, -1.0, 0.01]).axes[0].get_yscale() == "linear"


def test_a_training_can_be_drawn():
    """What fit returns, as it is."""
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(4, 3, 2)).astype("float32"), rng.normal(size=(4, 3, 1)).astype("float32")
    losses = minilstm.fit(minilstm.Linear(2, 1, backend="reference"), x, target, epochs=3, progress=False)
    assert plots.training_curves(losses).axes[0].lines[0].get_ydata().tolist() == list(losses)


def test_a_validation_loss_that_is_not_finite_is_a_gap():
    history = History([3.0, 2.0, 1.0, 0.5], validation=[3.0, np.nan, np.inf, 1.0], best_epoch=4)
    axes = plots.training_curves(history).axes[0]
    assert np.isnan(axes.lines[1].get_ydata()).tolist() == [False, True, True, False]
    assert np.isfinite(axes.get_ylim()).all()


def test_only_plots_imports_matplotlib_and_nothing_pyplot():
    """And no call of it does."""
    code = ("import sys, minilstm; assert 'matplotlib' not in sys.modules;"
            "import numpy as np; from minilstm import plots;"
            "plots.training_curves([2.0, 1.0]).savefig('/dev/null', format='png');"
            "plots.gates(minilstm.LSTM(2, 3), np.ones((1, 4, 2), 'float32'));"
            "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules; print('done')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr


# -------------------------------------------------------------------------------------------------------------- errors

NET, X = minilstm.GRU(2, 3), np.ones((1, 4, 2), "float32")
WEIGHTS, PAST, FORECAST = attention_weights(3, 4), np.ones(3), np.ones((2, 3))
LEVELS = [0.1, 0.5, 0.9]


@pytest.mark.parametrize("call, error, message", [
    (lambda: plots.gates(minilstm.Linear(2, 3), X), TypeError, "net: expected an LSTM, GRU or RNN, got Linear"),
    (lambda: plots.gates(NET, X, row=1), ValueError, "row: expected less than B=1, got 1"),
    (lambda: plots.gates(NET, X, layer=1), ValueError, "layer: expected less than 1, got 1"),
    (lambda: plots.gates(NET, X.astype("float16")), TypeError, "x: expected float32 or float64, got float16"),
    (lambda: plots.gates(minilstm.Sequential(minilstm.Linear(2, 2), NET), X), TypeError, r"; net.layers\[1\] is one"),
    (lambda: plots.gates(NET, X[:, :0]), ValueError, "x: expected at least one step, got T=0"),
    (lambda: plots.gradient_flow(NET, X[:, :0], dy=X[:, :0].repeat(3, 2)[..., :3]), ValueError, "x: expected at least"),
    (lambda: plots.gradient_flow(NET, X), ValueError, "dy, dh_n: expected at least one gradient"),
    (lambda: plots.gradient_flow(minilstm.GRU(2, 3, zoneout_h=0.1), X, dy=X), ValueError, "without zoneout"),
    (lambda: plots.gradient_flow(NET, X, dy=X), ValueError, "dy: expected float64"),
    (lambda: plots.saturation(minilstm.RNN(2, 3), X), ValueError, "net: expected a layer with gates, got RNN"),
    (lambda: plots.saturation(NET, X, np.zeros((1, 4), bool)), ValueError, "mask: expected at least one real step"),
    (lambda: plots.saturation(NET, X, limits=(0.9, 0.1)), ValueError, "limits: expected two numbers from 0 to 1"),
    (lambda: plots.saturation(NET, X, limits=0.1), TypeError, "limits: expected two numbers, got 0.1"),
    (lambda: plots.attention_map(WEIGHTS[0]), ValueError, r"weights: expected numbers \(Tq, Tk\), got float64 \(4,\)"),
    (lambda: plots.attention_map(3 * WEIGHTS), ValueError, "weights: expected numbers from 0 to 1"),
    (lambda: plots.attention_map(np.nan * WEIGHTS), ValueError, "weights: expected numbers from 0 to 1"),
    (lambda: plots.attention_map("weights"), TypeError, "weights: expected numbers"),
    (lambda: plots.attention_map(WEIGHTS, np.ones(3, bool)), ValueError, r"key_mask: expected shape \(Tk=4,\)"),
    (lambda: plots.attention_map(WEIGHTS, np.ones(4)), TypeError, "key_mask: expected a bool array"),
    (lambda: plots.attention_map(WEIGHTS, key_labels="abc"), TypeError, "key_labels: expected a list of Tk=4 texts"),
    (lambda: plots.attention_map(WEIGHTS, query_labels=["a"]), ValueError, "query_labels: expected Tq=3 texts, got 1"),
    (lambda: plots.quantile_forecast([0, 1, 2], PAST, FORECAST, LEVELS), ValueError, r"times: expected .*\(P\+K=5,\)"),
    (lambda: plots.quantile_forecast([0, 1, 2, 2, 3], PAST, FORECAST, LEVELS), ValueError, "times: expected rising"),
    (lambda: plots.quantile_forecast(np.arange(5), PAST, FORECAST, [0.1, 0.5, 0.8]), ValueError, "levels: expected"),
    (lambda: plots.quantile_forecast(np.arange(5), PAST, FORECAST, [0.1, 0.9]), ValueError, "forecast: expected"),
    (lambda: plots.quantile_forecast(np.arange(5), PAST * np.nan, FORECAST, LEVELS), ValueError, "past: expected fini"),
    (lambda: plots.quantile_forecast(np.arange(5), PAST, FORECAST, LEVELS, [1.0]), ValueError, "target: expected"),
    (lambda: plots.training_curves([]), ValueError, "history: expected numbers"),
    (lambda: plots.training_curves({}), ValueError, "history: expected 1 to 7"),
    (lambda: plots.training_curves(3.0), TypeError, "history: expected a list of losses"),
    (lambda: plots.training_curves({"a": [1.0, np.nan]}), ValueError, r"history\['a'\]: expected finite numbers"),
    (lambda: plots.training_curves(History([1.0], best_epoch=2)), ValueError, "history.best_epoch: expected at most 1"),
])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
