"""What is measured: each metric by its definition, its numerator and denominator, and where it misleads.

A rate counts probes, not examples: an example with ten paraphrases weighs ten times as much as one with one. The
metrics of what is generated are functions over records (`Asked`) of one checkpoint; those of likelihoods take numbers.
Papers are named where a metric comes from one: SQuAD (Rajpurkar et al., 2016), SERAC (Mitchell et al., 2022), ROME
(Meng et al., 2022), GRACE (Hartvigsen et al., 2023), canonical examples (Hewitt et al., 2024).
"""

from __future__ import annotations

import math
import re
import statistics
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from semedit.evaluation.examples import Criterion, Kind

if TYPE_CHECKING:
    from semedit.evaluation.results import Asked

Unchanging = Literal["unrelated", "same_subject", "same_relation"]
UNCHANGING: tuple[Unchanging, ...] = ("unrelated", "same_subject", "same_relation")
_ARTICLES = frozenset({"a", "an", "the"})


@dataclass(frozen=True)
class Rate:
    """How many of how many.

    Attributes:
        hits: the numerator.
        of: the denominator.
    """

    hits: int
    of: int

    @property
    def value(self) -> float | None:
        """The share; None of none."""
        return self.hits / self.of if self.of else None

    @property
    def low(self) -> float | None:
        """The lower end of the 95 % Wilson interval; None of none."""
        return wilson(self.hits, self.of)[0] if self.of else None

    @property
    def high(self) -> float | None:
        """The upper end of the 95 % Wilson interval; None of none."""
        return wilson(self.hits, self.of)[1] if self.of else None


