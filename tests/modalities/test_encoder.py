"""Encoders from their specs, of every kind."""

from __future__ import annotations

import pytest
from torch import nn

from nearfar.modalities.encoder import from_spec, is_own, own_encoder
from nearfar.modalities.image.encoder import image_encoder
from tests.methods.small import TinyEncoder


def test_a_spec_says_who_can_build_it() -> None:
    ours = image_encoder("conv4", channels=1, size=16).spec
    own = {"kind": "image", "name": "Net", "own": True, "channels": 1, "size": 16}
    towers = {"kind": "towers", "towers": {"a": ours, "b": own}}
    assert [is_own(spec) for spec in (ours, own, towers, {"kind": "towers", "towers": {"a": ours}}, {})] == [
        *(False, True, True, False, True)
    ]
    for spec, network, message in (
        ({"name": "conv4"}, None, r"names its kind, got the keys \['name'\]"),
        (own, None, r"encoder=Net\(\)"),
        (ours, nn.Identity(), "'conv4' is built from its name"),
    ):
        with pytest.raises(ValueError, match=message):
            from_spec(spec, network)


def test_a_users_module_is_copied_and_one_of_ours_stays_what_it_is() -> None:
    net, facts = TinyEncoder(), {"channels": 3, "size": 8, "side": 16, "white": 0.0}
    encoder = own_encoder(net, "image", None, facts)
    assert encoder.network() is not net
    assert encoder.spec == {"kind": "image", "name": "TinyEncoder", "own": True, "channels": 3, "size": 8}
    assert encoder(encoder.example(2)).shape == (2, 24)
    ours = image_encoder("conv4", channels=1, size=16)
    again = own_encoder(ours, "image", None, facts)
    assert (type(again), again.spec, again is ours) == (type(ours), ours.spec, False)
