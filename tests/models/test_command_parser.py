"""models/command_parser.py: the words of the commands, and what a wrong one is told."""

from __future__ import annotations

import pytest

from tinysvc.models.command_parser import COMMANDS, options_of, parser


def error_of(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        options_of(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_common_options_stand_before_and_after_the_command() -> None:
    before = options_of(["--models", "a", "--json", "list", "churn"])
    assert before == options_of(["list", "churn", "--models", "a", "--json"])
    assert (before["models"], before["json"], before["models_keys"]) == ("a", True, None)


def test_meta_data_are_json_or_text() -> None:
    given = ["--meta", "auc=0.91", "--meta", "note=a=b", "--meta", 'tags=["x"]', "--meta", "empty="]
    assert options_of(["publish", "churn", "out", *given])["meta"] == [
        ("auc", 0.91),
        ("note", "a=b"),
        ("tags", ["x"]),
        ("empty", ""),
    ]


def test_defaults() -> None:
    assert options_of(["gc"]) == {
        "command": "gc",
        "models": None,
        "models_keys": None,
        "json": False,
        "keep": 10,
        "older_than": 86_400.0,
        "dry_run": False,
    }
    assert options_of(["alias", "churn", "production", "8", "--if", "0"])["expected"] == 0
    assert options_of(["rollback", "churn", "production"])["expected"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["lst"], "lst is no command; did you mean list?"),
        (["xyzzy"], "xyzzy is no command; it knows list, show, publish, alias, rollback, verify, gc, import"),
        (["publish"], "the following arguments are required: NAME, PATH"),
        (["publish", "churn@7", "out"], "the name of an artifact is expected, without a version, not 'churn@7'"),
        (["publish", "a/b", "out"], "the name of an artifact begins with"),
        (["publish", "churn", "out", "--alias", "7"], "an alias begins with a letter"),
        (["publish", "churn", "out", "--meta", "auc"], "KEY=VALUE is expected, as in auc=0.91, not 'auc'"),
        (["show", "churn@"], "an alias begins with a letter"),
        (["alias", "churn", "production", "-1"], "VERSION"),
        (["alias", "churn", "production", "8", "--if", "staging"], "the number of a version is expected, as in 7, or"),
        (["gc", "--keep", "0"], "a whole number from 1 is expected, not '0'"),
        (["gc", "--older-than", "a day"], "seconds are expected, as in 3600, not 'a day'"),
        (["gc", "--older-than", "nan"], "seconds are expected"),
        (["list", "--jso"], "unrecognized arguments: --jso"),
    ],
)
def test_wrong_words_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in error_of(*arguments, capsys=capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_usage_has_the_arguments_of_the_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options_of([command, "--help"])
    usage, _, described = capsys.readouterr().out.partition("\n\n")
    arguments = described.partition("positional arguments:")[2].partition("options:")[0].splitlines()
    names = [line.split()[0] for line in arguments if line.startswith("  ") and line[2] != " "]
    words = usage.partition(f"{command} ")[2].removesuffix("[OPTION ...]").replace(" ...", "").split()
    assert [name in word for name, word in zip(names, words, strict=True)] == [True] * len(names)


def test_help_shows_each_command_with_an_example() -> None:
    text = parser().format_help()
    for command, about in COMMANDS.items():
        assert about.split(",")[0] in " ".join(text.split())
        assert f"python -m tinysvc.models {command}" in text
