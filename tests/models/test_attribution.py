"""Gates and contributions against the network itself: finite differences, places left out, and plain sums."""

import numpy as np
import pytest
import torch

from hashret.bits import binarize
from hashret.models.attribution import attribute
from hashret.models.encoder import Encoder
from hashret.models.network import HashNet

HEADS = {
    "am-vggh": {"head": "fc", "attention": True, "gate": "half", "width": 24},
    "vggh": {"head": "fc", "attention": False, "width": 24},
    "dnnh": {"head": "sliced", "attention": False, "width": 24},
    "itq": {"head": "projection"},
    "ksh": {"head": "kernel", "anchors": 30},
}
BITS = 12


def make_encoder(method):
    """An untrained encoder of 3 x 3 cells; its gates, and what a shallow method would fit, are random."""
    torch.manual_seed(0)
    net = HashNet(BITS, 0, image_size=96, arch="vgg11", **HEADS[method])
    with torch.no_grad():
        for name, parameter in net.head.named_parameters():
            if name.startswith("attention"):
                parameter.copy_(0.1 * torch.randn_like(parameter))
            elif method in ("itq", "ksh") and name != "sigma":
                parameter.copy_(torch.rand_like(parameter) - 0.4)
    return Encoder(net, {"bits": BITS, "image_size": 96, "method": method}, "cpu", "float32")


def make_features(n):
    """What convolutions give: none negative, half of them zero."""
    return torch.randn(n, 512, 3, 3, generator=torch.Generator().manual_seed(1)).relu().half()


@pytest.fixture(scope="module", params=HEADS)
def encoder(request):
    return make_encoder(request.param)


@pytest.fixture(scope="module")
def features():
    return make_features(40)


def agreement(encoder, activations, signs):
    """Signed sum of the logits that the head reads from features behind the gates, (512, h, w)."""
    with torch.no_grad():
        logits = encoder.head.read(torch.as_tensor(activations)[None]).logits[0]
    return float(logits.double() @ torch.as_tensor(signs).double())


def signs_of(one):
    return np.where(binarize(one.hash_outputs), 1, -1)


def behind_gates(one):
    """All activations of an attribution with k=512, in the order of the channels."""
    return one.activations[one.strongest.argsort()]


def test_values_are_those_of_the_encoding_to_the_last_bit(encoder, features):
    found = attribute(encoder, features)
    assert np.array_equal(np.stack([one.hash_outputs for one in found]), encoder.outputs(features)[0])
    [alone] = attribute(encoder, features[37:38])
    assert np.array_equal(alone.cells, found[37].cells)
    assert alone.cells.shape == (3, 3)
    assert alone.activations.shape == (4, 3, 3)


def test_contributions_are_the_slope_of_the_agreement(encoder, features):
    [one] = attribute(encoder, features[:1], k=512)
    activations = behind_gates(one)
    assert one.agreement == pytest.approx(agreement(encoder, activations, signs_of(one)), rel=1e-5)
    for row, column in np.ndindex(3, 3):
        more, less = activations.copy(), activations.copy()
        more[:, row, column] *= 1.01
        less[:, row, column] *= 0.99
        slope = (agreement(encoder, more, signs_of(one)) - agreement(encoder, less, signs_of(one))) / 0.02
        assert one.cells[row, column] == pytest.approx(slope, rel=0.02, abs=1e-3 * one.agreement)
    more, less = activations.copy(), activations.copy()
    more[:200] *= 1.01
    less[:200] *= 0.99
    slope = (agreement(encoder, more, signs_of(one)) - agreement(encoder, less, signs_of(one))) / 0.02
    assert one.channels[:200].sum() == pytest.approx(slope, rel=0.02, abs=1e-3 * one.agreement)


@pytest.mark.parametrize("method", ["am-vggh", "vggh", "dnnh"])
def test_without_switching_units_a_place_left_out_costs_its_contribution(method):
    """Where every unit of the fully connected layers stays on, the head is linear and the first order is all."""
    encoder = make_encoder(method)
    with torch.no_grad():
        for layer in (encoder.head.fc[1], encoder.head.fc[4]):
            layer.bias += 100
    for one in attribute(encoder, make_features(2), k=512):
        for row, column in np.ndindex(3, 3):
            without = behind_gates(one).copy()
            without[:, row, column] = 0
            lost = one.agreement - agreement(encoder, without, signs_of(one))
            assert lost == pytest.approx(one.cells[row, column], abs=1e-4 * one.agreement)


@pytest.mark.parametrize("method", ["am-vggh", "vggh", "dnnh"])
def test_without_biases_the_places_add_up_to_the_agreement(method):
    encoder = make_encoder(method)
    with torch.no_grad():
        for name, parameter in encoder.head.named_parameters():
            if name.endswith("bias") and not name.startswith("attention"):
                parameter.zero_()
    for one in attribute(encoder, make_features(2)):
        assert one.cells.sum() == pytest.approx(one.agreement, rel=1e-4)
        assert one.channels.sum() == pytest.approx(one.agreement, rel=1e-4)
        assert list(one.strongest) == sorted(range(512), key=lambda c: -one.channels[c])[:4]


@pytest.mark.parametrize("method", ["itq", "ksh"])
def test_places_of_a_descriptor_of_unit_length_count_against_each_other(method):
    encoder = make_encoder(method)
    for one in attribute(encoder, make_features(2)):
        assert one.cells.sum() == pytest.approx(0, abs=1e-3 * float(np.abs(one.cells).sum()))
        assert one.channels.sum() == pytest.approx(0, abs=1e-3 * float(np.abs(one.channels).sum()))


def test_gates_are_those_between_features_and_activations(encoder, features):
    for one, feature in zip(attribute(encoder, features, k=512), features.float().numpy(), strict=True):
        if encoder.meta["method"] == "am-vggh":
            assert np.allclose(behind_gates(one), feature * one.channel[:, None, None] * one.spatial, rtol=1e-5)
            assert 0 < one.spatial.min() < one.spatial.max() < 1
            assert 0 < one.channel.min() < one.channel.max() < 1
        else:
            assert one.spatial is one.channel is None
            assert np.array_equal(behind_gates(one), feature)


def test_the_bits_of_another_photograph(encoder, features):
    own = attribute(encoder, features[:3], k=512)
    code = binarize(own[0].hash_outputs)
    found = attribute(encoder, features[:3], code)
    assert np.array_equal(found[0].cells, own[0].cells)
    assert found[1].agreement == pytest.approx(
        agreement(encoder, behind_gates(own[1]), np.where(code, 1, -1)), rel=1e-4, abs=1e-5
    )
    [opposite] = attribute(encoder, features[:1], ~code)
    assert opposite.agreement == pytest.approx(-own[0].agreement)
    assert opposite.cells == pytest.approx(-own[0].cells, abs=1e-6)


class Doubled(torch.nn.Module):
    def forward(self, x):
        return 2 * x


def test_attention_of_another_kind_is_passed(features):
    """As a head of a plugin may have it."""
    encoder = make_encoder("vggh")
    encoder.head.attention = Doubled()
    found = attribute(encoder, features, k=512)
    assert np.array_equal(np.stack([one.hash_outputs for one in found]), encoder.outputs(features)[0])
    assert (found[0].spatial, found[0].channel) == (None, None)
    assert np.array_equal(behind_gates(found[0]), 2 * features[0].float().numpy())
