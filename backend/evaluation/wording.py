"""Sentences and short texts made from numbers, so that pages, CLI and exports say the same.

"loses" and "gains" are written only for an interval that excludes 0. Sentences are Markdown.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from backend.data.profiles import profile_of_source
from backend.protocols import protocol_label, protocol_text, tested_on
from backend.types import TRUTHS, cap_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backend.evaluation.intervals import Estimate

__all__ = [
    "TimepointScore",
    "budget_meaning",
    "budget_text",
    "cautions",
    "description_sentence",
    "difference_text",
    "gap_sentence",
    "init_text",
    "kind_text",
    "label_sources_text",
    "level_text",
    "number",
    "plain",
    "plural",
    "prose",
    "protocol_sentence",
    "range_text",
    "score_text",
    "series_sentence",
    "signed",
    "unescaped",
]

_SOURCE_TEXTS: Final = {
    "clustering": "clustering",
    "classifier": "a classifier",
    "expert": "an expert",
    "unknown": "an unknown source",
}

_CAUTION: Final = (
    "{labelled} are classifier calls from the same expression: "
    "F1 here is agreement with {classifier}."
)

_LEVEL_TEXTS: Final = {"lineage": "by lineage", "fine": "as given"}

_INIT_TEXTS: Final = {
    "pretrained": "starts from published weights",
    "scratch": "starts from random weights: published weights not used",
    "frozen": "backbone fixed, head trained",
}
_PUNCTUATION: Final = re.compile(r"([!-/:-@\[-`{-~])")
_SHORTCODE: Final = re.compile(r":(?=[\w+-]+:)")
_ADDRESS: Final = re.compile(r"(?:https?(?=://)|www(?=\.)|@)", re.IGNORECASE)
"""Where addresses of pages and people begin, which become links even when they are escaped."""
_JOINER: Final = "\u2060"
"""Takes no room; it keeps `:name:` from becoming a picture and an address from becoming a link."""

_INHOUSE: Final = "in-house"
"""Ends the display name of what starts from weights pre-trained here."""


def protocol_sentence(key: str) -> str:
    """Return "Tested on new patients (donor-held-out: a test donor is never trained on)"."""
    return f"Tested on {tested_on(key)} ({protocol_label(key)}: {protocol_text(key)})"


def level_text(key: str) -> str:
    """Return a label level in plain words; one without such words as it is."""
    return _LEVEL_TEXTS.get(key, key)


def budget_text(key: str) -> str:
    """Return how training cells were limited in plain words; an unknown limit as it is."""
    cap = cap_of(key)
    if cap is not None:
        return f"at most {plural(cap, 'training cell')} a patient"
    return {"equal": "equal training size", "full": "all training cells"}.get(key, key)


def budget_meaning(key: str) -> str:
    """Return what a budget means exactly."""
    evened = "in each fold as many for known as for new patients, and the same for all models"
    if (cap := cap_of(key)) is not None:
        return f"at most {plural(cap, 'training cell')} of each donor; {evened}"
    if key == "equal":
        return evened
    return "every training cell of a fold" if key == "full" else key


def kind_text(*, simulated: bool, is_upload: bool) -> str:
    """Return what kind of data a dataset is; of an upload nothing is known but what it says."""
    return "simulated, not a finding" if simulated else "uploaded" if is_upload else "real"


def number(value: float) -> str:
    """Return two decimals with a true minus sign; "no score" for NaN."""
    if math.isnan(value):
        return "no score"
    text = f"{value:.2f}".replace("-", "−")
    return "0.00" if text == "−0.00" else text


def signed(value: float) -> str:
    """Return two decimals with a plus or a true minus sign."""
    text = number(value)
    return text if text == "0.00" or value < 0 or math.isnan(value) else f"+{text}"


def plural(n: int, word: str) -> str:
    """Return "1 donor", "1,204 cells"."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def range_text(low: float, high: float) -> str:
    """Return "0.55–0.70", or "−0.12 to 0.03" where a dash would be misread."""
    dash = "–" if low >= 0 else " to "
    return f"{number(low)}{dash}{number(high)}"


def score_text(estimate: Estimate, *, n_cells: int) -> str:
    """Return "0.63 (0.55–0.70; 13 donors, 8,113 cells)", or the score with why it has no interval."""
    value, cells = number(estimate.value), plural(n_cells, "cell")
    donors = plural(estimate.n_donors, "donor")
    if estimate.interval == "none":
        return f"{value} ({donors}, {cells}; no interval)"
    if estimate.interval == "few donors":
        donors = f"few donors: {estimate.n_donors}"
    return f"{value} ({range_text(estimate.low, estimate.high)}; {donors}, {cells})"


def difference_text(name: str, reference: str, difference: Estimate) -> str:
    """Say how a slice or model stands against a reference, without more than the interval allows."""
    if difference.interval == "none":
        return f"{name} {signed(difference.value)}; {_why_no_test(difference, name, reference)}"
    spread = range_text(difference.low, difference.high)
    few = ", few donors" if difference.interval == "few donors" else ""
    if difference.excludes_zero:
        verb = "loses" if difference.value < 0 else "gains"
        return f"{name} {verb} {number(abs(difference.value))} ({_unsigned(difference)}{few})"
    return f"{name} {signed(difference.value)} ({spread}{few}; the interval includes 0)"


