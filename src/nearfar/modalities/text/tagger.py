"""What finds the nouns and verbs of a text: rules of English, a model of spaCy that is there, or one's own function."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from nearfar.errors import NotFound, NotInstalled, UserError
from nearfar.files import load_function
from nearfar.modalities.text.concepts import Tagger, Word

KEPT = 200_000
"""Texts whose words are remembered."""


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _pairs(text: str) -> dict[str, str]:
    """Of base:form,form the base by each form."""
    bases = (part.split(":") for part in text.split())
    return {form: base for base, forms in bases for form in forms.split(",")}


BEFORE_NOUN = _set("""
a an the this that these those my your his her its our their some any each every no another one two three four
five six seven eight nine ten several many few both all other of in on at by with from for into onto over
under near behind beside between through across along around against above below
""")
"""Behind these, a word that may be either is a noun."""

BEFORE_VERB = _set("""
to i you he she it we they who which can could will would shall should may might must not don't and
""")
"""Behind these it is a verb."""

OTHERS = (
    BEFORE_NOUN
    | BEFORE_VERB
    | _set("""
up down out off away back as about after before during until while when where why how what than then there
here or but if because so nor yet be am is are was were been being do does did done doing have has had having
get gets got getting him them me us himself herself itself themselves someone something everyone everything
nothing very too also just only still even more most much such own same again once now always never often
outside inside together next top upon toward towards without within like via per versus s t big small large
little old young new long short high low good bad great best better black white red green blue yellow brown
grey gray pink purple orange dark bright hot cold warm cool wet dry full empty open different beautiful pretty
happy sad nice clean dirty clear deep fast slow early late busy free wooden ready first second third last
right left main left-hand several whole huge tiny heavy rich poor fresh hard soft strong sunny snowy
""")
)
"""Words that are neither nouns nor verbs, and auxiliary verbs, which are stop words."""

VERBS = _set("""
look eat grow walk leave come work add move fly rise cover sit build take stand visit travel feature arrive
surround hang dress hold lead pass smile celebrate decorate reflect live cross float fall graze wait rest
serve pull include turn create run bring burn gather paint sleep break buy watch carry win meet help lay talk
give perform form flow spend load follow enter contain collect depict overlook bloom feed drive deliver
protect block wave provide say use study reach moor receive raise shine change share relax practice begin
fight harvest approach pay wear offer carve hide lift race learn catch write drink shoot roll explore wrap
read pray remain listen lean choose perch orbit discuss call battle produce launch grab return dance think
stare push glow tell save pose circle prepare lose swim cut ride let laugh connect wash unload browse throw
shout put miss await punch participate graduate fit check cause set operate jump bake reveal hit fry feel dip
cook send rotate pack hug spread search finish crawl stay bend stick pour observe hike examine ski repair
inspect allow arrange welcome slide mix drift conduct aim sway knit keep explain demonstrate skateboard
descend ask announce splash smash progress extend embrace describe cry breathe test melt depart blow balance
select strike smell record join indicate gesture engrave dine climb bind teach stroll steal soar replace knock
dig curl crash snowboard sing measure increase shift paddle forage enjoy divide poke peer peek kneel haul
chase adjust update repeat order lick hear draw decide compete bathe whisper snap skate kick glance dive bite
weigh warn wade toss tend shake sell recover purchase polish lounge exercise engage chew charge boil apply
navigate interact groom glide dissolve weave wag sweep struggle split spill sparkle sip remove pick jog hover
grind gallop drain wrestle swirl surf sunbathe stretch stir steer soak sniff involve drip disappear go make
see play want know try find show start stop need love fix tie trim shave brush attach rub pet juggle bounce
vacuum rinse mow ring
""")
"""Verbs whose base form, or whose form on -s, can be told by no ending."""

IRREGULAR = _pairs("""
eat:ate,eaten grow:grew,grown leave:left come:came fly:flew,flown rise:rose,risen sit:sat build:built
take:took,taken stand:stood hang:hung hold:held lead:led fall:fell,fallen run:ran bring:brought sleep:slept
break:broke,broken buy:bought win:won meet:met lay:laid give:gave,given spend:spent feed:fed
drive:drove,driven say:said shine:shone begin:began,begun fight:fought pay:paid wear:wore,worn hide:hid,hidden
catch:caught write:wrote,written drink:drank,drunk shoot:shot choose:chose,chosen think:thought tell:told
lose:lost swim:swam,swum ride:rode,ridden throw:threw,thrown feel:felt send:sent bend:bent stick:stuck
slide:slid keep:kept blow:blew,blown strike:struck bind:bound teach:taught steal:stole,stolen dig:dug
sing:sang,sung kneel:knelt hear:heard draw:drew,drawn dive:dove bite:bit,bitten shake:shook,shaken sell:sold
weave:wove,woven sweep:swept go:went,gone make:made see:saw,seen know:knew,known find:found tie:tying
lie:lying die:dying
""")
"""The base of forms that no rule gives."""

PLURAL = _pairs("""
man:men woman:women child:children people:people foot:feet tooth:teeth mouse:mice goose:geese knife:knives
wife:wives life:lives leaf:leaves wolf:wolves shelf:shelves half:halves loaf:loaves sky:skies tie:ties
shoe:shoes bus:buses gas:gas glass:glasses pants:pants clothes:clothes species:species horse:horses
house:houses nose:noses rose:roses
""")
"""Likewise of nouns."""

NO_NOUN = re.compile(r"..+(?:ly|ful|ous|ive|able|ible|less|ish|ic|est)")
NOUNS_ON_ING = _set("thing something nothing building ceiling morning evening wedding clothing string ring king spring")


def rules(text: str) -> list[Word]:
    """The words of an English text by closed lists, endings and what stands before; good enough for captions.

    Of neighboring nouns the last is the head.
    """
    words: list[Word] = []
    parts = re.findall(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*|\d+|[^\w\s]|_", text)
    for i, part in enumerate(parts):
        before = words[-1] if words else Word("")
        after = parts[i + 1].lower() if i + 1 < len(parts) else ""
        word = _word(part, before, after, first=not any(w.text.isalpha() for w in words))
        if word.kind == "noun" and before.kind == "noun":
            words[-1] = Word(before.text, before.lemma)
        words.append(word)
    return words


def _word(part: str, before: Word, after: str, *, first: bool) -> Word:
    low, said = part.lower(), before.text.lower()
    if not part.isalpha() or low in OTHERS:
        return Word(part, low)
    if part[0].isupper() and not first:
        return Word(part, part)  # a name
    base, ending = verb_base(low)
    verb = Word(part, base, "verb")
    noun = Word(part, singular(low), "noun")
    if low in NOUNS_ON_ING:
        return noun
    if ending in ("ing", "irregular"):
        return Word(part, base) if said in BEFORE_NOUN and ending != "irregular" and after not in OTHERS else verb
    if ending == "ed":
        return Word(part, base) if said in BEFORE_NOUN else verb
    if base and (said in BEFORE_VERB or (before.kind == "noun" and said not in BEFORE_NOUN)):
        return verb
    if base and first and after in BEFORE_NOUN:
        return verb
    return Word(part, low) if NO_NOUN.fullmatch(low) else noun


def verb_base(low: str) -> tuple[str, str]:
    """The base form of what may be a verb, and the ending that says so: ing, ed, irregular, s, or "" for the base form
    of a known verb; ("", "") for other words. low: a word in lower case."""
    if low in IRREGULAR:
        return IRREGULAR[low], "irregular"
    if low in VERBS:
        return low, ""
    for ending in ("ing", "ed"):
        stem = low.removesuffix(ending)
        if stem != low and len(stem) > 1 and re.search("[aeiouy]", stem):
            return _stem(stem, ending), ending
    for stem in (low.removesuffix("s"), low.removesuffix("es"), re.sub("ies$", "y", low)):
        if stem != low and stem in VERBS:
            return stem, "s"
    return "", ""


def _stem(stem: str, ending: str) -> str:
    """A verb without the ending: with the e that it lost, or without the letter that was doubled."""
    if ending == "ed" and stem.endswith("i"):
        return stem[:-1] + "y"
    if stem in VERBS:
        return stem
    if stem + "e" in VERBS:
        return stem + "e"
    if re.search(r"([bdgmnprt])\1$", stem):
        return stem[:-1]
    silent = r"^[^aeiou]*[aeiou][^aeiouwxy]$|(?:[^aeiou][aeiou][vszg]|[aiu][tr]|[^aeioulr]l|c|u|dg)$"
    return stem + "e" if re.search(silent, stem) else stem


def singular(low: str) -> str:
    """A noun in the singular. low: in lower case."""
    if low in PLURAL:
        return PLURAL[low]
    if len(low) < 4 or low.endswith(("ss", "us", "is")) or not low.endswith("s"):
        return low
    if low.endswith("ies"):
        return low[:-3] + "y"
    return low[:-2] if low.endswith(("sses", "xes", "ches", "shes", "zzes", "toes")) else low[:-1]


def lemma(low: str) -> str:
    """The base form of a word, whatever it is. low: in lower case."""
    base, ending = verb_base(low)
    return base if ending in ("ing", "ed", "irregular") and low not in NOUNS_ON_ING else singular(low)


def tagger(name: str) -> Tagger:
    """The one called so: see `Settings.tagger`. It remembers the words of what it has seen.

    Raises ValueError for another name, ModuleNotFoundError without spaCy, FileNotFoundError where it has no such model.
    """
    if ".py" in name:
        return lru_cache(KEPT)(load_function(name, "--tagger"))
    if name.startswith("spacy:"):
        return lru_cache(KEPT)(_spacy(name.partition(":")[2]))
    if name != "rules":
        raise UserError(f"--tagger {name!r}: there are rules, spacy:MODEL and FILE.py:FUNCTION")
    return lru_cache(KEPT)(rules)


def _spacy(model: str) -> Tagger:
    try:
        import spacy  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise NotInstalled(
            f"--tagger spacy:{model}: spaCy is not installed: pip install spacy, or --tagger rules"
        ) from error
    try:
        read: Any = spacy.load(model)
    except OSError as error:
        raise NotFound(
            f"--tagger spacy:{model}: spaCy has no such model, and there is no such folder; nothing is downloaded: "
            "give the folder of one, or --tagger rules"
        ) from error

    def words(text: str) -> list[Word]:
        doc = read(text)
        heads = {chunk.root.i for chunk in doc.noun_chunks if chunk.root.pos_ == "NOUN"}
        kinds = {token.i: "verb" for token in doc if token.pos_[0] == "V" and token.is_alpha and not token.is_stop}
        return [
            Word(token.text, token.lemma_, "noun" if token.i in heads else kinds.get(token.i, ""))  # pyright: ignore[reportArgumentType]
            for token in doc
            if not token.is_space
        ]

    return words
