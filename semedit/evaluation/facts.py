"""Readers of the data sets that edit facts: one record, one example.

Each takes a record and its number in the file, which names the example and its edits. Fields that a reader does not
name are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from semedit.edits import Edit
from semedit.evaluation.examples import Example, Kind, Probe
from semedit.evaluation.files import Record
from semedit.memory.checks import EDITABLE, check_edit
from semedit.memory.store import edit_of

UNEDITED_HOP = "unedited hop"
# what KnowEdit's locality probes ask; of the other kinds nothing is known
_LOCALITY: dict[str, Kind] = {
    "Relation_Specificity": "same_subject",
    "Forgetfulness": "same_subject",  # names the subject and the relation, and asks for another object
    "neighborhood": "same_relation",
    "distracting": "same_relation",
}


def zsre(record: Record, number: int) -> Example:
    """Reads zsRE (Levy et al., 2017; Mitchell et al., 2022), in MEND's schema or KnowEdit's.

    `alt` is the target and `answers` the truth. Where `answers` is missing, `alt` may be the truth itself. Where `alt`
    is empty, as in 2 of 1,000 records of a published file, nothing is edited and only the unrelated question is asked.
    """
    id = f"zsre-{number}"
    if "src" not in record.fields:
        return _knowedit(record, id)
    unrelated = [
        Probe("unrelated", question.removeprefix("nq question: "), record.texts("loc_ans"))
        for question in record.texts("loc")
    ]
    if record.fields.get("alt") == "":
        return Example(id, (), tuple(unrelated), *_about(record))
    prompt, target, old = record.text("src"), record.text("alt"), record.texts("answers")
    return _example(record, id, prompt, target, old, record.texts("rephrase"), [*unrelated, *_one_hop(record)])


def knowedit(record: Record, number: int) -> Example:
    """KnowEdit's wiki_recent and wiki_counterfact (Zhang et al., 2024), whose probes are those of RippleEdits."""
    return _knowedit(record, f"knowedit-{number}")


def counterfact(record: Record, number: int) -> Example:
    """CounterFact (Meng et al., 2022), in ROME's schema with the fields of its later variants, or EasyEdit's."""
    id = f"counterfact-{number}"
    if "requested_rewrite" not in record.fields:
        prompt, target = record.text("prompt"), record.text("target_new")
        old, rephrased = record.texts("ground_truth"), record.texts("rephrase_prompt")
        neighbours, answers = record.texts("locality_prompt"), record.texts("locality_ground_truth")
        return _example(record, id, prompt, target, old, rephrased, _neighbours(neighbours, answers, (target,)))
    within = "requested_rewrite."
    prompt, target = _cloze(record, within), record.text("requested_rewrite.target_new.str")
    old = (record.text("requested_rewrite.target_true.str"),)
    others = [
        *_neighbours(record.texts("neighborhood_prompts"), old, (target,)),
        *_neighbours(record.texts("distracting_neighborhood_prompts"), old, (target,), "distracting"),
        *(
            Probe("same_subject", question, record.texts("unrelated_relation.object"))
            for question in record.texts("unrelated_relation.question")
        ),
        *_one_hop(record),
    ]
    return _example(record, id, prompt, target, old, record.texts("paraphrase_prompts"), others, within)


def mquake(record: Record, number: int) -> Example:
    """MQuAKE (Zhong et al., 2023): the edits of a case together, and questions over several hops that need them all.

    A hop that none of the edits changes is a probe too, as what must not change.
    """
    id = f"mquake-{number}"
    rewrites = record.parts("requested_rewrite")
    if not rewrites:
        raise record.error("requested_rewrite", "a list with an edit")
    hops = record.parts("new_single_hops")
    edits, probes, asked = [], [], set()
    for place, rewrite in enumerate(rewrites, start=1):
        cloze = _cloze(rewrite)
        prompt, *rephrased = dict.fromkeys((*rewrite.texts("question"), cloze))
        asked |= {prompt, cloze}
        same = [hop for hop in hops if prompt in hop.texts("question") or cloze in hop.texts("cloze")]
        answers = _unique(
            rewrite.text("target_new.str"), *(alias for hop in same for alias in hop.texts("answer_alias"))
        )
        old = (rewrite.text("target_true.str"),)
        edits.append(Edit(id=f"{id}-{place}", prompt=prompt, target=answers[0]))
        probes.append(Probe("reliability", prompt, answers, old))
        probes += [Probe("generality", text, answers, old) for text in rephrased]
    probes += [
        Probe("unrelated", hop.text("question"), _answers(hop, "answer"), detail=UNEDITED_HOP)
        for hop in hops
        if asked.isdisjoint((*hop.texts("question"), *hop.texts("cloze")))
    ]
    detail = f"{len(hops)}-hop" if hops else "multi-hop"
    probes += [
        Probe("portability", question, _answers(record, "new_answer"), _answers(record, "answer"), detail)
        for question in record.texts("questions")
    ]
    about = _about(rewrites[0]) if len(rewrites) == 1 else ()
    return Example(id, tuple(edits), tuple(probes), *about)


