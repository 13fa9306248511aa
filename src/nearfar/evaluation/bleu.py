"""BLEU: how much of what was written is in texts that it could have been (Papineni et al. 2002, ACL P02-1040)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

ORDER = 4
"""The longest sequences of words that are compared."""


def counts(written: Sequence[str], references: Sequence[Sequence[str]]) -> Tensor:
    """What BLEU takes of one text, float64: of sequences of 1 to 4 words how many are in a reference, each as often as
    in the one that has it most; how many there are; the words, and those of the reference of the nearest length.

    written: its words.  references: words of each text that it could have been.
    """
    found, made = [], []
    for n in range(1, ORDER + 1):
        most: Counter[tuple[str, ...]] = Counter()
        for one in references:
            most |= _sequences(one, n)
        own = _sequences(written, n)
        found.append((own & most).total())
        made.append(own.total())
    nearest = min((len(one) for one in references), key=lambda m: (abs(m - len(written)), m))
    return torch.tensor([*found, *made, len(written), nearest], dtype=torch.float64)


def bleu(counted: Tensor) -> Tensor:
    """BLEU of many texts together, 0 to 100: B. counted: B x 10, sums of `counts`.

    It is 0 where no sequence of four words was found; nothing is smoothed.
    """
    found, made, (length, wanted) = counted[:, :ORDER], counted[:, ORDER : 2 * ORDER], counted[:, 2 * ORDER :].unbind(1)
    precision = (found / made.clamp(min=1)).log().mean(1).exp()
    return 100 * precision * (1 - wanted / length.clamp(min=1)).clamp(max=0).exp()


def _sequences(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
