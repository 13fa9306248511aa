from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.browser import resize, show

from nearfar.cli import main
from nearfar.files import read_json, read_yaml, replace_json, replace_yaml
from nearfar.owner import owned
from nearfar.report.runs import PROBE, Overview, find, listed, overview, page
from nearfar.training.journal import Journal


def settle(run: Path, *, finished: bool = True, **asked: Any) -> None:
    """Give a run other settings, and an end or none."""
    config = read_yaml(run / "config.yaml", "")
    replace_yaml(run / "config.yaml", config | {"method": "moco", "settings": {"lr": 0.06, "seed": 0} | asked})
    replace_json(run / "environment.json", read_json(run / "environment.json", "") | {"finished": finished})


def result(run: Path, name: str, written: str, kNN: float, before: float, *, own: bool = True) -> None:
    rows = [
        {"name": name, "values": {"kNN (%)": {"value": value, "low": value - 1, "high": value + 1}}, "main": main}
        for name, value, main in (("untrained encoder", before, False), ("trained encoder", kNN, True))
    ]
    table = {"title": name, "columns": ["kNN (%)"], "rows": rows, "own": own, "written": written, "data": name}
    replace_json(run / "results" / f"evaluate-{name}.json", table)


@pytest.fixture
def shelf(run: Path, tmp_path: Path) -> Path:
    """Five runs, one of them in a folder of its own, beside what is no run."""
    shelf = tmp_path / "shelf"
    for name, asked in {"a": {}, "b": {"lr": 0.2}, "deep/c": {"lr": 1e-05}, "d": {}, "e": {}}.items():
        shutil.copytree(run, shelf / name)
        settle(shelf / name, finished=name != "d", **asked)
    result(shelf / "a", "photos", "2026-11-01", 81.25, 60.5)
    result(shelf / "a", "older", "2026-10-01", 10.0, 10.0)
    result(shelf / "a", "others", "2026-12-01", 20.0, 20.0, own=False)
    result(shelf / "deep/c", "photos", "2026-11-01", 7.0, 60.5)
    (shelf / "e" / "config.yaml").write_text("method: [moco\n# checksum: 0123456789abcdef\n")
    (shelf / "other").mkdir()
    (shelf / "other" / "config.yaml").write_text("model: another program\n")
    return shelf


def of(shelf: Path) -> Overview:
    return overview([listed(path, shelf) for path in find(shelf)])


def test_runs_are_found_wherever_they_lie_and_nothing_else_is(shelf: Path) -> None:
    assert [path.relative_to(shelf).as_posix() for path in find(shelf)] == ["a", "b", "d", "deep/c", "e"]
    assert find(shelf / "a") == [shelf / "a"]


def test_what_differs_is_a_column_and_what_is_the_same_is_not(shelf: Path) -> None:
    made = of(shelf)
    assert made.settings == ["lr"]
    assert dict(made.same) == {"method": "moco", "data": "photographs/flowers", "seed": "0"}
    column = made.head.index("lr")
    assert [row[column].key for row in made.rows] == [0.06, 0.2, 0.06, 1e-05, ""]
    assert made.without(["lr"]).head == [name for name in made.head if name != "lr"]
    assert len(made.without(["lr"]).rows[0]) == len(made.head) - 1


def test_the_newest_result_of_the_runs_own_data_counts(shelf: Path) -> None:
    one = listed(shelf / "a", shelf)
    assert (one.came["kNN (%)"].value, one.came["kNN (%)"].before, one.measured) == (81.25, 60.5, "photos")
    assert one.start == "untrained encoder"
    probe = [line["knn"] for line in Journal(shelf / "a" / "metrics.jsonl").read() if "knn" in line]
    assert (one.came[PROBE].value, one.came[PROBE].before) == (probe[-1], probe[0])
    assert set(listed(shelf / "b", shelf).came) == {PROBE}


def test_each_run_has_its_state(shelf: Path) -> None:
    with owned(shelf / "d"):
        (shelf / "d" / ".lock").write_text("1\nanother machine\nnearfar train\n")
        assert listed(shelf / "d", shelf).state == "training"
    (shelf / "b" / "views.png").write_bytes(b"another picture")
    made = {path.relative_to(shelf).as_posix(): listed(path, shelf) for path in find(shelf)}
    states = {name: one.state for name, one in made.items()}
    assert states == {"a": "finished", "b": "damaged", "d": "stopped", "deep/c": "finished", "e": "damaged"}
    assert "views.png" in made["b"].why
    assert "config.yaml" in made["e"].why


def test_the_table_has_numbers_as_they_are(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["runs", "shelf", "--save", "t.csv", "--page", "p.html"]) == 0
    rows = {row["run"]: row for row in csv.DictReader((tmp_path / "t.csv").read_text().splitlines())}
    assert rows["a"]["kNN (%)"] == "81.25"
    assert rows["a"]["kNN (%) before training"] == "60.5"
    assert (rows["b"]["kNN (%)"], rows["b"]["kNN (%) before training"]) == ("", "")
    assert float(rows["deep/c"]["lr"]) == 1e-05
    said = capsys.readouterr().out
    assert "81.2 (60.5)" in said
    for again in (["--save", "t.csv"], ["--page", "p.html"], ["--page", "p.csv"]):
        assert main(["runs", "shelf", *again]) == 2
    assert main(["runs", "nothing"]) == 2
    assert "'nothing' is not there" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["runs", "empty"]) == 2


@pytest.mark.browser
def test_the_columns_of_the_page_sort_by_keyboard(shelf: Path, tmp_path: Path, browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    settle(shelf / "d", finished=False, name="<b>bold</b><script>window.hacked = 1</script>")
    made = of(shelf)
    show(browser, page(tmp_path / "runs.html", str(shelf), made))

    def names() -> list[str]:
        return [cell.text for cell in browser.find_elements("css selector", "tbody th[scope=row]")]

    def press(column: str) -> str:
        heading = browser.find_elements("css selector", ".sorted thead th")[made.head.index(column)]
        heading.find_element("css selector", "button").send_keys(Keys.ENTER)
        return heading.get_attribute("aria-sort")

    assert names() == ["a", "b", "d", "deep/c", "e"]
    assert press("kNN (%)") == "descending"
    assert names() == ["a", "deep/c", "b", "d", "e"]  # what is not known stays last
    assert press("kNN (%)") == "ascending"
    assert names() == ["deep/c", "a", "b", "d", "e"]
    assert press("lr") == "descending"
    assert names() == ["b", "a", "d", "deep/c", "e"]
    assert browser.find_element("css selector", "[role=status]").text.startswith("Sorted by lr")
    assert browser.execute_script("return window.hacked") is None
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    resize(browser, 420)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 420
