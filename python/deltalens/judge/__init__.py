"""Judges: what reads a completion and says whether it shows the behaviour.

Imports the language-model layer only.
"""

from deltalens.judge.cache import ReplyCache
from deltalens.judge.callable import CallableJudge
from deltalens.judge.chat import ChatModel, ChatReply, ChatRequest, Usage
from deltalens.judge.endpoint import Endpoint
from deltalens.judge.rubric import RubricJudge, read_rubric
from deltalens.judge.scale import ScaleJudge, Thresholds
from deltalens.judge.verdict import EMPTY, Answer, Judge, JudgeError, Outcome, Verdict

__all__ = [
    "EMPTY",
    "Answer",
    "CallableJudge",
    "ChatModel",
    "ChatReply",
    "ChatRequest",
    "Endpoint",
    "Judge",
    "JudgeError",
    "Outcome",
    "ReplyCache",
    "RubricJudge",
    "ScaleJudge",
    "Thresholds",
    "Usage",
    "Verdict",
    "read_rubric",
]
