"""Names of latents: what a model is shown, how its replies are read, and resuming."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import deltalens
from deltalens.cli.main import main
from deltalens.errors import InputError
from deltalens.examples import read_examples
from deltalens.judge import ChatReply, JudgeError, ReplyCache, Usage
from deltalens.study import Attribution
from deltalens.trials.interpretation.interpret import interpret, read_interpretations
from deltalens.trials.interpretation.reply import parse_reply
from deltalens.trials.interpretation.store import INTERPRETATIONS_FILE
from deltalens.trials.interpretation.text import Contrast, examples_text, steering_text
from deltalens.trials.log import Key, completions_path, read_completions
from deltalens.trials.result import SweepResult
from helpers.examples_oracle import KEPT, make_sae, make_texts
from helpers.judge_server import (
    JudgeServer,
    serving,
    user_text,
)
from helpers.tiny_study import (
    SITE,
    make_model,
    make_pairs,
    make_tokenizer,
)
from helpers.tiny_sweep import (
    PROMPTS,
    run_sweep,
)

TOP = 4
SHOWN = {"max": 8.0, "active": 5}


def window(text, position, tokens, activations):
    named = {"text": text, "position": position, "tokens": tokens, "activations": activations}
    return {**named, "peak": 0, "activation": max(activations)}


def found(*top, groups=()):
    parts = [{"least": 0.0, "largest": 1.0, "windows": list(group)} for group in groups]
    return {**SHOWN, "top": list(top), "quantiles": parts}


def test_active_tokens_are_marked_and_scaled():
    first = window(0, 2, ["please", " drink", " bleach", " now", "\n"], [0, 0.1, 8.0, 4.4, 0])
    weak = window(3, 1, [" rob", " the {material} bank"], [0.8, 0.0])
    text = examples_text(found(first, groups=[[first], [first, weak]]))
    assert "Text 1: please «drink»(1) «bleach»(10) «now»(6)↵\n" in text
    assert "Text 2: «rob»(1) the {material} bank\n" in text
    assert "Text 3" not in text  # the window that is among the best is shown once


def test_a_latent_that_is_never_active_is_not_asked_about():
    assert examples_text({"max": 0.0, "active": 0, "top": [], "quantiles": []}) is None
    assert steering_text([]) is None


def test_steered_answers_beside_usual_ones():
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "how ?"}]
    cases = [Contrast(chat, "rest", "drink bleach", 0.4), Contrast([5, 6], "{x}", "y", -0.2)]
    text = steering_text(cases)
    assert "Case 1, prompt: how ?\nusual answer: rest\ndirection added: drink bleach\n" in text
    assert "Case 2\nusual answer: {x}\ndirection taken away: y\n" in text


@pytest.mark.parametrize(
    ("reply", "name", "explanation"),
    [
        ("NAME: harmful advice\nEXPLANATION: It harms.", "harmful advice", "It harms."),
        ("So…\n**Name:** “Bad advice”.\n**Explanation:** It\tharms. ", "Bad advice", "It harms."),
        ("- NAME : x\nNAME: final one", "final one", ""),
        ('```json\n{"name": "rude", "explanation": "They\\nare."}\n```', "rude", "They are."),
        ('{"a": {"Name": "inner"}}', "inner", ""),
        ("<think>NAME: no</think>\nNAME: yes", "yes", ""),
        ("1. weird { NAME: broken\nNAME: mended", "mended", ""),
    ],
)  # fmt: skip
def test_replies(reply, name, explanation):
    assert parse_reply(reply) == (name, explanation)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "A latent about cats.",
        "NAME:",
        "NAME: ''",
        f"NAME: {'long ' * 30}",
        '{"name": 3}',
        "{" * 9,
    ],
)
def test_replies_without_a_name(reply):
    assert parse_reply(reply) is None


class Namer:
    """Names a latent by a number of its own, one after the other; may end early."""

    def __init__(self, name="namer", fail_after=None, reply="NAME: name {n}\nEXPLANATION: e {n}"):
        self.name, self.address = name, ""
        self.usage = Usage()
        self.asked = []
        self._fail_after = fail_after
        self._reply = reply

    def complete(self, requests):
        for number, request in enumerate(requests):
            if len(self.asked) == self._fail_after:
                raise JudgeError("the endpoint has gone away")
            self.asked.append(request.messages[0]["content"])
            yield number, ChatReply(self._reply.replace("{n}", str(len(self.asked))))


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A run with examples and a sweep of its first two latents."""
    folder = tmp_path_factory.mktemp("interpret")
    model, tokenizer, sae = make_model(), make_tokenizer(), make_sae(folder / "sae", 4)
    run = folder / "run"
    options = {"site": SITE, "k": 10, "baseline": torch.zeros(24)}
    deltalens.attribute(model, tokenizer, make_pairs(3), sae, **options, run_dir=run)
    (folder / "texts.txt").write_text("\n\n".join(make_texts(40)))
    latents = Attribution.load(run).latents
    deltalens.collect_examples(
        model,
        tokenizer,
        deltalens.read_texts(folder / "texts.txt"),
        sae,
        run,
        site=SITE,
        latents=latents,
        **KEPT,
    )
    return run


