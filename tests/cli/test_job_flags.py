"""job_flags.py: --jobs is a command and the flag of a setting; --job ID and its like take ids."""

from __future__ import annotations

import argparse

import pytest

from tinysvc.cli.job_flags import JobCommand, add_job_flags

ID = "0123456789abcdef" * 2


def parsed(*arguments: str) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="tinysvc", allow_abbrev=False)
    parser.add_argument("target", nargs="?")
    add_job_flags(parser, "the store")
    return vars(parser.parse_args(arguments))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parsed(*arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err.partition("error: ")[2].strip()


@pytest.mark.parametrize(
    ("arguments", "command", "store"),
    [
        ([], None, None),
        (["--jobs"], JobCommand("--jobs", ""), None),
        (["--jobs", "failed"], JobCommand("--jobs", "failed"), None),
        (["--jobs", "other.db"], None, "other.db"),
        (["--jobs", "./failed"], None, "./failed"),
        (["--jobs", "postgresql://host/db"], None, "postgresql://host/db"),
        (["--jobs", "other.db", "--jobs", "failed"], JobCommand("--jobs", "failed"), "other.db"),
        (["--jobs", "other.db", "--job", ID], JobCommand("--job", ID), "other.db"),
        (["--cancel-job", ID.upper()], JobCommand("--cancel-job", ID), None),
        (["--retry-job", ID], JobCommand("--retry-job", ID), None),
    ],
)
def test_commands_and_the_store_are_told_apart(
    arguments: list[str], command: JobCommand | None, store: str | None
) -> None:
    found = parsed("hello.py", *arguments)
    assert (found["target"], found.get("job_command"), found["jobs"]) == ("hello.py", command, store)


def test_file_after_the_flag_is_the_target() -> None:
    found = parsed("--jobs", "hello.py")
    assert (found["jobs_target"], found.get("job_command"), found["jobs"]) == (
        "hello.py",
        JobCommand("--jobs", ""),
        None,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--jobs", "faild"],
            "--jobs takes a state, or a store as in jobs.db or ./faild, not 'faild'; did you mean failed?",
        ),
        (["--job", "12"], "--job takes an id of 32 hexadecimal digits, as --jobs prints it, not '12'"),
        (["--jobs", "--job", ID], "--jobs and --job are two commands; give one of them"),
    ],
)
def test_mistakes_get_a_sentence(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert refusal(capsys, *arguments) == message
