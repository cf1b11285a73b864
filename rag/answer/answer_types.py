"""What kind of answer a question asks for, and whether a text holds one: dates, numbers, durations, names, places.

A hint for ranking sentences, never a condition: patterns know English wording only, other languages get no hint.
"""

from __future__ import annotations

import re
from typing import Literal

AnswerType = Literal["date", "duration", "share", "number", "person", "place", "reason"]

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_NUMBER_WORD = (
    r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    r"|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundreds?|thousands?|millions?|billions?|dozens?|half"
    r"|twice|once|third|quarter|several|couple|none|no|single|double|both)"
)
_TIME_UNIT = (
    r"(?:seconds?|minutes?|hours?|days?|weeks?|months?|quarters?|years?|decades?|centur(?:y|ies)|nights?|weekends?)"
)
_QUESTIONS: tuple[tuple[AnswerType, str], ...] = (
    (
        "duration",
        rf"\bhow (?:long|old|soon|quickly|fast)\b|\bwhat (?:is the )?(?:duration|period|notice)\b|\bhow much time\b"
        rf"|\bhow many (?:\w+ ){{0,2}}{_TIME_UNIT}\b",
    ),
    (
        "date",
        r"\bwhen\b|\b(?:what|which) (?:year|date|day|month|century|decade|time|period)\b|\bdeadline\b",
    ),
    ("share", r"\bper ?cent|\bwhat (?:share|fraction|proportion|rate)\b"),
    ("number", r"\bhow much\b|\b(?:cost|price|fee|budget|salary|allowance|limit)\b"),
    (
        "number",
        r"\bhow (?:many|often|far|tall|high|large|big|deep|wide|heavy|hot|cold|frequently)\b"
        r"|\bwhat (?:is |was )?(?:the )?(?:number|size|amount|quantity|population|height|length|maximum|minimum)\b",
    ),
    ("person", r"\bwho(?:se|m)?\b"),
    (
        "place",
        r"\bwhere\b|\b(?:what|which) (?:city|country|state|place|location|region|continent|street|building|room"
        r"|address|town|county|area)\b",
    ),
    ("reason", r"\bwhy\b|\bfor what reason\b"),
)
_ANSWERS: dict[AnswerType, re.Pattern[str]] = {
    "date": re.compile(
        rf"\b(?:1\d{{3}}|20\d\d)s?\b|\b{_MONTH}\b|\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b"
        r"|\d\s*(?:a\.?m\.?|p\.?m\.?)\b|\b\d{1,2}:\d\d\b|\bcentury\b|\b(?:bc|ad|bce)\b"
        r"|\b(?:spring|summer|autumn|winter|today|annually|weekly|daily|monthly)\b",
        re.IGNORECASE,
    ),
    "duration": re.compile(
        rf"(?:\d|\b{_NUMBER_WORD}\b)[\w\s.,–-]{{0,14}}?\b{_TIME_UNIT}\b|\buntil\b|\b(?:permanent|indefinite)",
        re.IGNORECASE,
    ),
    "share": re.compile(r"\d\s?(?:%|per ?cent)|\b(?:half|third|quarter|majority)\b", re.IGNORECASE),
    "number": re.compile(rf"\d|\b{_NUMBER_WORD}\b", re.IGNORECASE),
    "person": re.compile(
        r"(?<![.!?]\s)(?<!^)\b[A-Z][\w'’-]+|\b[A-Z]{2,}\b|\b(?:manager|team|director|officer|head|lead|department"
        r"|president|committee|people|men|women|person|employees?|staff|owner|chair\w*|\w+ists?)\b"
    ),
    "place": re.compile(
        r"\b(?:in|at|on|near|from|to|outside|inside|between|within|behind|beside|via|under|along|across|through|of)\s+"
        r"(?:the\s+|its\s+|our\s+|an?\s+)?(?:\w+\s+)?[A-Z]|\b(?:room|floor|building|office|desk|street|page|portal|tab"
        r"|menu|section|site|north|south|east|west\w*|locker|cabinet|basement|lobby|reception|online|intranet)\b"
        r"|https?://|\w@\w"
    ),
    "reason": re.compile(
        r"\b(?:because|due|since|so that|in order to|as a result|therefore|reasons?|caus\w+|thus|owing|led|result\w*"
        r"|to (?:avoid|ensure|prevent|protect|reduce|allow|keep|make))\b",
        re.IGNORECASE,
    ),
}


def asked_type(question: str) -> AnswerType | None:
    """The kind of answer that `question` asks for, `None` when its wording does not say."""
    lowered = question.lower()
    return next((kind for kind, pattern in _QUESTIONS if re.search(pattern, lowered)), None)


def holds_type(kind: AnswerType, text: str, question: str) -> bool:
    """Whether `text` holds something of that kind that the question did not already say."""
    said = question.lower()
    return any(found.group().lower() not in said for found in _ANSWERS[kind].finditer(text))
