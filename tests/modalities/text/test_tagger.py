"""The tagger of rules on captions, a tagger of one's own, and those that are not there."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from nearfar.modalities.text.concepts import Word, concepts
from nearfar.modalities.text.tagger import lemma, rules, singular, tagger, verb_base


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A skier is skiing down a mountain.", "ski skier mountain"),
        ("The dog wags its tail at the boy", "wag dog tail boy"),
        ("Two men are riding horses on the beach.", "ride man horse beach"),
        ("a cat that has fallen asleep in a bowl", "fall cat asleep bowl"),
        ("Children ran to catch the bus", "run catch child bus"),
        ("view of the tennis court", "view court"),  # of neighboring nouns the last
        ("the building near the lake", "building lake"),
        ("a painted wooden fence", "fence"),
        ("", ""),
        ("\U0001f600 12 !!", ""),
    ],
)
def test_nouns_and_verbs_of_captions(text: str, wanted: str) -> None:
    assert concepts(rules(text)) == wanted


def test_base_forms() -> None:
    told = {
        w: verb_base(w)[0] for w in ("running", "carries", "carried", "washed", "grabbed", "biting", "tiled", "dog")
    }
    assert list(told.values()) == ["run", "carry", "carry", "wash", "grab", "bite", "tile", ""]
    assert list(map(singular, ("women", "ladies", "boxes", "glass", "dogs", "bus"))) == (
        ["woman", "lady", "box", "glass", "dog", "bus"]
    )
    assert list(map(lemma, ("flew", "trees", "jumping", "building", "near"))) == (
        ["fly", "tree", "jump", "building", "near"]
    )


def test_a_tagger_of_ones_own_and_a_model_of_spacy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from nearfar.modalities.text.concepts import Word\n\n\n"
        "def words(text):\n    return [Word(t, t, 'noun') for t in text.split()]\n"
    )
    assert concepts(tagger(f"{file}:words")("b a")) == "b a"

    def token(i: int, text: str, pos: str) -> types.SimpleNamespace:
        return types.SimpleNamespace(
            i=i, text=text, pos_=pos, lemma_=text[:3], is_alpha=True, is_stop=text == "are", is_space=False
        )

    class Doc(list[types.SimpleNamespace]):
        @property
        def noun_chunks(self) -> list[types.SimpleNamespace]:
            return [types.SimpleNamespace(root=self[0])]

    made = Doc(
        [token(0, "dogs", "NOUN"), token(1, "are", "VERB"), token(2, "barking", "VERB"), token(3, "tail", "NOUN")]
    )
    monkeypatch.setitem(sys.modules, "spacy", types.SimpleNamespace(load=lambda model: lambda text: made))
    assert [word.kind for word in tagger("spacy:model")("")] == ["noun", "", "verb", ""]
    assert tagger("spacy:model")("")[2] == Word("barking", "bar", "verb")


def test_what_is_not_there_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"'nltk'.*rules, spacy:MODEL"):
        tagger("nltk")
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ModuleNotFoundError, match=r"spacy:en.*pip install spacy"):
        tagger("spacy:en")

    def load(model: str) -> None:
        raise OSError(model)

    monkeypatch.setitem(sys.modules, "spacy", types.SimpleNamespace(load=load))
    with pytest.raises(FileNotFoundError, match=r"no such model.*--tagger rules"):
        tagger("spacy:en")