@dataclass(frozen=True)
class Mean:
    """A mean of numbers that are not yes or no: seconds, bits, token accuracies.

    Attributes:
        total: their sum.
        of: how many there are.
    """

    total: float
    of: int

    @property
    def value(self) -> float | None:
        """The mean; None of none."""
        return self.total / self.of if self.of else None


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a rate (Wilson, 1927); from 0 to 1 where `of` is 0, since nothing is known."""
    if not of:
        return 0.0, 1.0
    z, rate = 1.959964, hits / of
    centre = rate + z * z / (2 * of)
    spread = z * math.sqrt(rate * (1 - rate) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


# --- matching answers


def normalised(text: str) -> str:
    """A text without case, punctuation, articles and spare white space, as SQuAD's evaluation compares answers.

    Beyond ASCII, case is folded, marks are composed, and whatever Unicode calls punctuation goes. As with SQuAD, 1.5
    and 15 become one, and so do -5 and 5: punctuation leaves no gap.
    """
    folded = unicodedata.normalize("NFC", text.casefold())
    words = "".join(character for character in folded if not _is_punctuation(character)).split()
    return " ".join(word for word in words if word not in _ARTICLES)


def exact_match(answer: str, *expected: str) -> bool:
    """Whether the answer is one of the expected ones (a target and its aliases), after normalisation.

    An expected answer of which normalisation leaves nothing ("?", "The") is matched by itself alone: otherwise every
    other empty answer would be right.
    """
    said = normalised(answer)
    wanted = ((one, normalised(one)) for one in expected)
    return any(said == words if words else answer == one for one, words in wanted)


def contains_match(answer: str, *expected: str) -> bool:
    """Whether the answer has one of the expected ones in it as whole words, after normalisation.

    It holds wherever `exact_match` does. Trap: "not Paris" contains Paris, and the longer an answer the more it
    contains; it stands beside the exact match, never in its place. Where a language puts no space between words it is
    the exact match.
    """
    said = f" {normalised(answer)} "
    wanted = ((one, normalised(one)) for one in expected)
    return any(f" {words} " in said if words else answer == one for one, words in wanted)


def _is_punctuation(character: str) -> bool:
    # SQuAD's list has ASCII symbols too, such as $ and +
    return character in string.punctuation or unicodedata.category(character).startswith("P")


# --- over the records of one checkpoint


def rates(asked: Sequence[Asked]) -> dict[str, Rate]:
    """Every rate that follows from the records alone, by name and in the order of display.

    Those of which nothing was asked are left out. Edit success is not among them, since records do not say how long
    after an edit they were asked; nor is what takes likelihoods.
    """
    found = {
        "reliability": reliability(asked),
        "generality": generality(asked),
        "portability": portability(asked),
        **{f"portability: {detail}": rate for detail, rate in portability_by_detail(asked).items() if detail},
        **{f"locality_{kind}": locality(asked, kind) for kind in UNCHANGING},
        "false_override": false_override(asked),
        **{f"false_override_{kind}": false_override(asked, kind) for kind in UNCHANGING},
        "edit_retention": edit_retention(asked),
        "test_retention": test_retention(asked),
        "in_scope_success": in_scope_success(asked),
        "drawdown": drawdown(asked),
        "contains_reliability": contains(asked, "reliability"),
        "contains_generality": contains(asked, "generality"),
        **{f"behaviour: {detail}" if detail else "behaviour": rate for detail, rate in behaviour(asked).items()},
    }
    return {name: rate for name, rate in found.items() if rate.of}


def reliability(asked: Iterable[Asked]) -> Rate:
    """Of the edits' own prompts, those answered with the target.

    The field's first metric; mostly reported teacher-forced, where the model is given the target's earlier tokens and
    an untouched one already gets a quarter or more of the tokens right. Here the whole answer is generated.
    """
    return _right(asked, "reliability")


def generality(asked: Iterable[Asked]) -> Rate:
    """Of the edits' prompts in other words, those answered with the target.

    Trap as with `reliability`. Back-translated paraphrases, as in zsRE, often differ by one word from the prompt.
    """
    return _right(asked, "generality")


def portability(asked: Iterable[Asked]) -> Rate:
    """Of the questions whose answer follows from an edit, of every detail, those answered rightly.

    Trap: pooled, it hangs on how many of each detail a data set has; see `portability_by_detail`.
    """
    return _right(asked, "portability")


def portability_by_detail(asked: Iterable[Asked]) -> dict[str, Rate]:
    """`portability` of each detail ("one-hop", "alias", ...), in the order of the alphabet."""
    return _by_detail(asked, "portability")


def locality(asked: Iterable[Asked], kind: Unchanging) -> Rate:
    """Of the questions of a kind that no edit must change, those answered token for token as the unedited model does.

    It compares with the unedited model, not with what is true: ROME's specificity on zsRE compares with the gold
    answer, and is low before any edit. Trap: on a frozen model whatever is not routed to an edit counts, so that a
    method that never fires scores 1; read it beside `reliability`.
    """
    return _right(asked, kind)


def false_override(asked: Iterable[Asked], *kinds: Unchanging) -> Rate:
    """Of the questions that no edit must change, those that an edit answered.

    Over these kinds, or else over `"unrelated"`, `"same_subject"` and `"same_relation"`, where there is a router. It
    is stricter than 1 - `locality`: an override can say what the model would have said. Trap: it grows with the
    number of edits, and pooled, it hangs on how many questions of each kind are asked.
    """
    routed = [one for one in asked if one.kind in (kinds or UNCHANGING) and one.overridden is not None]
    return Rate(sum(one.overridden is True for one in routed), len(routed))


def edit_retention(asked: Iterable[Asked]) -> Rate:
    """GRACE's ERR: of the prompts of all past edits, those that are still answered with the target.

    At a checkpoint that asks every past edit it is `reliability` there. Trap: an edit that was never right counts as
    not retained.
    """
    return _right(asked, "reliability")


def test_retention(asked: Iterable[Asked]) -> Rate:
    """GRACE's TRR: of unrelated questions, those on which the model is as good as before.

    GRACE takes the model's score on its own test set; here each answer must be the unedited model's, token for token,
    so that 1 is an untouched model and no error is let off.
    """
    return _right(asked, "unrelated")


def in_scope_success(asked: Iterable[Asked]) -> Rate:
    """SERAC's ES: of the questions in scope of an edit, its own prompt and others, those answered with the target.

    Over `"reliability"` and `"generality"`. SERAC counts an answer where every token is the likeliest, teacher-forced.
    """
    return _right(asked, "reliability", "generality")


def drawdown(asked: Iterable[Asked]) -> Rate:
    """SERAC's DD: of the questions that no edit must change, those whose answer has changed. Lower is better.

    Over `"unrelated"`, `"same_subject"` and `"same_relation"`, where SERAC has random and hard negatives. Trap:
    pooled, it hangs on how many of them are hard; see `locality`.
    """
    right = _right(asked, *UNCHANGING)
    return Rate(right.of - right.hits, right.of)


def contains(asked: Iterable[Asked], kind: Literal["reliability", "generality"]) -> Rate:
    """As the metric of that name, with a `contains_match` for the exact one, and its trap."""
    hits = [one.contains for one in asked if one.kind == kind]
    return Rate(sum(hits), len(hits))


def behaviour(asked: Iterable[Asked]) -> dict[str, Rate]:
    """Canonical examples' success: of the probes judged by likelihoods, those that meet their criterion, by detail.

    In the order of the alphabet. Details are not pooled: of a hard negative, success means that nothing changed.
    """
    return _by_detail(asked, "behaviour")


def _right(asked: Iterable[Asked], *kinds: Kind) -> Rate:
    hits = [one.right for one in asked if one.kind in kinds]
    return Rate(sum(hits), len(hits))


def _by_detail(asked: Iterable[Asked], kind: Kind) -> dict[str, Rate]:
    chosen = [one for one in asked if one.kind == kind]
    details = sorted({one.detail for one in chosen})
    return {detail: _right((one for one in chosen if one.detail == detail), kind) for detail in details}


# --- over likelihoods


def efficacy(new: Sequence[float], true: Sequence[float]) -> Rate:
    """ROME's efficacy score: of the edits' prompts, those on which the new answer is likelier than the true one.

    `new` and `true` have for each prompt the answer's mean log likelihood per token, in nats. A tie is no success.
    Trap: of two answers the likelier need not be what the model says; the share on which it is said is far lower.
    """
    return _likelier(new, true)


def paraphrase(new: Sequence[float], true: Sequence[float]) -> Rate:
    """ROME's paraphrase score: `efficacy` on paraphrases of the prompts.

    ROME averages over the paraphrases of an edit first; with as many of each edit, two in CounterFact, it is the same.
    """
    return _likelier(new, true)


def neighbourhood(new: Sequence[float], true: Sequence[float]) -> Rate:
    """ROME's neighbourhood score: of prompts about like subjects, those on which the true answer is the likelier.

    Arguments, ties and trap as with `efficacy`; averaged over the prompts of an edit first, as with `paraphrase`.
    """
    return _likelier(true, new)


def rome_score(on_prompts: Rate, on_paraphrases: Rate, on_neighbours: Rate) -> float | None:
    """ROME's S: the harmonic mean of `efficacy`, `paraphrase` and `neighbourhood`.

    Returns 0 where one of them is 0, and None where one is of none.
    """
    values = [one.value for one in (on_prompts, on_paraphrases, on_neighbours) if one.value is not None]
    return statistics.harmonic_mean(values) if len(values) == 3 else None


def conversational_success(right: Sequence[float], wrong: Sequence[float], right_before: Sequence[float]) -> Mean:
    """SERAC's ES on ConvSent, over the questions of edits: is the right sentiment the likelier, and the topic kept?

    The mean of σ(right - wrong) · min(1, exp(right - right_before)), from 0 to 1.

    Args:
        right: of each question, the mean log likelihood per token of replies of the edit's sentiment, after the edit,
            in nats; -inf where none of them can be said, which scores 0.
        wrong: that of replies of the other sentiment.
        right_before: that of the former, before the edit.

    Trap: an edit that changes nothing scores σ(right - wrong), about a half where the model has no opinion.
    """
    likelier = [
        (1 + math.tanh((r - w) / 2)) / 2 if math.isfinite(r) else 0.0 for r, w in zip(right, wrong, strict=True)
    ]  # σ(r - w)
    kept = [math.exp(min(0.0, r - before)) for r, before in zip(right, right_before, strict=True)]
    scores = [sentiment * topic for sentiment, topic in zip(likelier, kept, strict=True)]
    return Mean(math.fsum(scores), len(scores))


def succeeds(criterion: Criterion, answer: float, alternative: float | None = None) -> bool:
    """Whether a behaviour probe meets its criterion (canonical examples, which counts the failures).

    Args:
        criterion: what must hold.
        answer: the answer's log likelihood, in nats and summed over its tokens.
        alternative: the alternative's; an nll does without.

    Trap: a bound of 1.609 nats is a probability of 0.2; the answer need not be the likeliest.
    """
    if criterion.measure == "nll":
        return -answer <= criterion.bound
    assert alternative is not None  # the other measures compare with it
    if criterion.measure == "log_odds":
        return abs(answer - alternative) <= criterion.bound
    return answer - alternative > criterion.bound


def bounded_success(success: Rate, loss: float, unedited_loss: float, delta: float) -> Rate | None:
    """Canonical examples' success at a bounded loss: `success`, or None where the edits cost too much.

    Args:
        success: of the probes, those that succeed.
        loss: on general text, with the edits; at most (1 + delta) · unedited_loss.
        unedited_loss: on the same text, without them.
        delta: 1e-3, 1e-4 or 1e-5 in the paper.

    Trap: a void result is not 0; a method is to be made weaker until it is within the bound.
    """
    return success if loss <= (1 + delta) * unedited_loss else None


def _likelier(one: Sequence[float], other: Sequence[float]) -> Rate:
    hits = [a > b for a, b in zip(one, other, strict=True)]
    return Rate(sum(hits), len(hits))


# --- over generated texts


def fluency(texts: Sequence[str]) -> Mean:
    """ROME's generation entropy: the mean `n_gram_entropy` of generated texts, in bits.

    Trap: it sees repetition and nothing else, and grows with a text's length; compare texts generated to one length
    (100 tokens in ROME). ROME's tables show it times 100.
    """
    return Mean(math.fsum(map(n_gram_entropy, texts)), len(texts))


def n_gram_entropy(text: str) -> float:
    """ROME's entropy of a text, in bits: the mean of 2/3 that of its word pairs and 4/3 that of its triples.

    Words and punctuation marks count each, nearly as NLTK's words in ROME. Where a text is too short for a triple or
    a pair, the entropy is 0; ROME's code divides by 0 there.
    """
    words = re.findall(r"\w+|[^\w\s]", text)
    pairs = Counter(pairwise(words))
    triples = Counter(zip(words, words[1:], words[2:], strict=False))
    return (2 / 3 * _entropy(pairs.values()) + 4 / 3 * _entropy(triples.values())) / 2


def _entropy(counts: Iterable[int]) -> float:
    counts = list(counts)
    total = sum(counts)
    return math.fsum(count / total * math.log2(total / count) for count in counts)