def _unsigned(difference: Estimate) -> str:
    """Return the range of a loss or gain as positive numbers, smaller first."""
    ends = sorted((abs(difference.low), abs(difference.high)))
    return range_text(*ends)


def _why_no_test(difference: Estimate, name: str, reference: str) -> str:
    if "no interval below" not in difference.reason:
        return difference.reason
    small = next((side for side in (reference, name) if f"at {side}:" in difference.reason), "")
    return f"too few {small} donors to test".replace("  ", " ")


@dataclass(frozen=True, slots=True)
class TimepointScore:
    """What a sentence says of one timepoint.

    `difference` is against the first timepoint. `types` and `no_score` are of a description: what
    it is over, and why there is none.
    """

    timepoint: str
    estimate: Estimate
    n_cells: int
    is_dots_only: bool = False
    difference: Estimate | None = None
    types: str = ""
    no_score: str = ""


def series_sentence(
    configuration: str,
    scores: Sequence[TimepointScore],
    *,
    metric: str,
    types: str,
    label_sources: str,
    simulated: bool,
    status: str = "",
    is_complete: bool = True,
    n_seeds: int = 1,
    truth: str = "all",
) -> str:
    """Return the sentence of one configuration on Overview.

    Parameters
    ----------
    scores
        In clinical order; the first one with a score is what later ones are compared with.
    metric
        Its label.
    types
        `Panel.describe()`.
    label_sources
        From `label_sources_text`.
    status
        "4 of 5 folds", used when the series is not complete.
    """
    name = f"`{configuration}`" + (" on *simulated* data" if simulated else "")
    if not is_complete:
        return f"{name}: {status}; no headline number."
    scored = [score for score in scores if not math.isnan(score.estimate.value)]
    dots = [
        f"{score.timepoint or 'The dataset'} has {plural(score.estimate.n_donors, 'donor')}, "
        "shown as dots only."
        for score in scores
        if score.is_dots_only
    ]
    if not scored:
        return " ".join([f"{name}: no {metric}, {types} can be compared.", *dots])
    joined = " vs " if len(scored) == 2 else ", "
    parts = joined.join(
        f"{score.timepoint} {score_text(score.estimate, n_cells=score.n_cells)}".strip()
        for score in scored
    )
    seeds = f"mean of {n_seeds} seeds; " if n_seeds > 1 else ""
    shown = "" if truth == "all" else f"; {TRUTHS[truth].lower()} only"
    sentences = [f"{name}: {metric} {parts}; {seeds}{types}{shown}.", *_differences(scored), *dots]
    return " ".join([*sentences, label_sources]).strip()


def description_sentence(
    configuration: str,
    scores: Sequence[TimepointScore],
    *,
    metric: str,
    describes: str,
    label_sources: str,
    simulated: bool,
    status: str = "",
    is_complete: bool = True,
    n_seeds: int = 1,
    truth: str = "all",
) -> str:
    """Return the sentence of one configuration where no type can be compared.

    Parameters
    ----------
    scores
        In clinical order, each over its own types.
    describes
        Which donors the scores are about, from `backend.evaluation.description.describes`.
    metric, label_sources, simulated, status, is_complete, n_seeds, truth
        See `series_sentence`.
    """
    name = f"`{configuration}`" + (" on *simulated* data" if simulated else "")
    if not is_complete:
        return f"{name}: {status}; no headline number."
    scored = [score for score in scores if not math.isnan(score.estimate.value)]
    parts = ", ".join(
        f"{score.timepoint} {score_text(score.estimate, n_cells=score.n_cells)} "
        f"over {score.types}".strip()
        for score in scored
    )
    without = [
        f"{score.timepoint or 'The dataset'} ({plural(score.n_cells, 'cell')}): {score.no_score}."
        for score in scores
        if score.no_score
    ]
    if not scored:
        return " ".join([f"{name}: no {metric}.", *without])
    seeds = f"mean of {n_seeds} seeds; " if n_seeds > 1 else ""
    shown = "" if truth == "all" else f"{TRUTHS[truth].lower()} only; "
    first = f"{name}: {metric} {parts}; {seeds}{shown}{describes}."
    return " ".join([first, *without, label_sources]).strip()


def _differences(scored: Sequence[TimepointScore]) -> list[str]:
    later = [score for score in scored[1:] if score.difference is not None]
    if not later:
        return []
    first = scored[0].timepoint
    texts = [
        difference_text(score.timepoint, first, score.difference)
        for score in later
        if score.difference is not None
    ]
    if (
        len(scored) == 2
        and later[0].difference is not None
        and not later[0].difference.excludes_zero
    ):
        return [f"Difference {texts[0].removeprefix(later[0].timepoint).strip()}."]
    return [f"Against {first}: {'; '.join(texts)}."]


