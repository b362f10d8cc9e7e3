import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hashret.rendering import heatmaps
from hashret.rendering.heatmaps import LESS, MORE, contribution_levels, gate_levels, layer, overlay, peak_levels

# Machado, Oliveira & Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009.
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def test_levels_are_what_they_say():
    gate = np.array([[0.5, 1.0], [1.5, 1.0]])
    assert gate_levels(gate) == pytest.approx(np.log2(gate), abs=1e-6)
    places = np.array([[3.0, -1.0], [0.0, 4.0]])
    assert contribution_levels(places) == pytest.approx(places / 8)  # the mean size is 2, four times that a full colour
    assert peak_levels(np.array([[0.0, 2.0], [8.0, 4.0]])) == pytest.approx(np.array([[0, 0.25], [1, 0.5]]))


@given(st.floats(0.01, 100))
def test_levels_do_not_depend_on_the_unit(factor):
    gate = np.array([[0.9, 1.1, 1.3], [0.8, 1.0, 0.7]], np.float32)
    assert gate_levels(gate * factor) == pytest.approx(gate_levels(gate), abs=1e-4)
    assert contribution_levels((gate - 1) * factor) == pytest.approx(contribution_levels(gate - 1), abs=1e-4)


def test_nothing_to_compare():
    for levels in (contribution_levels, peak_levels):
        assert not levels(np.zeros((3, 3))).any()
    assert gate_levels(np.array([[0.7]])) == 0


def test_a_gate_that_hardly_varies_hardly_shows():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8))
    plain = np.asarray(overlay(photo, np.zeros((7, 7)))).astype(int)
    assert (plain == plain[:, :, :1]).all()  # grey
    assert (np.asarray(overlay(photo, gate_levels(np.full((7, 7), 1.99)))) == plain).all()
    gate = np.random.default_rng(1).uniform(1.98, 2.0, (7, 7))
    assert np.abs(np.asarray(overlay(photo, gate_levels(gate))) - plain).max() <= 4
    gate = np.random.default_rng(1).uniform(1.0, 2.0, (7, 7))
    assert np.abs(np.asarray(overlay(photo, gate_levels(gate))) - plain).max() > 60


def test_a_place_is_drawn_where_it_is():
    levels = np.zeros((4, 4))
    levels[1, 3], levels[2, 0] = 2, -2
    drawn = np.asarray(layer(levels, (200, 100)))
    assert drawn.shape == (100, 200, 4)
    assert tuple(drawn[37, 174, :3]) == MORE
    assert tuple(drawn[62, 25, :3]) == LESS
    assert drawn[37, 174, 3] > 150 < drawn[62, 25, 3]
    assert max(drawn[90, 100, 3], drawn[10, 10, 3]) <= 1


@given(st.lists(st.floats(-3, 3), min_size=9, max_size=9))
def test_enlarging_adds_no_larger_level(values):
    levels = np.array(values).reshape(3, 3)
    opacity = np.asarray(layer(levels, (60, 60)))[..., 3]
    assert opacity.max() <= np.ceil(255 * 0.75 * min(1, np.abs(levels).max()))


def lab(linear):
    """CIE L*a*b* of linear sRGB."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.cbrt(xyz / np.array([0.9505, 1, 1.089]))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_are_told_apart_by_everybody(kind):
    scale = np.asarray(heatmaps.scale(101, 1))[0]
    ends = ((scale[[0, 50, 100]] / 255 + 0.055) / 1.055) ** 2.4
    less, middle, more = (lab(np.clip(np.asarray(BLINDNESS[kind]) @ colour, 0, 1)) for colour in ends)
    assert np.linalg.norm(less - more) > 75
    assert np.linalg.norm(less - middle) > 30 < np.linalg.norm(more - middle)


@pytest.mark.parametrize("size", [(80, 40), (40, 80)])
def test_a_map_lies_where_a_cropped_or_padded_photograph_was_seen(size):
    opaque = {}
    for how in ("squeeze", "crop", "pad"):
        drawn = layer(np.ones((2, 2)), size, how)
        assert drawn.size == size
        opaque[how] = np.asarray(drawn)[..., 3] > 0
    assert opaque["squeeze"].all()
    assert opaque["pad"].all()
    middle = opaque["crop"][:, 20:60] if size[0] > size[1] else opaque["crop"][20:60]
    assert middle.all()
    assert opaque["crop"].sum() == 40 * 40
    left = layer(np.array([[1.0, 0.0]]), (80, 40), "pad")  # the square is as wide as the photograph
    assert np.asarray(left)[20, [5, 75], 3].tolist() == [191, 0]
