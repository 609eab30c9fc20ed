"""Labels of a scatter: beside their points, on nothing, the first ones first."""

from __future__ import annotations

import itertools

import numpy as np

from ht_bench.views.labels import CHARACTER, HEIGHT, Label, place


def test_a_label_alone_stands_at_the_right_of_its_point() -> None:
    assert place([(100.0, 50.0)], ["one"]) == [Label(108, 54, "start")]
    assert place([(100.0, 50.0)], ["one"], right=110) == [Label(92, 54, "end")]


def test_a_point_at_the_right_sends_it_elsewhere() -> None:
    here, there = place([(100.0, 50.0), (115.0, 50.0)], ["none", "ema"])
    assert here == Label(92, 54, "end") and there == Label(123, 54, "start")


def test_where_there_is_no_room_there_is_no_label_and_the_first_have_it() -> None:
    crowd = [(100.0 + 3 * k, 50.0) for k in range(12)]
    texts = [f"method-{k}" for k in range(12)]
    placed = place(crowd, texts)
    assert placed[0] is not None and placed.count(None) >= 6
    last = place(crowd, texts, first=[5])
    assert last[5] is not None and placed[5] is None


def test_none_overlap() -> None:
    random = np.random.default_rng(0)
    points = [(float(x), float(y)) for x, y in random.uniform((50, 20), (500, 350), (60, 2))]
    placed = place(points, ["a-method"] * 60, right=640)
    assert sum(label is not None for label in placed) > 20
    width = CHARACTER * len("a-method")
    left = {"start": 0.0, "middle": width / 2, "end": width}
    boxes = [
        (label.x - left[label.anchor], label.y - HEIGHT, width)
        for label in placed
        if label is not None
    ]
    for (ax, ay, aw), (bx, by, bw) in itertools.combinations(boxes, 2):
        assert ax + aw <= bx or bx + bw <= ax or abs(ay - by) >= HEIGHT - 2