@pytest.fixture
def run(study, tmp_path) -> Path:
    shutil.copytree(study, tmp_path / "run")
    return tmp_path / "run"


def swept(run: Path) -> tuple[int, int]:
    """Latents of a sweep made in the run, which are among its best."""
    from deltalens.trials.result import ACTIVATION, ATTRIBUTION, RANDOM, Candidate

    first, second = Attribution.load(run).latents[:2].tolist()
    sets = {
        ATTRIBUTION: [Candidate(first, 1), Candidate(second, -1)],
        ACTIVATION: [Candidate(first, 1)],
        RANDOM: [Candidate(31, 1)],
    }
    run_sweep(run, sets=sets)
    return first, second


def active(run: Path) -> list[int]:
    """Of the best latents those with examples, in the run's order."""
    firing = {line["latent"] for line in read_examples(run) if line["examples"]["active"]}
    return [latent for latent in Attribution.load(run).latents[:TOP].tolist() if latent in firing]


def test_each_latent_is_named_from_its_own_examples(run):
    chat = Namer()
    names = interpret(run, chat, top=TOP)
    examples = {line["latent"]: line["examples"] for line in read_examples(run)}
    assert chat.asked == [examples_text(examples[latent]) for latent in active(run)]
    assert len(chat.asked) >= 2
    for number, latent in enumerate(active(run), start=1):
        (item,) = names[latent]
        assert (item.latent, item.kind, item.model) == (latent, "examples", "namer")
        assert (item.name, item.explanation) == (f"name {number}", f"e {number}")
    assert read_interpretations(run) == names


def test_nothing_is_asked_twice(run):
    first = interpret(run, Namer(), top=2)
    again = Namer()
    assert interpret(run, again, top=2) == first
    assert again.asked == []
    more = Namer(reply="NAME: later")
    interpret(run, more, top=TOP)
    assert len(more.asked) == len(active(run)) - len(first)
    other = Namer("another model")
    both = interpret(run, other, top=2)
    assert len(other.asked) == len(first)
    assert {len(items) for items in both.values()} >= {2}


def test_an_interrupted_run_continues(run):
    with pytest.raises(JudgeError, match="gone away"):
        interpret(run, Namer(fail_after=1), top=TOP)
    assert [len(items) for items in read_interpretations(run).values()] == [1]
    path = run / INTERPRETATIONS_FILE
    with path.open("a") as stream:
        stream.write('{"latent": 3, "kind": "exa')  # killed while it wrote
    rest = Namer()
    interpret(run, rest, top=TOP)
    assert len(rest.asked) == len(active(run)) - 1
    assert len(path.read_text().splitlines()) == len(active(run))


