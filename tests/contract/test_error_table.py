"""One closed error table: classes, enum, comments and codes say the same thing."""

import importlib
import pkgutil
import re
from pathlib import Path

import grpc
from google.rpc import code_pb2

import hub
import messagehub
import storage
from messagehub.errors import BY_REASON, TABLE, HubError
from messagehub.v1.error_reason_pb2 import ErrorReason

REPOSITORY = Path(__file__).resolve().parents[2]
PREFIX = "ERROR_REASON_"
UNUSED = "UNSPECIFIED"


def every_error_class() -> set[type[HubError]]:
    """Every subclass of `HubError` that any module of the project defines."""
    for package in (hub, storage, messagehub):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    found: set[type[HubError]] = set()
    waiting = [HubError]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            found.add(kind)
            waiting.append(kind)
    return found


def documented_codes() -> dict[str, str]:
    """Reason to code, as the comments of the contract say them."""
    text = (REPOSITORY / "protos/messagehub/v1/error_reason.proto").read_text("utf-8")
    pattern = re.compile(r"((?:^ +//[^\n]*\n)+) +ERROR_REASON_(\w+) = \d+;", re.MULTILINE)
    codes = {}
    for comment, reason in pattern.findall(text):
        bracketed = re.search(r"// \[([A-Z_]+)\] ", comment)
        codes[reason] = bracketed.group(1) if bracketed else ""
    return codes


def test_every_error_class_has_a_row() -> None:
    assert every_error_class() == set(TABLE)


def test_no_two_classes_share_a_reason() -> None:
    assert len(BY_REASON) == len(TABLE)
    assert {row.reason for row in TABLE.values()} == set(BY_REASON)


def test_the_reasons_are_those_of_the_contract() -> None:
    contract = {name.removeprefix(PREFIX) for name in ErrorReason.keys()}  # noqa: SIM118 - no mapping
    assert contract - {UNUSED} == set(BY_REASON)


def test_every_code_is_one_of_grpc() -> None:
    codes = {row.code for row in TABLE.values()}
    assert codes <= {code.name for code in grpc.StatusCode}
    assert codes <= set(code_pb2.Code.keys())
    assert "OK" not in codes
    assert "UNKNOWN" not in codes


def test_the_comment_of_every_reason_names_the_code_that_it_comes_with() -> None:
    documented = documented_codes()
    assert documented.pop(UNUSED) == ""
    assert documented == {row.reason: row.code for row in TABLE.values()}
