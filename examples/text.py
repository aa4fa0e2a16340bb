"""Facts about a text. Try: curl --data-binary @README.md http://127.0.0.1:8000/text"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Annotated

from tinysvc import Header, Request, cpu_route, io_route

COMPARED = 500
"""Paragraphs that are compared with each other: at most 125,000 pairs."""

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
_EMPTY_LINE = re.compile(r"\n\s*\n")
_SYLLABLE = re.compile(r"[aeiouy]+")


@dataclass
class Pair:
    """Two paragraphs, named by their first words. Similarity 1: the same words in the same proportions."""

    similarity: float
    first: str
    second: str


@dataclass
class Facts:
    words: int
    distinct: int
    most_common: dict[str, int]
    reading_ease: float | None
    paragraphs: int
    most_similar: list[Pair]


@io_route("/")
async def usage(request: Request, host: Annotated[str, Header()] = "127.0.0.1:8000") -> str:
    """The curl command, in one line."""
    return f"Send a text: curl --data-binary @FILE http://{host}{request.path}\n"


@cpu_route("/", methods=["POST"], timeout=10.0)
def facts(body: bytes) -> Facts:
    """Word counts, reading ease and the most similar paragraphs of a text.

    The comparison of paragraphs takes time, so it runs in a worker. After ten seconds the job is stopped.
    """
    text = body.decode("utf-8-sig", errors="replace")
    words = words_of(text)
    counts = Counter(words)
    paragraphs = [paragraph.strip() for paragraph in _EMPTY_LINE.split(text) if paragraph.strip()]
    return Facts(
        words=len(words),
        distinct=len(counts),
        most_common=dict(counts.most_common(10)),
        reading_ease=reading_ease(text, words),
        paragraphs=len(paragraphs),
        most_similar=most_similar(paragraphs),
    )


def words_of(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def reading_ease(text: str, words: list[str]) -> float | None:
    """Flesch's formula for English: 100 is easy, 0 is hard. None for a text without words."""
    if not words:
        return None
    sentences = max(1, len(_SENTENCE_END.findall(text)))
    syllables = sum(map(syllables_of, words))
    return round(206.835 - 1.015 * len(words) / sentences - 84.6 * syllables / len(words), 1)


def syllables_of(word: str) -> int:
    """The number of vowel groups, without the silent e of "made", but with the e of "table"."""
    silent = word.endswith("e") and not word.endswith("le")
    return max(1, len(_SYLLABLE.findall(word)) - silent)


def most_similar(paragraphs: list[str], count: int = 3) -> list[Pair]:
    """The pairs of paragraphs whose word counts have the highest cosine similarity."""
    vectors = ((paragraph, Counter(words_of(paragraph))) for paragraph in paragraphs)
    compared = [(text, vector, _length(vector)) for text, vector in islice(vectors, COMPARED) if vector]
    pairs = (
        Pair(round(_dot(one, other) / (length * other_length), 3), beginning(text), beginning(other_text))
        for (text, one, length), (other_text, other, other_length) in combinations(compared, 2)
    )
    return sorted((pair for pair in pairs if pair.similarity > 0), key=lambda pair: -pair.similarity)[:count]


def _length(vector: Counter[str]) -> float:
    return math.sqrt(sum(count * count for count in vector.values()))


def _dot(one: Counter[str], other: Counter[str]) -> int:
    return sum(count * other[word] for word, count in one.items() if word in other)


def beginning(paragraph: str, width: int = 60) -> str:
    line = " ".join(paragraph[: 4 * width].split())
    return line if len(line) <= width else line[: width - 1] + "…"