def hallueditbench(record: Record, number: int) -> Example:
    """HalluEditBench (Huang et al., 2025): corrections of what a model hallucinated, which is in `output_MODEL`.

    Yes-or-no and multiple-choice questions have the edit in their answer, and are generality as in the paper; a
    reversed question is answered by the subject, and is portability here.
    """
    target, question = record.text("object"), record.text("question")
    old = tuple(text for name in record.fields if name.startswith("output_") for text in record.texts(name))
    others = [
        *(Probe("generality", text, ("Yes",), ("No",), "yes or no") for text in record.texts("yes_question")),
        *(Probe("generality", text, ("No",), ("Yes",), "yes or no") for text in record.texts("no_question")),
        *(
            Probe("generality", f"{question} {choices}", (letter, f"{letter}. {target}", target), old, "choice")
            for choices in record.texts("multiple_choice_with_letters")
            for letter in (record.text("multiple_choice_labels"),)
        ),
        *(Probe("same_subject", text) for text in record.texts("locality_question")),
        *(
            Probe("portability", text, (record.text("subject"),), detail="reversed")
            for text in record.texts("reversed_relation_question")
        ),
        *(
            Probe("portability", text, (record.text(f"answer_{hops}hop"),), detail=f"{hops}-hop")
            for hops in range(2, 7)
            for text in record.texts(f"question_{hops}hop")
        ),
    ]
    rephrased = record.texts("paraphrased_question")
    return _example(record, f"hallueditbench-{number}", question, target, old, rephrased, others)


def wikifactdiff(record: Record, number: int) -> Example:
    """WikiFactDiff (Ammar Khodja et al., 2024) in its question form, under `en`."""
    target, old = record.text("en.alt"), record.texts("en.old")
    others = [
        *_neighbours(record.texts("en.loc"), record.texts("en.loc_ans")),
        *(
            Probe("portability", question, (record.text("en.port_ans"),), detail="one-hop")
            for question in record.texts("en.port")
        ),
    ]
    rephrased = record.texts("en.rephrase")
    return _example(
        record, f"wikifactdiff-{number}", record.text("en.src"), target, old, rephrased, others, within="en."
    )


def jsonl(record: Record, number: int) -> Example:
    """An edit as `semedit edit export` writes it, with probes of one's own; always in force, and in one namespace.

    Beside the fields of the edit: `aliases` of its target, the questions `generality` and `locality`, and
    `portability`, a list of objects with `prompt` and `answers`. An edit without an id is given one. Who answers is
    what is evaluated, so that an `override` of its own is left aside.
    """
    fields = {name: record.fields[name] for name in ("id", *EDITABLE) if name in record.fields}
    fields |= {name: record.text(name) for name in ("prompt", "target")}
    fields |= {name: record.texts(name) for name in ("paraphrases", "negatives")}
    edit = edit_of({"id": f"jsonl-{number}", **fields})
    edit = replace(check_edit(edit), namespace="default", valid_from=None, valid_until=None, override=None)
    answers = _unique(edit.target, *record.texts("aliases"))
    probes = [
        Probe("reliability", edit.prompt, answers),
        *(Probe("generality", text, answers) for text in record.texts("generality")),
        *(Probe("unrelated", text) for text in record.texts("locality")),
    ]
    for part in record.parts("portability"):
        if not part.texts("answers"):
            raise part.error("answers", "a text or a list of texts")
        probes.append(Probe("portability", part.text("prompt"), part.texts("answers")))
    return Example(edit.id, (edit,), tuple(probes))


def _knowedit(record: Record, id: str) -> Example:
    others = []
    for kind in record.names("locality"):
        for part in record.parts(f"locality.{kind}"):
            asked, answers = part.text("prompt"), part.texts("ground_truth")
            others.append(Probe(_LOCALITY.get(kind, "unrelated"), asked, answers, detail=_words(kind)))
    for kind in record.names("portability"):
        for part in record.parts(f"portability.{kind}"):
            # one without an answer cannot be judged
            if answers := part.texts("ground_truth"):
                others.append(Probe("portability", part.text("prompt"), answers, detail=_words(kind)))
    prompt, target, old = record.text("prompt"), record.text("target_new"), record.texts("ground_truth")
    return _example(record, id, prompt, target, old, record.texts("rephrase_prompt"), others)


def _example(
    record: Record,
    id: str,
    prompt: str,
    target: str,
    old: tuple[str, ...],
    rephrased: Iterable[str],
    others: Iterable[Probe],
    within: str = "",
) -> Example:
    """One edit with its own prompt, the same asked otherwise, and other probes; `within` says where its subject is."""
    own = Probe("reliability", prompt, (target,), old)
    general = [Probe("generality", text, (target,), old) for text in rephrased]
    edits = (Edit(id=id, prompt=prompt, target=target),)
    return Example(id, edits, (own, *general, *others), *_about(record, within))


def _about(record: Record, within: str = "") -> tuple[str | None, str | None]:
    """Subject and relation, as far as the record says."""
    relations = (*record.texts(f"{within}relation_id"), *record.texts(f"{within}relation"))
    return next(iter(record.texts(f"{within}subject")), None), next(iter(relations), None)


def _neighbours(
    prompts: Iterable[str], answers: tuple[str, ...], alternatives: tuple[str, ...] = (), detail: str = ""
) -> list[Probe]:
    return [Probe("same_relation", prompt, answers, alternatives, detail) for prompt in prompts]


def _one_hop(record: Record) -> list[Probe]:
    """The question that Yao et al. (2023) added to zsRE and CounterFact."""
    return [
        Probe("portability", question, (record.text("portability.New Answer"),), detail="one-hop")
        for question in record.texts("portability.New Question")
    ]


def _cloze(record: Record, within: str = "") -> str:
    """The beginning that the target completes: the subject in its template."""
    template = record.text(f"{within}prompt")
    if "{}" not in template:
        raise record.error(f"{within}prompt", "a template with {} where the subject stands")
    return template.replace("{}", record.text(f"{within}subject"))


def _answers(record: Record, name: str) -> tuple[str, ...]:
    """An answer and its aliases."""
    return _unique(record.text(name), *record.texts(f"{name}_alias"))


def _unique(*texts: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _words(name: str) -> str:
    return name.replace("_", " ").lower()
