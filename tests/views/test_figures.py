import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from ht_bench.errors import UsageError
from ht_bench.ranking.comparison import TaskInfo, compare
from ht_bench.views import style
from ht_bench.views.figures import curves_figure
from ht_bench.views.rankings import ranking_figure, suites_figure
from ht_bench.views.style import line_styles, spread

LEVELS = {"none": 0.90, "full-reset": 0.95, "hare-tortoise": 0.94, "ema": 0.941}
TASKS = {"digits-v1": TaskInfo("digits-v1", "warm-start", 10, (100, 101, 102))}


@pytest.fixture
def make_runs(make_record):
    def make(phases=2, seeds=(100, 101, 102), levels=LEVELS):
        return {
            method: [
                make_record(
                    [[0.1, 0.5], *([[0.8, level + 0.003 * (seed % 5)]] * (phases - 1))],
                    method,
                    seed,
                )
                for seed in seeds
            ]
            for method, level in levels.items()
        }

    return make


@pytest.fixture
def drawn(monkeypatch):
    """Keep each figure in its finished state, as it is saved."""
    kept: list[Figure] = []
    save = style.save

    def keep(figure, path):
        kept.append(figure)
        return save(figure, path)

    monkeypatch.setattr(style, "save", keep)
    return kept


def flat(runs):
    return [record for records in runs.values() for record in records]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def ticks_out_of_view(figure):
    """Return the labels that matplotlib keeps, but does not draw."""
    hidden = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if not low <= tick.get_loc() <= high:
                hidden |= {tick.label1, tick.label2}
    return hidden


def assert_no_text_overlaps_or_leaves(figure):
    from matplotlib.text import Text

    renderer = figure.canvas.get_renderer()
    out_of_view = ticks_out_of_view(figure)
    shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    shown = [text for text in shown if text not in out_of_view]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in shown]
    page = figure.bbox
    for index, (text, box) in enumerate(boxes):
        assert page.x0 <= box.x0, text
        assert box.x1 <= page.x1, text
        assert page.y0 <= box.y0, text
        assert box.y1 <= page.y1, text
        for other, second in boxes[index + 1 :]:
            assert not box.padded(-1.5).overlaps(second.padded(-1.5)), (text, other)


@pytest.mark.parametrize("name", ["curves", "ranking"])
def test_pictures_are_equal_byte_for_byte(make_runs, tmp_path, name, monkeypatch):
    runs = make_runs()

    def draw(folder):
        if name == "curves":
            return curves_figure(runs, "digits-v1", "test/accuracy", tmp_path / folder / "x")
        return ranking_figure(compare(flat(runs), TASKS), tmp_path / folder / "x")

    first = [path.read_bytes() for path in draw("one")]
    monkeypatch.setitem(mpl.rcParams, "font.size", 30)  # a user's own style changes nothing
    monkeypatch.setitem(mpl.rcParams, "axes.linewidth", 5)
    monkeypatch.setitem(mpl.rcParams, "svg.hashsalt", None)
    second = [path.read_bytes() for path in draw("two")]
    assert first == second
    assert first[0].startswith(b"\x89PNG")
    assert first[1].startswith(b"<?xml")
    assert b"<dc:date>" not in first[1]
    assert mpl.rcParams["font.size"] == 30


def test_curves_show_stream_and_last_phase(make_runs, tmp_path, drawn):
    runs = make_runs(phases=3)
    files = curves_figure(runs, "digits-v1", "test/accuracy", tmp_path / "v1.5.png")
    assert [file.name for file in files] == ["v1.5.png", "v1.5.svg"]
    whole, last = drawn[0].axes
    lines = [line for line in whole.lines if len(line.get_xdata()) == 6]
    assert len(lines) == 4
    mean = np.mean([record["curve"]["test/accuracy"] for record in runs["none"]], axis=0)
    np.testing.assert_allclose(lines[0].get_ydata(), mean)
    boundaries = [line.get_xdata()[0] for line in whole.lines if len(line.get_xdata()) == 2]
    assert boundaries == [10, 30]
    assert last.get_xlim() == (30, 50)
    assert any(text.startswith("hare-tortoise  0.9") for text in texts(last))
    low, high = last.get_ylim()
    assert 0.8 < low < 0.9 < 0.956 < high < 0.97
    assert_no_text_overlaps_or_leaves(drawn[0])


def test_many_phases_are_drawn_by_their_ends(make_runs, tmp_path, drawn):
    runs = make_runs(phases=13)
    curves_figure(runs, "digits-v1", "test/accuracy", tmp_path / "x")
    (axes,) = drawn[0].axes
    line = axes.lines[0]
    np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 14))
    ends = np.mean([r["curve"]["test/accuracy"][1::2] for r in runs["none"]], axis=0)
    np.testing.assert_allclose(line.get_ydata(), ends)


def test_diverged_runs_are_left_out_and_counted(make_runs, tmp_path, drawn):
    runs = make_runs()
    runs["ema"][0]["status"] = "diverged"
    runs["ema"][0]["curve"] = {k: v[:1] for k, v in runs["ema"][0]["curve"].items()}
    curves_figure(runs, "digits-v1", "test/accuracy", tmp_path / "x")
    assert any("(1 div.)" in text for text in texts(drawn[0].axes[-1]))
    with pytest.raises(UsageError, match="No finished run on 'digits-v1'"):
        curves_figure({"ema": runs["ema"][:1]}, "digits-v1", "test/accuracy", tmp_path / "y")
    runs["ema"][1]["curve"]["step"][-1] += 1
    with pytest.raises(UsageError, match="seed 102 differ"):
        curves_figure(runs, "digits-v1", "test/accuracy", tmp_path / "y")


