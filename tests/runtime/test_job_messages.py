"""job_messages.py: each message arrives as it was sent, beside those of calls."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tinysvc.pool.frames import Answer, Question, answer_decoder, encode, worker_decoder
from tinysvc.runtime.cpu_messages import MESSAGE_TYPES
from tinysvc.runtime.job_messages import JobAnswer, ProgressReport, SaveRequest


@pytest.mark.parametrize(
    "question", [ProgressReport(0.5, {"loss": [1, None]}), ProgressReport(None, {}), SaveRequest()]
)
def test_question_arrives_as_it_was_sent(question: Any) -> None:
    decode = worker_decoder(MESSAGE_TYPES.result, MESSAGE_TYPES.question)
    assert decode(encode(Question(3, question))) == Question(3, question)


@pytest.mark.parametrize("answer", [JobAnswer(), JobAnswer("stale", "cancelled"), None])
def test_answer_arrives_as_it_was_sent(answer: Any) -> None:
    assert answer_decoder(MESSAGE_TYPES.answer)(encode(Answer(answer))) == Answer(answer)


@pytest.mark.parametrize("question", [None, [], [1, "half", {}], [1, 0.5, []], [2, 1], [3]], ids=repr)
def test_question_of_another_form_is_refused(question: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        worker_decoder(MESSAGE_TYPES.result, MESSAGE_TYPES.question)(encode([11, 1, question]))