def _listed(names: Sequence[str]) -> str:
    """Return "A", "A and B" or "A, B and C"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def label_sources_text(
    sources: Mapping[str, Sequence[str]], *, prefix: bool = True, simulated: bool = False
) -> str:
    """Name where labels come from, per timepoint when that differs.

    Parameters
    ----------
    sources
        Timepoint to label sources found there.
    prefix
        Whether to return a sentence, or only what follows "Labels:".
    simulated
        Whether labels, and so their sources, are simulated.
    """
    kind = " (simulated)" if simulated else ""
    texts = {
        name: " and ".join(_SOURCE_TEXTS.get(source, source) for source in sorted(found))
        for name, found in sources.items()
        if found
    }
    if not texts:
        return ""
    if len(set(texts.values())) == 1:
        text = f"from {next(iter(texts.values()))}"
        return f"Labels come {text}{kind}." if prefix else f"{text}{kind}"
    groups = {
        found: [name for name in texts if texts[name] == found]
        for found in dict.fromkeys(texts.values())
    }
    text = "; ".join(f"{_listed(names)} from {found}" for found, names in groups.items())
    return f"Label sources differ{kind}: {text}." if prefix else f"{text}{kind}"


def cautions(source: str, sources: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return what every score on these labels must carry.

    Parameters
    ----------
    source
        The dataset's source, with its accession.
    sources
        Timepoint to label sources of the cells that are scored.
    """
    if not any("classifier" in found for found in sources.values()):
        return ()
    if (known := profile_of_source(source)) is not None:
        return (_CAUTION.format(labelled=known.labelled, classifier=known.classifier),)
    return (_CAUTION.format(labelled="Some labels", classifier="that classifier"),)


def init_text(
    *,
    preset: str | None,
    init: str,
    checkpoint: str | None,
    display_name: str = "",
    is_imported: bool = False,
) -> str:
    """Say what a model starts from; of an imported one nothing is known."""
    if is_imported:
        return "not known"
    if preset is None:
        return "fitted on training cells only"
    named = f" ({checkpoint})" if checkpoint else ""
    text = _INIT_TEXTS.get(init, init)
    if not display_name.endswith(_INHOUSE):
        return text + named
    if init == "pretrained":
        text = "starts from weights pre-trained here"
    return f"{text}{named}: in-house, published weights not used"


def gap_sentence(
    configuration: str,
    first: float,
    second: float,
    gap: Estimate,
    *,
    metric: str,
    types: str,
    n_cells: int,
    simulated: bool,
    names: tuple[str, str] = ("on known patients", "on new patients"),
) -> str:
    """Say what a protocol change does to a metric (its label), on the same cells and types."""
    name = f"`{configuration}`" + (" on *simulated* data" if simulated else "")
    support = f"{plural(gap.n_donors, 'donor')}, {plural(n_cells, 'cell')}; {types}"
    head = (
        f"{name}: {metric} {number(first)} {names[0]} and {number(second)} {names[1]} ({support})."
    )
    if math.isnan(gap.value):
        return f"{name}: no {metric}, {types} can be compared."
    if gap.interval == "none":
        return f"{head} Gap {signed(gap.value)}; {gap.reason}."
    few = ", few donors" if gap.interval == "few donors" else ""
    spread = f"{range_text(gap.low, gap.high)}{few}"
    if not gap.excludes_zero:
        return f"{head} Gap {signed(gap.value)} ({spread}; the interval includes 0)."
    verb = "loses" if gap.value > 0 else "gains"
    return f"{head} It {verb} {number(abs(gap.value))} ({_unsigned(gap)}{few}) {names[1]}."


def _is_hidden(mark: str) -> bool:
    return not mark.isspace() and unicodedata.category(mark) in ("Cc", "Cf", "Co", "Cs")


def plain(text: object) -> str:
    """Return Markdown that shows `text` as it is, on one line.

    Every ASCII punctuation mark is escaped, which CommonMark allows; HTML, links, formulas, colours
    and picture names of a label stay letters. Marks that are not seen, or turn the text around them
    from right to left, are left out.
    """
    line = " ".join("".join(mark for mark in str(text) if not _is_hidden(mark)).split())
    line = _ADDRESS.sub(r"\g<0>" + _JOINER, _SHORTCODE.sub(":" + _JOINER, line))
    return _PUNCTUATION.sub(r"\\\1", line)


def unescaped(markdown: str) -> str:
    """Return the words of a sentence in Markdown as a terminal shows them, without escapes."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown).replace(_JOINER, "")


def prose(text: object) -> str:
    """Return Markdown of one of our sentences about words from outside.

    What stands between two backticks is shown as code, all else as it is. Code holds no Markdown,
    so a name with backticks of its own can only change which words are shown as code.
    """
    parts = " ".join(str(text).split()).split("`")
    is_paired = len(parts) % 2 == 1
    shown = []
    for position, part in enumerate(parts):
        if position % 2 and part.strip() and (is_paired or position < len(parts) - 1):
            visible = "".join(mark for mark in part if not _is_hidden(mark))
            shown.append(f"`{visible}`")
        else:
            lead = " " if part[:1] == " " else ""
            tail = " " if part[-1:] == " " and part.strip() else ""
            shown.append(f"{lead}{plain(part)}{tail}")
    return "".join(shown)
