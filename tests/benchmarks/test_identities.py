from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.identities import Identities, domains, drawn, main, one, table, unseen

from benchmarks import identities
from nearfar.batch import MISSING
from nearfar.modalities.image.drawings import alphabets
from nearfar.modalities.image.samples import Images


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(identities, "RESULTS", tmp_path)
    return tmp_path


def test_the_alphabets_of_source_target_pilots_and_test_are_apart() -> None:
    for seed in range(3):
        source, target, pilot = drawn(seed)
        assert len({*source, *target, *pilot}) == len(source) + len(target) + len(pilot)
        assert set(alphabets(unseen(seed, pilot=True))) == set(pilot)
        assert not set(alphabets(unseen(seed, pilot=False))) & {*source, *target, *pilot}
    assert drawn(0) != drawn(1)


def test_lines_see_the_names_of_the_source_alone() -> None:
    source, target, _ = drawn(0)
    both, adaptive, known = (domains(0, sees) for sees in ("both", "adaptive", "source"))
    assert set(alphabets(both)) == {*source, *target} == set(alphabets(adaptive))
    assert (both.label == MISSING).all()
    assert both.classes == []
    named = [a in source for a in alphabets(adaptive)]
    assert ((adaptive.label != MISSING).tolist()) == named
    assert set(alphabets(known)) == set(source)
    for data in (adaptive, known):
        for name, label in list(zip(data.names, data.label.tolist(), strict=True))[::97]:
            assert label == MISSING or name.startswith(data.classes[label])
    assert len(adaptive.classes) == len(known.classes) == int(known.label.max()) + 1


def write(line: str, values: list[tuple[float, float]]) -> None:
    for seed, pair in enumerate(values):
        scores = dict(zip(identities.MEASURES, pair, strict=True))
        results = {line: scores} | ({"untrained": {"mAP": 5.0, "cmc@1": 9.0}} if line == "simclr" else {})
        path = identities._path(line, seed, Identities())
        path.write_text(json.dumps({"results": results, "cpu_seconds": 60}))


def test_the_table_tells_a_difference_from_none() -> None:
    write("simclr", [(20.0, 40.0), (22.0, 41.0), (21.0, 39.0)])
    write("supcon, source", [(20.1, 40.0), (22.3, 41.0), (20.6, 39.0)])
    write("spcl, adaptive", [(30.0, 50.0), (32.1, 51.0), (30.9, 49.0)])
    write("spcl, unsupervised", [(30.0, 50.0)])
    lines = {line.split("|")[1].strip(): line for line in table(Identities()).splitlines()}
    assert "| 31.0 [" in lines["spcl, adaptive"]
    assert "| +10.0 [+9.8, +10.2] | 60 |" in lines["spcl, adaptive"]
    assert "no difference seen at this budget: +0.0" in lines["supcon, source"]
    assert "1 of 3 runs" in lines["spcl, unsupervised"]
    assert "| 5.0 [5.0, 5.0] | 9.0 [9.0, 9.0] |" in lines["untrained"]


def test_only_what_is_missing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, int]] = []

    def instead(line: str, seed: int, asked: Identities) -> dict[str, object]:
        ran.append((line, seed))
        return {"results": {line: {"mAP": 1.0, "cmc@1": 2.0}}, "cpu_seconds": 3}

    monkeypatch.setattr(identities, "one", instead)
    main(Identities(("simclr",), seeds=1))
    main(Identities(("simclr", "spcl, adaptive"), seeds=2))
    main(Identities(table=True))
    assert ran == [("simclr", 0), ("spcl, adaptive", 0), ("simclr", 1), ("spcl, adaptive", 1)]
    main(Identities(("simclr",), seeds=1, pilot=True))
    assert len(ran) == 5
    with pytest.raises(ValueError, match="no line 'simple'"):
        main(Identities(("simple",)))
    with pytest.raises(ValueError, match="for a --pilot"):
        main(Identities(flags='{"lr": 1}'))


def test_a_run_is_trained_and_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(data: Images) -> Images:
        return data.subset(range(0, len(data), 40))

    whole = domains
    monkeypatch.setattr(identities, "domains", lambda seed, sees: few(whole(seed, sees)))
    monkeypatch.setattr(identities, "unseen", lambda seed, pilot: unseen(seed, pilot=pilot).subset(range(60)))
    result = json.loads(json.dumps(one("spcl, adaptive", 0, Identities(seen=100))))
    for scores in (result["results"]["spcl, adaptive"], result["results"]["untrained"]):
        assert 0 < scores["mAP"] < 100
    assert result["flags"]["epochs"] == max(1, round(100 / result["trained_on"]))
    assert 0 < result["with_names"] < result["trained_on"]
