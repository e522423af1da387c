"""Local judges that reason in special tokens before they answer."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from deltalens.judge import Answer, JudgeError, RubricJudge, ScaleJudge
from deltalens.judge.local import LocalChat

SPECIAL = ["<|end|>", "<|start|>", "<|channel|>", "<|message|>", "<think>", "</think>", "<pad>"]
WORDS = [
    "?",
    "<user>",
    "<assistant>",
    "assistant",
    "analysis",
    "final",
    "ANSWER: 5",
    "ANSWER: 1",
    "5",
]
THINKS = ["<think>", "ANSWER: 5", "</think>", "ANSWER: 1", "<pad>"]
HARMONY = [
    *("<|channel|>", "analysis", "<|message|>", "ANSWER: 5", "<|start|>", "assistant"),
    *("<|channel|>", "final", "<|message|>", "ANSWER: 1"),
]
CONTEXT = 32


def scripted(reply, prompt="<user> <assistant>"):
    """A model that answers every prompt with the tokens ``reply``, by their positions alone."""
    vocabulary = {token: number for number, token in enumerate(SPECIAL + WORDS)}
    made = Tokenizer(models.WordLevel(vocabulary, "?"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"eos_token": "<|end|>", "additional_special_tokens": SPECIAL[1:]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="?", **special)
    tokenizer.chat_template = f"{{{{ '{prompt}' }}}}"
    sizes = {"n_embd": CONTEXT, "n_layer": 1, "n_head": 1, "n_positions": CONTEXT}
    config = GPT2Config(vocab_size=len(vocabulary), tie_word_embeddings=False, **sizes)
    config.bos_token_id = config.eos_token_id = 0
    model = GPT2LMHeadModel(config).eval()
    start = len(tokenizer(prompt)["input_ids"]) - 1
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.transformer.ln_f.weight.fill_(1.0)
        model.transformer.wpe.weight.copy_(torch.eye(CONTEXT))
        for step, token in enumerate([*reply, "<|end|>"]):
            model.lm_head.weight[vocabulary[token], start + step] = 1.0
    return LocalChat(model, tokenizer, "scripted")


@pytest.mark.parametrize(
    ("reply", "prompt", "label"),
    [
        (THINKS, "<user> <assistant>", "1"),
        (THINKS[:2], "<user> <assistant>", "UNPARSABLE"),
        (THINKS[1:], "<user> <assistant> <think>", "1"),
        (THINKS[1:2], "<user> <assistant> <think>", "UNPARSABLE"),
        (HARMONY, "<user> <assistant>", "1"),
        (HARMONY[:6], "<user> <assistant>", "UNPARSABLE"),
        (["ANSWER: 1", "<pad>"], "<user> <assistant>", "1"),
    ],
)
def test_the_verdict_is_what_follows_reasoning(reply, prompt, label):
    ((_, verdict),) = RubricJudge(scripted(reply, prompt), max_tokens=16).grade([Answer("q", "a")])
    assert verdict.label == label
    assert "ANSWER" in verdict.raw


@pytest.mark.parametrize(
    ("reply", "prompt"),
    [
        (THINKS, "<user> <assistant>"),
        (HARMONY, "<user> <assistant>"),
        (["ANSWER: 1"], "<user> <assistant> <think>"),
    ],
)
def test_no_score_is_read_off_reasoning(reply, prompt):
    chat = scripted(reply, prompt)
    with pytest.raises(JudgeError, match=r"scripted reasons before it answers.*rubric judge"):
        list(ScaleJudge(chat).grade([Answer("q", "a")]))
