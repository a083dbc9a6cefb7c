"""Charts and the drawing of the lineage: geometry and what is left out."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.dag import Dag
from ops.report import chart, lineage
from ops.report.page import Html, cell, join, table, tag


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_few_and_inside(low, span):
    found = chart.ticks(low, low + span)
    assert 2 <= len(found) <= 8
    slack = span * 1e-6
    assert all(low - slack <= value <= low + span + slack for value in found)
    steps = np.diff(found)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-3)
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 2.5, 5, 10)) < 0.05


def test_a_gap_in_the_numbers_is_a_gap_in_the_line():
    svg = chart.lines("t", [chart.Line("a", [0, 1, 2, 3], [1, float("nan"), 2, 3])], "x")
    (path,) = re.findall(r'd="([^"]*)" class="curve"', svg)
    assert path.count("M") == 2
    assert path.count("L") == 1


def test_bars_are_as_high_as_their_counts():
    svg = chart.bars("t", [0, 1, 2, 3], [4, 0, 2], "x")
    heights = [float(h) for h in re.findall(r'class="bar"[^>]*height="([\d.]+)"', svg)]
    assert heights[1] == 0
    assert heights[0] == pytest.approx(2 * heights[2], rel=0.01)


def test_grid_shows_only_cells_with_something_in_them():
    counts = np.zeros((3, 2), int)
    counts[0, 1], counts[2, 0] = 1, 10
    svg = chart.grid_of_counts("t", [0, 1, 2, 3], [0, 1, 2], counts, "x")
    assert re.findall(r'fill-opacity="([\d.]+)"', svg) == ["0.23", "1"]


def test_edges_that_others_imply_are_left_out():
    parents = {"a": [], "b": ["a"], "c": ["a", "b"], "d": ["a", "c"], "e": ["b"]}
    assert lineage.reduced(parents) == [("a", "b"), ("b", "c"), ("c", "d"), ("b", "e")]


def test_lineage_has_a_box_a_stage_and_an_arrow_an_edge(project):
    dag = Dag.load(project)
    svg = lineage.draw(dag, {"crawl@mine"})
    assert svg.count("<rect") == 5
    assert svg.count('class="edge"') == 4  # crawl, screen, detect, train, report in a row; crawl to train is implied
    assert svg.count('class="box unrun"') == 4
    for name in dag.stages:
        assert f">{name}</text>" in svg
    assert "raw</li>" in svg
    assert "giraffe, infonce, aamnce" not in svg
    assert "3 of them" in svg


def test_boxes_do_not_overlap_and_stay_inside(project):
    svg = lineage.draw(Dag.load(project), set())
    width, height = (float(v) for v in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    boxes = [
        tuple(map(float, b))
        for b in re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', svg)
    ]
    for i, (x, y, w, h) in enumerate(boxes):
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
        for x2, y2, w2, h2 in boxes[:i]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


GRAPHS = st.integers(1, 12).flatmap(
    lambda n: st.tuples(*(st.sets(st.integers(0, i - 1)) if i else st.just(set()) for i in range(n)))
)


@given(GRAPHS)
def test_every_stage_stands_below_what_it_reads_and_every_line_is_whole(graph):
    parents = {str(i): sorted(map(str, some)) for i, some in enumerate(graph)}
    depth, rows, above = lineage.layered(parents)
    assert sorted(n for row in rows for n, r in row if depth[n] == r) == sorted(parents)
    for name, direct in parents.items():
        assert all(depth[parent] < depth[name] for parent in direct)
    for parent, name in lineage.reduced(parents):
        node = (parent, depth[name] - 1)
        assert node in above[name, depth[name]]
        while node[1] > depth[parent]:
            assert node in rows[node[1]]
            (node,) = above[node]
        assert node == (parent, depth[parent])


def test_a_crossing_that_can_be_avoided_is_avoided():
    parents = {"a": [], "b": [], "c": ["b"], "d": ["a"]}
    _, (first, second), _ = lineage.layered(parents)
    assert [n for n, _ in first] == ["a", "b"]
    assert [n for n, _ in second] == ["d", "c"]


def test_text_is_escaped_and_markup_is_not():
    assert tag("p", "<&>", Html("<b>x</b>"), class_="a") == '<p class="a">&lt;&amp;&gt;<b>x</b></p>'
    assert join(["a", Html("<i>")]) == "a<i>"
    assert 'x="&quot;&gt;"' in tag("p", x='">')


def test_numbers_in_cells():
    assert [cell(v) for v in (1234567, 0.123456, None, float("nan"), "x", np.int64(5))] == [
        "1,234,567",
        "0.1235",
        "–",
        "–",
        "x",
        "5",
    ]
    shown = table(("a", "b"), [["x", 3], ["y", "text"]])
    assert '<td class="n">3</td>' in shown
    assert "<td>text</td>" in shown


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "0"), (1.5e-4, "1.5e-4"), (2e-7, "2e-7"), (-2.5e-5, "-2.5e-5"), (0.002, "0.002"), (12500, "12.5k")],
)
def test_the_numbers_of_an_axis_fit_before_it(value, words):
    assert chart._short(value) == words
    assert len(words) <= 7
