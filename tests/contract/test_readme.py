"""What the documents tell a user to type, exists."""

import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "clients/python/README.md", "benchmarks/README.md")


def shell_lines(document: str) -> list[str]:
    """The lines of the document's code blocks, indented or fenced, without prompts."""
    text = (REPOSITORY / document).read_text("utf-8")
    fenced = re.findall(
        r"^```(?:sh|bash|shell|console|text)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL
    )
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4}(\S.*)$", outside, re.MULTILINE)
    lines = [line for block in fenced for line in block.splitlines()] + indented
    return [line.strip().removeprefix("$ ") for line in lines]


def inline_code(document: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", (REPOSITORY / document).read_text("utf-8"))


def make_targets() -> set[str]:
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    return set(phony.split())


def named(document: str, command: str) -> set[str]:
    """The first words after a command, wherever the document shows it."""
    found = set()
    for line in shell_lines(document) + inline_code(document):
        found |= set(re.findall(rf"(?:^|[ /;&]){command} ([a-z][a-z-]*)", line))
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_target_that_is_named_exists(document: str) -> None:
    assert named(document, "make") <= make_targets()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_messagehub_command_that_is_named_exists(document: str) -> None:
    from messagehub.cli.main import main

    known = set(main.list_commands(main.make_context("messagehub", [], resilient_parsing=True)))
    assert named(document, "messagehub") <= known


def test_the_readme_shows_how_to_run_and_test() -> None:
    assert {"run", "test"} <= named("README.md", "make")
    assert "adopt" in named("README.md", "messagehub")


def test_the_servers_commands_are_plugged_into_the_command() -> None:
    plugged = {entry.name for entry in entry_points(group="messagehub.commands")}
    assert plugged == {"hub", "storage", "up"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_is_linked_exists(document: str) -> None:
    text = (REPOSITORY / document).read_text("utf-8")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    folder = (REPOSITORY / document).parent
    assert not [link for link in links if not (folder / link).exists()]
