"""Which class is taken for which: a heat map, and the pairs that are most often confused."""

from __future__ import annotations

from collections import Counter
from typing import Any

from nearfar.report import parts
from nearfar.report.record import Record

LEAD = (
    "Each row is a true class, and its cells say what its samples were taken for: green is right, red is a mistake, "
    "the deeper the more of the class. Classes that swap samples look alike to the encoder."
)
MOST = 24
"""Classes of a heat map: more are too small to read."""


def confusion(record: Record) -> str:
    """A heat map, and the most confused pairs, for each result that counted them."""
    content = ""
    for table in record.tables.values():
        if found := table.get("confusion"):
            heading = f"<h3>{parts.text(table['title'])}</h3>"
            content += f'{heading}<div class="confused">{_heat_map(found)}{_pairs(found)}</div>'
    return parts.section("confusion", "Which class is taken for which", LEAD, content)


def _heat_map(found: dict[str, Any]) -> str:
    classes, counts = found["classes"], {(truth, answer): n for truth, answer, n in found["counts"]}
    total: Counter[int] = Counter()
    mistakes: Counter[int] = Counter()
    for (truth, answer), n in counts.items():
        total[truth] += n
        if truth != answer:
            mistakes.update({truth: n, answer: n})
    there = sorted({c for pair in counts for c in pair})
    shown = sorted(sorted(there, key=lambda c: (-mistakes[c], c))[:MOST])
    head = "".join(
        f'<th scope="col" title="{parts.text(classes[c])}"><span>{parts.text(classes[c])}</span></th>' for c in shown
    )
    body = ""
    for truth in shown:
        cells = "".join(_cell(classes, truth, answer, counts.get((truth, answer), 0), total[truth]) for answer in shown)
        name = parts.text(classes[truth])
        body += f'<tr><th scope="row" title="{name}"><span>{name}</span></th>{cells}</tr>'
    size = "few" if len(shown) <= 6 else "some" if len(shown) <= 12 else "many"
    top = f'<thead><tr><td><span class="hidden">true class</span></td>{head}</tr></thead>'
    grid = f'<div class="scroll" tabindex="0"><table class="heat {size}">{top}<tbody>{body}</tbody></table></div>'
    left_out = len(there) - len(shown)
    said = f"The {len(shown)} of {len(there):,} classes with the most mistakes. " if left_out else ""
    said += "Rows: the true class. Columns: what it was taken for" + (f" by {found['by']}." if found.get("by") else ".")
    return f'<div>{grid}<p class="protocol">{parts.text(said)}</p></div>'


def _cell(classes: list[str], truth: int, answer: int, n: int, total: int) -> str:
    if not n:
        return f"<td{' class=right' * (truth == answer)}></td>"
    share = n / total
    said = "right" if truth == answer else f"taken for {classes[answer]}"
    title = parts.text(f"{classes[truth]}, {said}: {n:,} of {total:,} ({100 * share:.0f} %)")
    kind = "right" if truth == answer else "wrong"
    # The root makes the few mistakes visible: most are a small share of their class.
    return f'<td class="{kind}" style="--share:{0.12 + 0.88 * share**0.5:.3f}" title="{title}"><span>{n:,}</span></td>'


def _pairs(found: dict[str, Any], most: int = 8) -> str:
    classes = found["classes"]
    total: Counter[int] = Counter()
    for truth, _, n in found["counts"]:
        total[truth] += n
    wrong = sorted((c for c in found["counts"] if c[0] != c[1]), key=lambda c: (-c[2], -c[2] / total[c[0]], c))
    if not wrong:
        return parts.missing("No sample was taken for another class.")
    lines = "".join(
        f"<li><span><b>{parts.text(classes[truth])}</b> taken for <b>{parts.text(classes[answer])}</b></span>"
        f'<i style="--share:{n / total[truth]:.3f}"></i>'
        f"<u>{n:,} of {total[truth]:,} · {100 * n / total[truth]:.0f} %</u></li>"
        for truth, answer, n in wrong[:most]
    )
    return f'<div><h4>Most often confused</h4><ol class="pairs">{lines}</ol></div>'
