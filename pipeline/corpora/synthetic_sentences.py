"""The sentences of the synthetic corpus: invented templates and word lists, no real quotations.

People, places, things and times are shared by all emotions, so only the rest of a sentence depends
on the emotion; flat sentences fit every emotion. There are no contractions and no punctuation
except the final full stop, so any tokenizer splits them into exactly ``SENTENCE_WORDS``.
"""

import re

import numpy as np

_SLOTS = {
    "person": (
        "my sister", "my brother", "my neighbor", "the manager", "our teacher", "my cousin",
        "the driver", "my aunt", "the nurse", "my roommate", "our coach", "the doctor",
    ),
    "place": (
        "office", "station", "kitchen", "library", "garden", "school", "market", "hotel", "museum",
        "bakery",
    ),
    "thing": (
        "the letter", "the package", "the phone", "the ticket", "the report", "the bicycle",
        "the guitar", "the picture", "the camera", "the watch",
    ),
    "when": ("today", "yesterday", "this morning", "last night", "on monday", "after lunch"),
    "hour": ("seven", "eight", "nine", "ten", "eleven", "noon"),
    "number": ("two", "four", "six", "twelve", "twenty", "thirty"),
    "outrage": ("outrageous", "unfair", "rude", "ridiculous", "disgusting", "unacceptable"),
    "joy": ("wonderful", "lovely", "fantastic", "beautiful", "perfect", "delightful"),
    "sorrow": ("lonely", "hopeless", "empty", "miserable", "lost", "heavy"),
}  # fmt: skip

_TEMPLATES = {
    "angry": (
        "i am sick of the way {person} treats me",
        "{person} lied to my face {when}",
        "how dare {person} touch {thing} without asking",
        "stop shouting at {person} right now",
        "this is {outrage} and i want an apology {when}",
        "{person} ruined {thing} and blamed me for it",
        "i have had enough of {outrage} excuses from {person}",
        "get out of the {place} and leave me alone",
        "i hate it when {person} ignores me",
        "it makes me furious that {person} broke {thing}",
        "do not ever talk to {person} like that",
        "who gave {person} the right to yell at me",
        "{person} was {outrage} to everyone {when}",
    ),
    "happy": (
        "i am so glad that {person} came {when}",
        "what a {joy} surprise from {person}",
        "we won the big prize at the {place} {when}",
        "i love how {joy} the {place} looks {when}",
        "{person} told the funniest joke {when}",
        "we danced and laughed with {person} {when}",
        "thank you so much for {thing}",
        "i passed the exam and {person} hugged me",
        "this is the best news from {person} all year",
        "{person} finally got the dream job at the {place}",
        "we had a {joy} party at the {place}",
        "i cannot wait to celebrate with {person}",
        "{thing} is the most {joy} present ever",
    ),
    "neutral": (
        "the {place} opens at {hour} on weekdays",
        "{person} takes the bus at {hour}",
        "please put {thing} on the second shelf",
        "the meeting at the {place} starts at {hour}",
        "{thing} costs about {number} dollars",
        "turn left after the {place} and walk straight",
        "there are {number} chairs in the {place}",
        "{person} lives on floor {number} near the {place}",
        "the form for {thing} needs a name and an address",
        "{thing} is in the drawer next to the printer",
        "the list has {number} names and {number} numbers",
        "{person} usually parks behind the {place}",
        "the train to the {place} leaves at {hour}",
    ),
    "sad": (
        "i miss {person} every single day",
        "{person} passed away in december",
        "i cried when {person} left the {place}",
        "nothing feels right since {person} moved away",
        "i lost {thing} that grandma gave me",
        "i feel so {sorrow} without {person}",
        "the {place} feels {sorrow} and {sorrow} now",
        "{person} never came to say goodbye",
        "i wish i had said sorry to {person}",
        "it broke my heart to sell {thing} {when}",
        "{person} was in tears {when}",
        "i am too tired to see {person} anymore",
        "we buried the old dog behind the {place}",
    ),
    None: (
        "{person} called me {when}",
        "i just heard about {thing} {when}",
        "i saw {person} at the {place} {when}",
        "you know what {person} said about {thing}",
        "so that is what {person} told me {when}",
        "{person} came back from the {place} {when}",
        "they are waiting for me at the {place}",
        "i was talking to {person} about {thing}",
        "well that is how it went at the {place}",
        "i think {person} already knows about {thing}",
        "we talked about the {place} {when}",
        "it happened at the {place} {when}",
        "look what {person} brought from the {place}",
    ),
}

_SLOT = re.compile(r"\{(\w+)\}")


def sentence(emotion: str | None, rng: np.random.Generator) -> str:
    """Return an invented sentence for ``emotion``; for ``None``, one that fits any emotion."""
    templates = _TEMPLATES[emotion]
    template = templates[rng.integers(len(templates))]
    words = _SLOT.sub(lambda slot: _SLOTS[slot[1]][rng.integers(len(_SLOTS[slot[1]]))], template)
    # The words that English writes with a capital letter inside a sentence.
    words = re.sub(r"\b(i|monday|december)\b", lambda word: word[0].capitalize(), words)
    return words[0].upper() + words[1:] + "."


def _words() -> tuple[str, ...]:
    phrases = [_SLOT.sub(" ", template) for group in _TEMPLATES.values() for template in group]
    phrases += [phrase for slot in _SLOTS.values() for phrase in slot]
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))


SENTENCE_WORDS: tuple[str, ...] = _words()
"""Every word that occurs in a sentence: sorted, lower case, without punctuation."""