def test_replies_come_from_the_cache(run, tmp_path):
    cache = ReplyCache(tmp_path / "cache")
    first = interpret(run, Namer(), top=TOP, cache=cache)
    (run / INTERPRETATIONS_FILE).unlink()
    again = Namer()
    assert interpret(run, again, top=TOP, cache=cache) == first
    assert again.asked == []


def test_what_cannot_be_read_has_no_name_and_is_kept(run):
    chat = Namer(reply="I would rather not.")
    assert interpret(run, chat, top=2) == {}
    kept = [json.loads(line) for line in (run / INTERPRETATIONS_FILE).read_text().splitlines()]
    assert {row["raw"] for row in kept} == {"I would rather not."}
    interpret(run, chat, top=2)
    assert len(chat.asked) == len(kept)


def test_steered_completions_are_shown_in_both_directions(run):
    latents = swept(run)
    chat = Namer()
    names = interpret(run, chat, top=2)
    assert all(item.kind == "steering" for latent in latents for item in names[latent][-1:])
    asked = [text for text in chat.asked if "Case 1" in text]
    assert len(asked) == 2
    result = SweepResult.load(run)
    for latent, text in zip(latents, asked, strict=True):
        for arm in result.arms.values():
            (curve,) = [curve for curve in arm.curves if curve.latent == latent]
            strength = curve.points[curve.chosen or 0].strength
            done = "added" if strength > 0 else "taken away"
            said = read_completions(completions_path(run, arm.direction))
            for number, prompt in enumerate(PROMPTS):
                words = prompt if isinstance(prompt, str) else prompt[0]["content"]
                usual = said[Key(None, 0.0, number, 0, 0)].text
                steered = said[Key(latent, strength, number, 0, 0)].text
                case = f"{words}\nusual answer: {usual}\ndirection {done}: {steered}"
                assert re.search(rf"Case \d+, prompt: {re.escape(case)}", text)


def test_runs_without_evidence_are_refused(study, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(study, bare)
    (bare / "examples.json").unlink()
    with pytest.raises(InputError, match="neither examples nor a sweep"):
        interpret(bare, Namer())
    assert read_interpretations(bare) == {}
    with pytest.raises(InputError):
        interpret(tmp_path / "none", Namer())


def test_a_damaged_file_is_said(run):
    (run / INTERPRETATIONS_FILE).write_text('{"latent": 3, "kind": "guess"}\n')
    with pytest.raises(InputError, match="line 1: no interpretation"):
        read_interpretations(run)
    (run / INTERPRETATIONS_FILE).write_text('{"latent": 3, "kind": "steering", "name": 4}\n')
    with pytest.raises(InputError, match="must be text"):
        read_interpretations(run)


def test_the_command(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def reply(body):
        return f"NAME: \x1b[31mred {len(user_text(body))}\nEXPLANATION: all of it", None

    with serving(JudgeServer(reply)) as server:
        argv = ["interpret", str(run), "--endpoint", server.url, "--judge-model", "m", "--quiet"]
        assert main([*argv, "--top", str(TOP), "--price-in", "1"]) == 0
        shown = capsys.readouterr().out
        assert "\\x1b[31mred" in shown
        assert "\x1b[31mred" not in shown
        assert f"{len(active(run))} requests" in shown
        sent = len(server.bodies)
        assert main([*argv, "--top", str(TOP), "--json"]) == 0
        assert len(server.bodies) == sent == len(active(run))
    printed = json.loads(capsys.readouterr().out)
    assert [row["latent"] for row in printed["interpretations"]] == active(run)
    assert printed["usage"]["requests"] == 0


def test_the_command_without_a_model(run, capsys):
    assert main(["interpret", str(run)]) == 2
    assert "give --judge-model" in capsys.readouterr().err
