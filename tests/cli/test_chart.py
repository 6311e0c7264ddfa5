"""Charts: every point within the frame, every label told, and no input that breaks them."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from hypothesis import example, given
from hypothesis import strategies as st

from mesh.cli.chart import line_chart, percentile_ticks

numbers = st.floats(0, 1e12, allow_nan=False)
points = st.lists(st.tuples(numbers, numbers), max_size=30)
SVG = "{http://www.w3.org/2000/svg}"


@example({"<": [(5e-324, 0.0)]}, True, False)
@given(st.dictionaries(st.text('ab<&>"', min_size=1), points, max_size=4), st.booleans(), st.booleans())
def test_any_points_make_a_chart(
    series: dict[str, list[tuple[float, float]]], log_x: bool, log_y: bool
) -> None:
    chart = ET.fromstring(line_chart("a & b", "x < y", "y", series, log_x=log_x, log_y=log_y))
    for dot in chart.iter(f"{SVG}circle"):
        assert 70 <= float(dot.attrib["cx"]) <= 580
        assert 40 <= float(dot.attrib["cy"]) <= 390


def test_the_labels() -> None:
    chart = line_chart(
        "t", "percentile", "ms", {"<one>": [(1, 2), (100, 9)]}, x_ticks=percentile_ticks(), log_x=True
    )
    texts = [element.text for element in ET.fromstring(chart).iter(f"{SVG}text")]
    assert {"t", "percentile", "ms", "<one>", "50", "99"} <= set(texts)
