from __future__ import annotations

import json

import pytest
import torch

from nearfar.modalities.encoder import from_spec
from nearfar.modalities.image.encoder import image_encoder
from nearfar.modalities.table.columns import Column, Columns
from nearfar.modalities.table.encoder import TableEncoder
from nearfar.nn.towers import Joint, Towers, pick_tower, trunk


def towers() -> Towers:
    rows = TableEncoder("mlp-8x2", Columns([Column("x"), Column("k", ("a", "b"))]))
    return Towers({"scan": image_encoder("conv4", channels=1, size=16), "record": rows}).eval()


def test_what_the_towers_give_stands_side_by_side() -> None:
    both = towers()
    view = both.example(4, torch.Generator().manual_seed(0))
    assert view["scan"].shape == (4, 1, 16, 16)
    out = both(view)
    assert out.shape == (4, both.dim) == (4, 520)
    assert torch.equal(out[:, :512], both.tower("scan")(view["scan"]))
    assert torch.equal(out[:, 512:], both.tower("record")(view["record"]))
    assert torch.equal(torch.cat([stream(view) for stream in both.streams()], 1), out)


def test_they_come_back_from_their_spec() -> None:
    both = towers()
    again = from_spec(json.loads(json.dumps(both.spec))).eval()
    assert again.spec == both.spec
    again.load_state_dict(both.state_dict())
    view = both.example(2)
    assert torch.equal(again(view), both(view))


def test_a_tower_is_had_by_its_name() -> None:
    both = towers()
    assert pick_tower(both, "") is both
    assert pick_tower(both, "record") is both.towers["record"]
    with pytest.raises(ValueError, match="'text': the towers are scan, record"):
        pick_tower(both, "text")
    with pytest.raises(ValueError, match="no towers"):
        pick_tower(both.tower("scan"), "scan")
    with pytest.raises(ValueError, match="'record' is missing"):
        both({"scan": torch.rand(2, 1, 16, 16)})
    with pytest.raises(ValueError, match="got 0"):
        Towers({})


def test_two_names_may_share_a_tower() -> None:
    one = image_encoder("conv4", channels=1, size=16).eval()
    both = Towers({"left": one, "right": "left"})
    assert len(list(both.parameters())) == len(list(one.parameters()))
    assert both.spec["towers"] == {"left": one.spec, "right": "left"}
    again = from_spec(both.spec).eval()
    again.load_state_dict(both.state_dict())
    view = both.example(3, torch.Generator().manual_seed(0))
    assert torch.equal(again(view), torch.cat([one(view["left"]), one(view["right"])], 1))


def test_a_layer_into_a_shared_space_goes_with_its_tower() -> None:
    joint = Joint(image_encoder("conv4", channels=1, size=16), 8).eval()
    view = torch.rand(2, 1, 16, 16)
    assert all(torch.equal(*both) for both in zip(joint.maps(view), joint.trunk.maps(view), strict=True))
    assert trunk(joint) is joint.trunk
    assert trunk(joint.trunk) is joint.trunk
    again = from_spec(joint.spec).eval()
    again.load_state_dict(joint.state_dict())
    view = joint.example(3, torch.Generator().manual_seed(0))
    assert again(view).shape == (3, 8)
    assert torch.equal(again(view), joint(view))
    row, maps = joint.with_map(view)
    assert torch.equal(row, joint(view))
    assert maps.shape[1] == joint.map_dim == joint.trunk.map_dim
    assert torch.equal(maps, joint.maps(view)[-1])
    with pytest.raises(ValueError, match=r"take one \(--tower\), scan or record"):
        towers().maps(towers().example(2))
