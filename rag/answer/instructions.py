"""Text in a document that speaks to the machine that reads it: no evidence for anything.

A model that was talked into something can cite the very sentence that did it, and every word of its answer then
stands in the passage. So what looks like an instruction to a model is blanked before the model gets the passage, and
before its sentences are held against it. This is a net under the checks, not one of them: it knows common English
wordings. The built-in answerer obeys nothing and needs none of it, so a handbook on this very subject stays
answerable.
"""

from __future__ import annotations

import re
from dataclasses import replace

from rag.answer.sentences import Span
from rag.answer.units import Unit, split_units
from rag.passages import Passage

LONGEST_LINE = 400
"""A line up to this length is blanked as a whole when a part of it is an instruction."""

_TO_A_MODEL = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b[^.\n]{0,40}\b(?:previous|prior|above|earlier|preceding|other|all"
    r"|your|system)\b[^.\n]{0,20}\b(?:instruction|prompt|rule|message|guideline|direction|context)s?\b"
    r"|\bsystem prompt\b|\b(?:note|message|notice|instruction)s?:? (?:for|to) (?:all )?(?:the )?(?:language|AI)\b"
    r"|\banswering systems?\b|<\|?\w+\|>|\[/?INST\]"
    r"|(?:^|[>-]\s*)(?:assistant|system)\s*:\s+\S|\bwhen(?:ever)? you (?:answer|reply|respond)\b"
    r"|\b(?:in|to|begin|end|start|finish|into|of) (?:(?:every|each|your|all) (?:answer|reply|response)s?|the answer)\b"
    r"|\b(?:reply|respond|answer) (?:only|solely|exactly) with\b|\bfrom now on\b[^.\n]{0,40}\b(?:you|answer|reply)\b"
    r"|\byou (?:are|act as|must act as)(?: now)?(?: an?)? (?:AI|assistant|chatbot|DAN)\b|\bdo anything now\b"
    r"|\b(?:include|insert|print|output|repeat|append|write) (?:the|this) (?:string|token|phrase)\b"
    r"|\bdecode the following\b|\bdo what it says\b|\bdo not mention this\b|\btenant filter\b",
    re.IGNORECASE,
)


def is_instruction(text: str) -> bool:
    """Whether a text looks as if it were written for a language model."""
    return _TO_A_MODEL.search(text) is not None


def without_instructions(passage: Passage) -> Passage:
    """The passage with blanks, character for character, where it speaks to a model; offsets stay as they are."""
    text = passage.text
    for unit in split_units(text):
        if is_instruction(text[unit.start : unit.end]):
            for start, end in _spans(text, unit):
                text = text[:start] + " " * (end - start) + text[end:]
    return replace(passage, text=text)


def _spans(text: str, unit: Unit) -> list[Span]:
    """The lines of the unit that give the order, whole if they are short; all its lines if none does by itself."""
    first = text.rfind("\n", 0, unit.start) + 1
    last = text.find("\n", unit.end)
    lines = [
        (first + match.start(), first + match.end())
        for match in re.finditer(r"[^\n]+", text[first : last if last >= 0 else len(text)])
    ]
    orders = [(start, end) for start, end in lines if is_instruction(text[start:end])] or lines
    return [
        (start, end) if end - start <= LONGEST_LINE else (max(start, unit.start), min(end, unit.end))
        for start, end in orders
    ]
