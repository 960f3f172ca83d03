"""`messagehub subscriptions` and the named side of `messagehub events`, against the fake hub."""

import asyncio
import json
import signal

from messagehub.v1.event_service_pb2 import ListSubscriptionsResponse, Subscription
from tests.unit.client.fake_hub import FakeHub, message
from tests.unit.client.test_cli import SECONDS, finish, run_command, start


def named(name: str, service: str, **fields: object) -> Subscription:
    made = Subscription(
        subscription=name,
        source_service=service,
        cursor="cursor-1",
        databases=["character_db"],
        **fields,
    )
    made.lag_duration.FromMilliseconds(1234)
    return made


def known(fake: FakeHub) -> None:
    cut_off = named("audit", "catalog", lag_events=1)
    cut_off.cut_off_time.FromSeconds(1_764_000_000)
    cut_off.acknowledge_time.FromSeconds(1_763_000_000)
    fake.subscriptions["catalog"] = ListSubscriptionsResponse(
        subscriptions=[cut_off, named("shared", "catalog")], unavailable_databases=["auth_db"]
    )
    fake.subscriptions["character"] = ListSubscriptionsResponse(
        subscriptions=[
            named("billing", "character", lag_events=12, active=True, consumer="worker-1"),
            named("shared", "character", active=True),
        ]
    )


async def test_all_services_subscriptions_are_listed(fake: FakeHub) -> None:
    known(fake)
    for arguments in (["subscriptions"], ["subscriptions", "list"]):
        status, output, errors = await run_command(*arguments, "--target", fake.address)
        assert status == 0
        heading, *lines = output.splitlines()
        assert heading.split() == [
            "SUBSCRIPTION",
            "SERVICE",
            "STATE",
            "LAG",
            "WAITING",
            "DATABASES",
            "ACKNOWLEDGED",
        ]
        billing, shared, audit, other = lines
        assert "read by worker-1" in billing
        assert "12 events  1.2 s" in billing
        assert billing.endswith("never")
        assert "  read  " in shared
        assert "CUT OFF at 20" in audit
        assert "1 event " in audit
        assert "not read" in other
        assert "auth_db" in errors


async def test_one_services_subscriptions_are_listed_for_programs(fake: FakeHub) -> None:
    known(fake)
    status, output, errors = await run_command(
        "subscriptions", "--json", "--service", "character", "--target", fake.address
    )
    assert (status, errors) == (0, "")
    billing, shared = [json.loads(line) for line in output.splitlines()]
    assert (billing["subscription"], billing["lag_events"]) == ("billing", "12")
    assert (billing["lag_duration"], billing["active"]) == ("1.234s", True)
    assert shared["subscription"] == "shared"


async def test_a_subscription_is_deleted_for_the_service_that_has_it(fake: FakeHub) -> None:
    known(fake)
    status, output, errors = await run_command(
        "subscriptions", "delete", "audit", "--target", fake.address
    )
    assert (status, output, errors) == (0, "audit of catalog is deleted\n", "")
    assert fake.requests[-1].source_service == "catalog"
    assert fake.requests[-1].subscription == "audit"


async def test_nothing_is_deleted_by_guessing(fake: FakeHub) -> None:
    known(fake)
    delete = ("subscriptions", "delete", "--target", fake.address)
    status, _, errors = await run_command(*delete, "nobody")
    assert (status, "SUBSCRIPTION_NOT_FOUND" in errors) == (1, True)
    status, _, errors = await run_command(*delete, "shared")
    assert (status, "--service" in errors) == (1, True)
    assert not any(type(one).__name__.startswith("Delete") for one in fake.requests)
    status, _, _ = await run_command(*delete, "shared", "--service", "character")
    assert status == 0
    assert fake.requests[-1].source_service == "character"


async def test_events_go_on_for_a_name_and_acknowledge_what_was_printed(fake: FakeHub) -> None:
    waiting = asyncio.Event().wait()
    fake.subscribe.append([message(cursor="cursor-0"), message(1, 2), waiting])
    process = await start(
        *("events", "--subscription", "billing", "--acknowledge", "--service", "character"),
        *("--target", fake.address),
    )
    assert process.stdout is not None
    async with asyncio.timeout(SECONDS):
        for _ in range(2):
            assert b"storage.operation_completed" in await process.stdout.readline()
        while not fake.acknowledged:  # noqa: ASYNC110 - the fake has no event for it
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    status, _, errors = await finish(process)
    assert (status, errors) == (0, "")
    assert fake.acknowledged == [("cursor-2", ())]
    assert fake.requests[0].subscription == "billing"


async def test_only_a_name_is_acknowledged(fake: FakeHub) -> None:
    status, _, errors = await run_command("events", "--acknowledge", "--target", fake.address)
    assert status == 2
    assert "--subscription" in errors
