"""Options from a file are options of the command line, value by value, and say what is wrong."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path

import pytest
import yaml

from deltalens.cli import judging
from deltalens.cli.config.document import COMMAND, DIRECTORY, INPUTS, Config, read_config
from deltalens.cli.config.names import HERE, given_values, options_of, subcommand, subcommands
from deltalens.cli.config.parse import parse, parse_config
from deltalens.cli.main import build_parser, main
from deltalens.errors import InputError
from helpers.command_line import error_line

COMMANDS = sorted(subcommands(build_parser()))
REPLAYING = {"merge", "rerun", "help", "completion"}
NEEDED = {
    "ablate": ["run"],
    "attribute": ["--model", "m", "--sae", "s", "--pairs", "p", "--baseline", "zero", "--out", "o"],
    "baseline": ["--model", "m", "--site", "3", "--texts", "t", "--out", "o"],
    "check-sae": ["--model", "m", "--sae", "s"],
    "compare": ["a", "b"],
    "completion": ["bash"],
    "delta-activation": ["--model", "m", "--sae", "s", "--out", "o"],
    "demo": [],
    "detect": ["run", "--graded", "g"],
    "doctor": [],
    "examples": ["--model", "m", "--sae", "s", "--texts", "t", "--all"],
    "export": ["run", "--format", "csv", "--out", "o"],
    "help": [],
    "interpret": ["run"],
    "lens": ["--model", "m", "--sae", "s", "--latents", "3", "4"],
    "merge": ["o"],
    "pairs": ["--out", "o"],
    "plan": ["--tokens", "5"],
    "report": ["run"],
    "rerun": ["run"],
    "show-examples": ["d", "3", "4"],
    "steer": ["run"],
    "survey": [
        "a=p",
        "b",
        "--model",
        "m",
        "--sae",
        "x=s",
        "y=s",
        "--baseline",
        "zero",
        "--out",
        "o",
    ],
    "tokens": ["run"],
}


def values(args: argparse.Namespace) -> dict[str, object]:
    return {name: value for name, value in vars(args).items() if name != "config"}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_command_is_given_comes_back_from_its_configuration(command, tmp_path):
    """Every default, too, so that none may be one that its own type refuses."""
    parser = build_parser()
    args = parser.parse_args([command, *NEEDED[command]])
    found = given_values(subcommand(parser, command), args, HERE)
    path = tmp_path / "c.yaml"
    path.write_text(Config(command, Path.cwd(), found).text(), encoding="utf-8")
    again = parse_config(parser, "c.yaml", read_config(path))
    assert values(again) == values(args)


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - REPLAYING))
def test_each_takes_a_configuration_whose_names_are_its_own(command):
    parser = subcommand(build_parser(), command)
    assert any("--config" in action.option_strings for action in parser._actions)
    names = list(options_of(parser))
    actions = [action for action in parser._actions if action.dest not in HERE]
    assert len(names) == len(actions)
    assert not {COMMAND, DIRECTORY, INPUTS} & set(names)


def test_values_of_every_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(
        "model: m\nsae: [a, b]\nsite: [12, blocks.3.hook_mlp_out]\npairs: p.jsonl\nout: o\n"
        "baseline: zero\npresent-only: true\nsave-scores: false\nsink-norm: 2.5\nk: 7\n"
        "chat-template-kwargs: {enable_thinking: false, depth: 3}\nalign:\n"
    )
    words = "--model m --sae a b --site 12 blocks.3.hook_mlp_out --pairs p.jsonl --out o"
    words += " --baseline zero --present-only --sink-norm 2.5 -k 7"
    words += " --chat-template-kwargs enable_thinking=false depth=3"
    expected = build_parser().parse_args(["attribute", *words.split()])
    assert values(parsed("attribute", "--config", "c.yaml")) == values(expected)


def parsed(*argv: str) -> argparse.Namespace:
    args = argparse.Namespace()
    parse(build_parser(), argv, args)
    return args


def written(folder: Path, **options: object) -> str:
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump({name.replace("_", "-"): v for name, v in options.items()}))
    return str(path)


def test_the_command_line_goes_before_the_file_option_by_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = written(tmp_path, run="r", sets=["push", "cosine"], top=3, both_ways=True, seed=1)
    found = parsed("steer", "--config", config, "--sets", "present", "--seed=2")
    assert (found.sets, found.top, found.seed, found.both_ways) == (["present"], 3, 2, True)
    rival = parsed("steer", "--against", "base", "--config", config)
    assert (rival.against, rival.both_ways) == ("base", False)


def test_arguments_on_the_command_line_stand_in_the_place_of_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = written(tmp_path, pairs=["a", "b"], model="m", sae=["s"], baseline="zero", out="o")
    assert parsed("survey", "--config", config).pairs == ["a", "b"]
    for argv in (["c", "d", "--config", config], ["--config", config, "c", "d"]):
        assert parsed("survey", *argv).pairs == ["c", "d"]


def test_paths_start_where_they_were_written(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "model").mkdir()
    monkeypatch.chdir(here)
    config = written(there, model="model", sae="org/repo", pairs="p.jsonl", baseline="zero")
    found = parsed("attribute", "--config", config, "--out", "o", "--model", "model")
    assert Path.cwd() == there
    assert (found.pairs, found.out) == (Path("p.jsonl"), here / "o")
    assert (found.model, found.sae) == (str(here / "model"), ["org/repo"])
    monkeypatch.chdir(here)
    config = written(there, directory="..", pairs="p.jsonl", run="r")
    parsed("detect", "--config", written(there, directory="..", run="r", graded="g"))
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tokens: x", "argument --tokens: invalid positive_int value: 'x'"),
        ("tokens: 0", "must be at least 1, got 0"),
        ("n_latents: 3", "'n_latents' is no option of plan (is n-latents meant?)"),
        ("form: tokn", "invalid choice: 'tokn'"),
        ("measure: 1", "measure is 1; it is true or false"),
        ("tokens: [1, 2]", "tokens is a list; it takes one value"),
        ("tokens: {a: 1}", "tokens is a mapping"),
        ("tokens: true", "tokens is True; it takes a value"),
        ("sae: 3", "sae is 3; it takes text (in quotes"),
        ("sae-part: 2024-01-01", "sae-part is datetime.date(2024, 1, 1); it takes text"),
        ("sae: 'a\\0b'", None),
        ('sae: "a\\0b"', "which no argument can be"),
        ('sae: "\\uD800"', "which no argument can be"),
        ("tokens: 3\ntokens: 4", "'tokens' is there twice; leave one out"),
        ("command: attribute", "is a configuration of 'attribute', and the command is plan"),
        ("directory: nowhere", "its paths start from 'nowhere', which is no directory here"),
        ("config: other.yaml", "'config' is no option of plan"),
        ("json: true\nshard: 0/2", "'shard' is no option of plan"),
        ("[tokens]", "no mapping of options' names to values"),
        ("3: 4", "no mapping of options' names to values"),
        ("a: &a [*a]", "YAML whose aliases repeat too much"),
        ("{", "not YAML"),
        ("", "no mapping"),
        ("tokens: !!python/object:os.system x", "not YAML"),
        ("inputs: [a]", "inputs a mapping"),
        ("#" * (1 << 20) + "\ntokens: 1", "more than 1 MiB"),
    ],
)
def test_what_is_wrong_is_one_line(text, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(text, encoding="utf-8")
    argv = ["plan", "--config", "c.yaml", "--tokens", "3", "--n-latents", "9", "--d-model", "8"]
    if said is None:
        assert main([*argv, "--sae", "nowhere"]) == 2
        return
    line = error_line(capsys, argv)
    assert said in line
    assert "c.yaml" in line


def test_a_file_that_is_not_there_is_one_line(tmp_path, capsys):
    line = error_line(capsys, ["plan", "--config", str(tmp_path / "c.yaml")])
    assert "cannot be read (No such file or directory)" in line


def test_required_options_may_come_from_either(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = written(tmp_path, tokens=5)
    with pytest.raises(SystemExit, match="2"):
        main(["completion"])
    assert parsed("plan", "--config", config).tokens == 5
    with pytest.raises(SystemExit, match="2"):
        parsed("plan", "--config", written(tmp_path, k=3))
    assert "arguments are required: --tokens" in capsys.readouterr().err


def test_defaults_that_the_parser_repeats_are_the_librarys():
    import deltalens
    from deltalens.examples.options import ExampleOptions
    from deltalens.judge.endpoint import KEY_ENV

    assert judging.KEY_ENV == KEY_ENV
    parser = build_parser()
    attribute = inspect.signature(deltalens.attribute).parameters
    args = parser.parse_args(["attribute", *NEEDED["attribute"]])
    assert (args.check, args.flips) == (attribute["check"].default, attribute["flips"].default)
    args = parser.parse_args(["examples", *NEEDED["examples"]])
    names = ("top", "bins", "per_bin", "before", "after", "seed")
    assert [getattr(args, name) for name in names] == [
        getattr(ExampleOptions(), name) for name in names
    ]


def test_a_number_that_python_will_not_print_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("tokens: 0x" + "f" * 9000)
    with pytest.raises(InputError, match="a number of 36000 bits"):
        parsed("plan", "--config", str(path))
