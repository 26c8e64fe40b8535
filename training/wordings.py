"""Small changes to a query: those that leave what it asks as it is, and those that make it ask something else."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from difflib import SequenceMatcher

# frames for a statement of which one asks whether it holds, and for turns that only name a subject
_WHETHER = (
    "Is it true that {}?", "Is it correct that {}?", "{}, right?", "Someone said that {}. Is that so?",
    "True or false: {}", "Can you confirm that {}?", "{} - is this correct?", "Did you know that {}? Is it right?",
    "{}, correct?", "{}, yes?", "So {}, or am I wrong?", "{}, true or false?", "I heard that {} - is that still so?",
)  # fmt: skip
OPENINGS = (
    "Tell me about {}.", "I have a question about {}.", "What do you know about {}?", "Let's talk about {}.",
    "We were just reading about {}.", "I'm interested in {}.", "Have you heard of {}?",
)  # fmt: skip
_BEFORE = (
    "Can you tell me: ", "Do you know the answer to this? ", "Hi! ", "Hey, ", "Quick question: ", "Please tell me: ",
    "I was wondering, ", "Question: ", "I need to know: ", "Sorry to bother you. ", "Just checking: ", "Hello, ",
    "Could you help me? ", "Remind me, ", "My colleague asked: ", "ok so ", "One more thing: ", "Answer briefly: ",
)  # fmt: skip
_AFTER = (
    " Thanks!",
    " Please answer in one word.",
    " please",
    " thx",
    " I forgot.",
    " Do you know?",
    " Just the answer.",
)
_NOW = (
    "currently", "right now", "as of today", "these days", "at the moment", "now", "today", "nowadays", "at present",
    "as of now", "at this point", "presently", "as things stand", "at the present time", "at this moment",
)  # fmt: skip
_ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")
_ADDED = (
    "North", "South", "East", "West", "New", "Old", "Upper", "Lower", "Great", "Little", "Saint", "Lake", "Mount",
    "Junior", "II", "III", "County", "Island", "Group", "Holdings", "Records", "Park", "Bridge", "Pro", "Mini", "Plus",
    "2", "3", "University", "Airport", "Museum", "FC", "Bank", "Street", "Energy", "Labs", "Brothers",
)  # fmt: skip
_TASKS = (
    'Translate into {language}: "{query}"',
    "How would one say this in {language}? {query}",
    'Is there a spelling mistake in the sentence "{query}"?',
    "Write a poem about {subject}.",
    "Write a short story in which {subject} plays a part.",
    "What do you think of {subject}?",
    "Tell me a joke about {subject}.",
    "Write an email to a friend about {subject}.",
    "Summarise what you know about {subject} in three paragraphs.",
    "Give me five quiz questions about {subject}.",
    "Why do so many people ask about {subject}?",
    'Rewrite the question "{query}" so that it is more polite.',
    'How many words are in "{query}"?',
    "Who was the first person to ask this: {query}",
    "Where can I buy a book about {subject}?",
    "How is {subject} pronounced?",
    "What rhymes with {subject}?",
    "Is {subject} popular with young people?",
    "Make a table with three facts about {subject}.",
    "Write a Python class named after {subject}.",
    'What does the word "{word}" mean in "{query}"?',
    "Compare {subject} with {other}.",
    "What do {subject} and {other} have in common?",
    "Which came first, {subject} or {other}?",
)
_LANGUAGES = ("French", "German", "Spanish", "Italian", "Polish", "Japanese", "Arabic", "Hindi", "Portuguese")
_NAME = re.compile(r"[A-Z][\w&-]*(?: (?:of |& )?[A-Z0-9][\w&-]*)*")
_NUMBER = re.compile(r"\w*\d\w*")


def same(query: str, rng: random.Random) -> str:
    """The query as people type it: mostly as it is, or in lower case, with words around it, or with a slip."""
    kind = rng.random()
    if kind < 0.55:
        return query
    if kind < 0.62:
        return query.lower()
    if kind < 0.68:
        return query.rstrip("?. ")
    if kind < 0.74:
        return query.lower().rstrip("?. ")
    if kind < 0.82:
        text = rng.choice(_BEFORE) + query
        return text.lower() if rng.random() < 0.3 else text
    if kind < 0.86:
        return query + rng.choice(_AFTER)
    if kind < 0.9:
        return now(query, rng)
    return slip(query, rng) if kind < 0.95 else respelt(query, rng)


def now(query: str, rng: random.Random) -> str:
    """The query with a word that says that it is about the present."""
    if query.endswith("?") and rng.random() < 0.6:
        return f"{query[:-1].rstrip()} {rng.choice(_NOW)}?"
    return f"{rng.choice(_NOW).capitalize()}, {query[0].lower() + query[1:] if query.split()[0] in _STARTS else query}"


def whether(statement: str, rng: random.Random) -> str:
    """A question whether a statement holds."""
    return rng.choice(_WHETHER).format(statement)


def slip(query: str, rng: random.Random) -> str:
    """The query with two letters of a longer word changed round, or one left out or doubled."""
    places = [match for match in re.finditer(r"[A-Za-z]{6,}", query)]
    if not places:
        return query
    place = rng.choice(places)
    word = place.group()
    at = rng.randint(1, len(word) - 3)
    kind = rng.random()
    if kind < 0.4:
        word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    elif kind < 0.7:
        word = word[:at] + word[at + 1 :]
    else:
        word = word[:at] + word[at] + word[at:]
    return query[: place.start()] + word + query[place.end() :]


def respelt(query: str, rng: random.Random) -> str:
    """The query in another spelling that means the same."""
    changes = [
        text
        for text in (
            query.replace(" and ", " & "),
            query.replace(" & ", " and "),
            query.replace("-", " "),
            query.replace(".", ""),
            query.replace("'s", "s"),
            query.replace(" Saint ", " St. ").replace("Mount ", "Mt "),
            query.replace("version ", "v").replace("Version ", "v").replace("number ", "no. "),
            re.sub(r"([A-Za-z]) (\d)", r"\1\2", query),
            re.sub(r"\b(19|20)(\d\d)\b", r"'\2", query),
            query.upper(),
            query.replace("What is", "What's").replace("Who is", "Who's"),
        )
        if text != query
    ]
    return rng.choice(changes or [query])


def numbered(name: str, rng: random.Random) -> str:
    """A name with a number, as editions, rooms, flights and versions have."""
    number = rng.choice([rng.randint(1, 30), rng.randint(100, 999), rng.randint(1950, 2030)])
    return rng.choice(
        (f"{name} {number}", f"{name} {rng.randint(1, 9)}.{rng.randint(0, 12)}", f"{name} No. {number}",
         f"room {number} of {name}", f"section {number} of {name}", f"{name} {rng.choice('ABCX')}{number}",
         f"{name} version {rng.randint(1, 15)}", f"the {rng.randint(1950, 2030)} edition of {name}")
    )  # fmt: skip


def near_name(name: str, names: Sequence[str], rng: random.Random) -> str:
    """Another name that looks much like this one: a number changed, a word changed, added or left out."""
    digits = [i for i, character in enumerate(name) if character.isdigit()]
    if digits and rng.random() < 0.8:
        at = rng.choice(digits)
        kind = rng.random()
        if kind < 0.2 and at + 1 in digits and name[at] != name[at + 1]:
            return name[:at] + name[at + 1] + name[at] + name[at + 2 :]
        if kind < 0.4:
            return name[: at + 1] + rng.choice("0123456789X") + name[at + 1 :]
        return name[:at] + rng.choice([d for d in "123456789" if d != name[at]]) + name[at + 1 :]
    words = name.split()
    for at, word in enumerate(words):
        if at and word in _ROMAN:
            return " ".join([*words[:at], rng.choice([r for r in _ROMAN if r != word]), *words[at + 1 :]])
    kind = rng.random()
    if len(words) > 1 and kind < 0.6:
        at = rng.randrange(len(words))
        if not words[at][0].isupper():
            at = len(words) - 1
        donors = [word for word in rng.choice(names).split() if word[0].isupper() and word not in words]
        if donors:
            return " ".join([*words[:at], rng.choice(donors), *words[at + 1 :]])
    added = rng.choice([word for word in _ADDED if word not in words])
    return f"{added} {name}" if added in _ADDED[:13] and not name.startswith("the ") else f"{name} {added}"


def renamed(prompt: str, query: str, names: Sequence[str], rng: random.Random) -> str | None:
    """The query with a number or a word of a name changed that it shares with the prompt; None where there is none."""
    # a prompt's first word has a capital whatever it is
    rest = prompt.partition(" ")[2]
    shared = [
        (name, match)
        for name in sorted({*_NUMBER.findall(rest), *(name for name in _NAME.findall(rest) if " " in name)})
        if (match := re.search(rf"\b{re.escape(name)}\b", query, re.IGNORECASE))
    ]
    if not shared:
        return None
    name, old = rng.choice([one for one in shared if one[0].isdigit()] or shared)
    new = near_name(name, names, rng)
    # with a word more, the query may still ask the same
    if len(new.split()) > len(name.split()):
        return None
    return query[: old.start()] + (new.lower() if old.group().islower() else new) + query[old.end() :]


def like_letters(name: str, names: Sequence[str], rng: random.Random) -> str:
    """The name that is spelled most like this one among some of `names`; the name itself where there is no other."""
    others = [other for other in rng.sample(names, min(len(names), 60)) if other != name]
    return max(others, key=lambda other: SequenceMatcher(None, name, other).quick_ratio(), default=name)


def task(query: str, subject: str, other: str, rng: random.Random) -> str:
    """A message that holds the query or its subject and asks for something else."""
    words = [word for word in re.findall(r"[a-z]{4,}", query)] or ["question"]
    return rng.choice(_TASKS).format(
        query=query, subject=subject, other=other, language=rng.choice(_LANGUAGES), word=rng.choice(words)
    )


def property_of(prompt: str, subject: str) -> str | None:
    """What a prompt such as "The name of the mother of X is" asks of its subject: "name of the mother"."""
    match = re.fullmatch(rf"The (.+) of {re.escape(subject)} (?:is|are|was|were)", prompt)
    return match[1] if match else None


def forms_of(property_: str, subject: str) -> tuple[str, ...]:
    """Ways to ask a property of a subject."""
    short = re.sub(r"^names? of (?:the )?", "", property_)
    return (
        f"The {property_} of {subject} is",
        f"The name of the {short} of {subject} is",
        f"The {short} of {subject} is",
        f"{subject} {short}",
        f"{subject}'s {short} is",
        f"What is the {property_} of {subject}?",
        f"What is {subject}'s {short}?",
        f"What's the {short} of {subject}?",
        f"Tell me the {property_} of {subject}.",
        f"{short} {subject}",
        f"{subject} {short} is",
    )


_STARTS = {"The", "What", "Who", "Where", "When", "Which", "How", "In", "On", "A", "An", "Tell", "Name"}