@pytest.mark.parametrize("phases", [1, 2, 13])
def test_twelve_crowded_labels_do_not_overlap(make_runs, tmp_path, drawn, phases):
    crowd = {f"some-method-with-a-name-{i}": 0.93 + 1e-4 * i for i in range(8)}
    runs = make_runs(phases, levels=LEVELS | crowd)
    curves_figure(runs, "digits-v1", "test/accuracy", tmp_path / "x")
    assert_no_text_overlaps_or_leaves(drawn[0])


def test_ranking_draws_each_gap_with_its_interval(make_runs, tmp_path, drawn):
    runs = make_runs(levels=LEVELS | {"spectral-regularization-01234567": 0.92})
    runs["ema"] = runs["ema"][:2]
    comparison = compare(flat(runs), TASKS)
    ranking_figure(comparison, tmp_path / "x")
    (axes,) = drawn[0].axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[0] == "full-reset"
    assert names[-1] == "none"
    dots = {round(line.get_ydata()[0]): line for line in axes.lines if line.get_marker() == "o"}
    for row in comparison.tables[0].rows:
        dot = dots[names.index(row.label)]
        assert dot.get_xdata()[0] == pytest.approx(row.gap_closed.value)
        assert (dot.get_markerfacecolor() == "white") is (row.label == "ema")
    verticals = [line for line in axes.lines if list(line.get_ydata()) == [0, 1]]
    assert [line.get_xdata()[0] for line in verticals[:2]] == [0, 1]
    assert {"none", "full-reset"} <= set(texts(axes))
    assert_no_text_overlaps_or_leaves(drawn[0])


def test_an_interval_beyond_the_view_ends_in_an_arrow(make_runs, tmp_path, drawn):
    runs = make_runs(levels=LEVELS)
    for seed, record in enumerate(runs["full-reset"]):
        record["curve"]["test/accuracy"][-1] = 0.9 + (0.009, 0.0085, 0.0095)[seed]
        runs["none"][seed]["curve"]["test/accuracy"][-1] = 0.9
    comparison = compare(flat(runs), TASKS)
    ranking_figure(comparison, tmp_path / "x")
    (axes,) = drawn[0].axes
    assert any(line.get_marker() in "<>" for line in axes.lines if line.get_marker())
    assert any("so the ratio is rough" in text.get_text() for text in drawn[0].texts)
    assert_no_text_overlaps_or_leaves(drawn[0])


def test_a_ranking_without_anchors_is_refused(make_runs, tmp_path):
    comparison = compare(flat(make_runs(levels={"ema": 0.9})), TASKS)
    with pytest.raises(UsageError, match="needs none and full-reset"):
        ranking_figure(comparison, tmp_path / "x")
    with pytest.raises(UsageError, match="needs none and full-reset"):
        suites_figure(comparison.tables, tmp_path / "x")


def test_suites_stand_side_by_side_with_a_method_s_dots_in_one_row(make_runs, tmp_path, drawn):
    all_four = compare(flat(make_runs()), TASKS).tables[0]
    fewer = {"none": 0.91, "full-reset": 0.95, "shrink-perturb": 0.96, "ema": 0.93}
    other = replace(compare(flat(make_runs(levels=fewer)), TASKS).tables[0], name="suite-shift-v1")
    suites_figure([all_four, other], tmp_path / "x")
    first, second = drawn[0].axes
    names = [label.get_text() for label in first.get_yticklabels()]
    assert names == ["full-reset", "ema", "hare-tortoise", "none", "shrink-perturb"]
    assert [axes.get_title() for axes in (first, second)] == [
        "digits-v1\n4 methods",
        "shift-v1\n4 methods",
    ]
    assert first.get_ylim() == second.get_ylim()
    for axes, table in ((first, all_four), (second, other)):
        dots = {round(line.get_ydata()[0]): line for line in axes.lines if line.get_marker() == "o"}
        values = {names[place]: dot.get_xdata()[0] for place, dot in dots.items()}
        assert values == {row.label: pytest.approx(row.gap_closed.value) for row in table.rows}
    assert_no_text_overlaps_or_leaves(drawn[0])


def test_spread_keeps_order_and_distance_and_moves_little():
    heights = [0.5, 0.1, 0.51, 0.52, 0.9]
    places = spread(heights, 0.1)
    assert sorted(range(5), key=places.__getitem__) == sorted(range(5), key=heights.__getitem__)
    assert all(b - a >= 0.1 - 1e-12 for a, b in pairwise(sorted(places)))
    assert (places[1], places[4]) == (0.1, 0.9)
    assert (places[0] + places[2] + places[3]) / 3 == pytest.approx(0.51)
    assert spread([], 0.1) == []
    low = spread([0.0, 0.0, 0.0, 0.2, 1.0], 0.1)
    assert min(low) >= 0 and all(b - a >= 0.1 - 1e-12 for a, b in pairwise(sorted(low)))
    high = spread([1.0, 1.0, 0.95, 0.1], 0.1)
    assert max(high) <= 1.1 + 1e-12 and all(b - a >= 0.1 - 1e-12 for a, b in pairwise(sorted(high)))


def test_every_label_has_a_style_of_its_own():
    labels = [f"method-{index}" for index in range(20)] + ["none", "full-reset", "hare-tortoise"]
    styles = line_styles(labels)
    assert len({(style["color"], style["linestyle"]) for style in styles.values()}) == 23
    assert line_styles(labels[::-1]) == styles


def test_importing_figures_loads_no_matplotlib_and_comparing_no_torch():
    code = (
        "import sys, ht_bench.views.figures, ht_bench.views.rankings, ht_bench.ranking.comparison; "
        "print([m for m in ('matplotlib', 'torch', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
