"""What was learned, to be looked at: the sections, their page, and what damaged files do to it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nearfar import looks
from nearfar.batch import MISSING
from nearfar.files import replace_json
from nearfar.looking import LOOKS
from nearfar.looking.pairs import gradient_shares
from nearfar.looks import look
from nearfar.report.look import SECTIONS, Seen
from nearfar.report.page import page
from nearfar.report.record import check_look, read
from nearfar.run import Run, fit, load
from tests.methods.small import form
from tests.tiny import SETTINGS, tiny_images


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    data = tiny_images(40), np.arange(40) % 4
    return fit(data, "simclr", out=tmp_path_factory.mktemp("runs") / "run", say=lambda _: None, **SETTINGS)


@pytest.fixture(scope="module")
def looked(run: Run) -> dict[str, dict]:
    content = look(run, (tiny_images(40), np.arange(40) % 4))
    return {section["kind"]: section for section in content["sections"]}


def test_every_section_is_there_or_says_why_not(looked: dict[str, dict]) -> None:
    assert tuple(SECTIONS) == LOOKS == tuple(looked)
    assert {name for name, section in looked.items() if section["missing"]} == {"attention"}
    (filters,) = looked["kernels"]["rows"]
    assert len(filters["pictures"]) == 2  # before and after
    assert [len(row["pictures"]) for row in looked["features"]["rows"]] == [1 + 4] * 6
    assert [len(row["pictures"]) for row in looked["similarity"]["rows"]] == [1 + 4] * 6


def test_nothing_is_written_and_the_encoder_is_as_it_was(run: Run, looked: dict[str, dict]) -> None:
    assert not (run.path / "results" / "look.json").exists()
    assert not any(part.training or part._forward_hooks for part in run.encoder.modules())
    kinds = [section["kind"] for section in look(run, (tiny_images(40), np.arange(40) % 4), ["clusters"])["sections"]]
    assert kinds == ["clusters"]


def test_samples_are_embedded_where_the_run_computes_and_looked_at_on_the_cpu(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, met = torch.device("cpu", 0), []  # is another device than "cpu" by its name
    mine = load(run.path).on("cpu:0", 7)
    mine.encoder.register_forward_hook(lambda _, given, out: met.append((mine.device, len(out))))

    def failing(seen: Seen, kinds: object) -> list:
        assert mine.device == torch.device("cpu")
        raise KeyError

    monkeypatch.setattr(looks, "sections", failing)
    with pytest.raises(KeyError):
        look(mine, tiny_images(20))
    assert met == [(other, 7), (other, 7), (other, 6)]
    assert (mine.device, mine.batch) == (other, 7)


def test_what_cannot_be_read_is_told(run: Run, tmp_path: Path) -> None:
    for i in range(12):
        Image.new("L", (16, 16), 20 * i).save(tmp_path / f"{i}.png")
    (tmp_path / "5.png").write_bytes(b"no picture")
    said: list[str] = []
    content = look(load(run.path).reading({"max_bad": 0.1}), str(tmp_path), ["kernels"], say=said.append)
    assert content["data"].startswith("11 images")
    assert any("1 file could not be read" in text and "5.png" in text for text in said)


def test_retrieval_shows_the_best_and_the_worst_queries(run: Run, looked: dict[str, dict]) -> None:
    found = looked["retrieval"]["grid"]["queries"]
    right = [sum(near["label"] == query["label"] for near in query["neighbors"]) for query in found]
    assert right[:3] == sorted(right[:3])
    assert right[3:] == sorted(right[3:], reverse=True)
    assert [query["heading"] for query in found] == [f"{n} of 7 right" for n in right]
    features, label = run.embed(tiny_images(40)), torch.arange(40) % 4
    unit = features / features.norm(dim=1, keepdim=True)
    near = (unit @ unit.T - 9 * torch.eye(40)).topk(7).indices
    assert right[0] == int((label[near] == label[:, None]).sum(1).min())
    assert right[3] == int((label[near] == label[:, None]).sum(1).max())


def test_the_share_of_a_negative_is_that_at_the_temperature_of_the_method(run: Run, looked: dict[str, dict]) -> None:
    with torch.no_grad():
        z = run.method.get_submodule("projector")(run.embed(tiny_images(40)))
    temperature = run.method.pushes_at()
    assert temperature is not None
    for query in looked["negatives"]["grid"]["queries"]:
        i = int(query["name"])
        share, cosine = gradient_shares(z, torch.tensor([i]), temperature=temperature, group=torch.full((40,), MISSING))
        for near in query["neighbors"]:
            assert near["similarity"] == pytest.approx(float(cosine[0, int(near["name"])]), abs=1e-3)
            assert near["remark"] == f"{100 * float(share[0, int(near['name'])]):.2f} %"


def test_where_labels_pull_only_other_classes_are_negatives(tmp_path: Path) -> None:
    data = tiny_images(24), np.arange(24) % 4
    run = load(fit(data, "supcon", out=tmp_path / "run", say=lambda _: None, **SETTINGS).path)
    (negatives,) = look(run, data, ["negatives"])["sections"]
    assert all(near["label"] != q["label"] for q in negatives["grid"]["queries"] for near in q["neighbors"])
    assert negatives["protocol"]["negatives"] == "18"
    assert f"{100 / 18:.2f} %" in negatives["finding"]


def test_one_sample_has_no_others(run: Run) -> None:
    missing = {section["kind"]: section["missing"] for section in look(run, tiny_images(1))["sections"]}
    assert all("takes others" in missing[name] for name in ("similarity", "neighbors", "negatives"))
    assert missing["kernels"] == missing["features"] == missing["positives"] == ""


def test_a_head_of_cells_is_not_given_rows(run: Run) -> None:
    method = form("pixpro").build()
    rows = torch.randn(3, method.encoder.dim)
    seen = Seen(
        kind=run.kind,
        encoder=method.encoder,
        untrained=method.encoder,
        samples=run.open(tiny_images(3)),
        features=rows,
        method=method,
        settings=run.settings,
        made=run.made,
        seed=0,
    )
    assert seen.contrasted == (rows, "the representation")


def test_clusters_hold_what_is_nearest_to_their_middle(looked: dict[str, dict]) -> None:
    for query in looked["clusters"]["grid"]["queries"]:
        similar = [near["similarity"] for near in query["neighbors"]]
        assert similar == sorted(similar, reverse=True)
    sizes = [int(query["heading"].split(": ")[1].split()[0]) for query in looked["clusters"]["grid"]["queries"]]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) <= 40


def test_without_labels_right_and_wrong_are_not_known(run: Run) -> None:
    content = look(run, tiny_images(40), ["retrieval", "clusters"], labels="none")
    missing = {section["kind"]: section["missing"] for section in content["sections"]}
    assert missing["clusters"] == ""
    assert "--labels" in missing["retrieval"]


def test_the_report_shows_the_sections_and_only_pictures_that_are_inside(run: Run, looked: dict[str, dict]) -> None:
    path = run.path / "results" / "look.json"
    path.parent.mkdir(exist_ok=True)
    sections = json.loads(json.dumps([looked["features"], looked["negatives"], looked["attention"]]))
    content = {"run": "r", "checkpoint": 17, "data": "seen of d", "sections": sections}
    sections[0]["rows"][0]["pictures"][0] |= {"uri": "https://elsewhere/x.png", "alt": '"><script>alert(1)</script>'}
    replace_json(path, content)
    text = page(read(run.path))
    for name in ("look-features", "look-negatives", "look-missing"):
        assert f'id="{name}"' in text
    assert "elsewhere" not in text
    assert text.count("seen of d") == text.count("checkpoint 17") == 2  # under each section that is there
    assert "<script>alert" not in text
    for picture in re.findall(r"<img [^>]*>", text):
        assert 'alt="' in picture
        assert 'alt=""' not in picture
    sections[0]["kind"] = "x-ray"
    replace_json(path, content)
    record = read(run.path)
    assert record.look is None
    assert record.damaged == ["results/look.json"]
    path.unlink()


def test_the_page_of_a_method_without_a_temperature(tmp_path: Path) -> None:
    data = tiny_images(24)
    run = load(fit(data, "swav", out=tmp_path / "run", say=lambda _: None, prototypes=5, **SETTINGS).path)
    found = {section["kind"]: section for section in look(run, data, ["negatives", "clusters"])["sections"]}
    assert all(query["heading"].startswith("prototype ") for query in found["clusters"]["grid"]["queries"])
    assert "5 prototypes" in found["clusters"]["finding"]
    run = load(fit(data, "byol", out=tmp_path / "other", say=lambda _: None, **SETTINGS).path)
    (negatives,) = look(run, data, ["negatives"])["sections"]
    assert "no softmax" in negatives["finding"]
    assert all(near["remark"] == "" for query in negatives["grid"]["queries"] for near in query["neighbors"])
    check_look({"sections": [negatives], "run": "", "checkpoint": "", "data": ""})
