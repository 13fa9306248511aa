from __future__ import annotations

from pathlib import Path

import pytest

from nearfar.data.pairs import Asked, read_scores
from nearfar.errors import UserError

ROWS = "sentence1,Sentence2,score,split,source\na,b,5,train,x\nc,d,2.5,test,y\ne,f,0,test,x\n"


def test_scores_are_those_of_the_split_test(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(ROWS)
    which, score, part, notes = read_scores(path, Asked(part="SOURCE"))
    assert (which, score.tolist(), part) == ([1, 2], [2.5, 0.0], ["y", "x"])
    assert "2 of 3 pairs" in notes[0]
    path.write_text(ROWS.replace("test", "dev"))
    assert read_scores(path, Asked())[0] == [0, 1, 2]


def test_pairs_are_known_by_their_columns() -> None:
    assert Asked().there(["id", "sentence2", "Score", "SENTENCE1"])
    assert not Asked().there(["sentence1", "score"])
    assert Asked(("left", "right"), "value").there(["left", "right", "value"])
    assert not Asked().named
    with pytest.raises(UserError, match=r"--pair-columns left: two columns"):
        Asked(("left",))


@pytest.mark.parametrize(
    ("text", "asked", "words"),
    [
        (ROWS.replace("2.5", "much"), Asked(), r"score of row 1 .* 'much'"),
        (ROWS, Asked(score="value"), r"no column 'value'.*--score-column"),
        (ROWS, Asked(part="year"), r"no column 'year'.*--part-column"),
    ],
)
def test_what_is_no_score_is_refused(tmp_path: Path, text: str, asked: Asked, words: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_scores(path, asked)
