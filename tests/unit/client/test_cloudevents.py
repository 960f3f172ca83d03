"""Events as CloudEvents and back, also through the `cloudevents` package where it is installed."""

import json

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.struct_pb2 import NULL_VALUE
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from messagehub.cloudevents import from_cloudevent, to_cloudevent
from messagehub.errors import InvalidRequest
from messagehub.v1 import event_pb2
from messagehub.v1.event_pb2 import Event
from messagehub.v1.statement_pb2 import ResultSet, Row, Statement, Value


def event(kind="character.levelled_up", **fields):
    made = Event(
        id="character_db/0f/7",
        source="character",
        type=kind,
        subject="character_db",
        correlation_id="c",
        transaction_id="t",
        sequence=7,
        **fields,
    )
    made.time.FromJsonString("2026-11-23T15:16:17.123456Z")
    return made


def failure():
    status = status_pb2.Status(code=9, message="no")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="R", metadata={"a": "b"}))
    return status


VALUES = [
    Value(integer=2**63 - 1),
    Value(integer=-(2**63)),
    Value(real=0.1),
    Value(real=float("inf")),
    Value(blob=bytes(range(256))),
    Value(text="ä\n\x00😀"),
    Value(boolean=False),
    Value(null=NULL_VALUE),
]
TYPED = {
    "storage.operation_completed": {
        "operation_completed": event_pb2.OperationCompleted(
            request_id="r",
            query="INSERT …",
            rows_affected=2**60,
            result=ResultSet(rows=[Row(values=VALUES)]),
        )
    },
    "storage.operation_failed": {
        "operation_failed": event_pb2.OperationFailed(request_id="r", error=failure())
    },
    "storage.operation_request": {
        "operation_request": event_pb2.OperationRequest(statement=Statement(query="SELECT 1"))
    },
    "storage.schema_updated": {"schema_updated": event_pb2.SchemaUpdated(to_version="1.2.0")},
    "schema.update_requested": {"schema_updated": event_pb2.SchemaUpdated(to_version="1.2.0")},
    "schema.update_started": {"schema_updated": event_pb2.SchemaUpdated()},
    "schema.update_completed": {"schema_updated": event_pb2.SchemaUpdated(checksum="ab")},
    "schema.update_failed": {"schema_updated": event_pb2.SchemaUpdated(error=failure())},
    "storage.schema_request": {"schema_request": event_pb2.SchemaRequest()},
    "storage.backup_completed": {"backup_finished": event_pb2.BackupFinished(databases=["a"])},
    "storage.backup_failed": {"backup_finished": event_pb2.BackupFinished(error=failure())},
    "storage.backup_request": {"backup_request": event_pb2.BackupRequest(databases=["a"])},
    "storage.circuit_opened": {"circuit_changed": event_pb2.CircuitChanged(failures=3)},
    "storage.circuit_half_opened": {"circuit_changed": event_pb2.CircuitChanged(cause="x")},
    "storage.circuit_closed": {"circuit_changed": event_pb2.CircuitChanged()},
    "storage.failed_over": {"failed_over": event_pb2.FailedOver(to_storage_server="b")},
    "transaction.committed": {
        "transaction_finished": event_pb2.TransactionFinished(databases=["a", "b"])
    },
    "transaction.rolled_back": {
        "transaction_finished": event_pb2.TransactionFinished(error=failure())
    },
}


def through_json(cloudevent):
    return json.loads(json.dumps(cloudevent, allow_nan=False))


def test_attributes_have_the_names_of_cloudevents():
    made = event(custom=b'{"level": 2}', data_content_type="application/json")
    assert to_cloudevent(made) == {
        "specversion": "1.0",
        "id": "character_db/0f/7",
        "source": "character",
        "type": "character.levelled_up",
        "subject": "character_db",
        "time": "2026-11-23T15:16:17.123456Z",
        "correlationid": "c",
        "transactionid": "t",
        "sequence": "7",
        "datacontenttype": "application/json",
        "data": {"level": 2},
    }


def test_what_is_empty_is_absent():
    bare = Event(id="i", source="s", type="a.b")
    cloudevent = to_cloudevent(bare)
    assert cloudevent == {"specversion": "1.0", "id": "i", "source": "s", "type": "a.b"}
    assert from_cloudevent(cloudevent) == bare


def test_every_payload_of_the_contract_is_tested():
    fields = {field for payload in TYPED.values() for field in payload}
    oneof = Event.DESCRIPTOR.oneofs_by_name["data"]
    assert fields == {field.name for field in oneof.fields} - {"custom"}


@pytest.mark.parametrize("kind", TYPED)
def test_typed_payloads_come_back_as_they_were(kind):
    made = event(kind, data_content_type="application/protobuf", **TYPED[kind])
    cloudevent = to_cloudevent(made)
    assert cloudevent["datacontenttype"] == "application/json"
    assert isinstance(cloudevent["data"], dict)
    assert from_cloudevent(through_json(cloudevent)) == made


def test_a_payload_with_an_unknown_detail_travels_as_protobuf():
    status = status_pb2.Status(code=2)
    status.details.append(AnyMessage(type_url="type.googleapis.com/no.such.Message", value=b"x"))
    made = event(
        "storage.operation_failed",
        data_content_type="application/protobuf",
        operation_failed=event_pb2.OperationFailed(error=status),
    )
    cloudevent = to_cloudevent(made)
    assert cloudevent["datacontenttype"] == "application/protobuf"
    assert from_cloudevent(through_json(cloudevent)) == made


@given(
    st.binary(max_size=100) | st.text().map(str.encode),
    st.sampled_from(["", "text/plain", "text/plain; charset=utf-8", "image/png", "x"]),
)
def test_published_bytes_come_back_as_they_were(content, content_type):
    made = event(custom=content, data_content_type=content_type)
    assert from_cloudevent(through_json(to_cloudevent(made))) == made


def test_published_text_is_text():
    made = event(custom="ä".encode(), data_content_type="text/plain")
    assert to_cloudevent(made)["data"] == "ä"


@pytest.mark.parametrize("content_type", ["application/json", "application/vnd.x+json; v=1"])
@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_published_json_comes_back_as_the_same_document(content_type, document):
    made = event(custom=json.dumps(document).encode(), data_content_type=content_type)
    cloudevent = through_json(to_cloudevent(made))
    assert cloudevent["data"] == document
    back = from_cloudevent(cloudevent)
    assert json.loads(back.custom) == document
    back.custom = made.custom
    assert back == made


@pytest.mark.parametrize(
    "content", [b"", b"{", b"NaN", b"\xff", b"[" * 200_000, b"-Infinity"], ids=range(6)
)
def test_what_only_claims_to_be_json_travels_as_bytes(content):
    made = event(custom=content, data_content_type="application/json")
    cloudevent = through_json(to_cloudevent(made))
    assert "data_base64" in cloudevent
    assert from_cloudevent(cloudevent) == made


def test_json_with_half_a_character_survives():
    made = event(custom=b'"\\ud800"', data_content_type="application/json")
    assert from_cloudevent(to_cloudevent(made)) == made


GOOD = to_cloudevent(event(custom=b"1", data_content_type="application/json"))


@pytest.mark.parametrize(
    ("changes", "attribute"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"id": ""}, "id"),
        ({"source": None}, "source"),
        ({"type": 7}, "type"),
        ({"subject": 7}, "subject"),
        ({"datacontenttype": 7}, "datacontenttype"),
        ({"time": "yesterday"}, "time"),
        ({"time": 7}, "time"),
        ({"sequence": 7}, "sequence"),
        ({"sequence": "-7"}, "sequence"),
        ({"sequence": "9223372036854775808"}, "sequence"),
        ({"sequence": "9" * 100}, "sequence"),
        ({"dataschema": "x"}, "dataschema"),
        ({"partitionkey": "x"}, "partitionkey"),
        ({"data_base64": "AA=="}, "data_base64"),
        ({"data": {1, 2}}, "data"),
        ({"data": float("nan")}, "data"),
        ({"data": 7, "datacontenttype": "text/plain"}, "data"),
        ({"type": "transaction.committed", "data": {"nonsense": 1}}, "data"),
        ({"type": "transaction.committed", "data": 7}, "data"),
    ],
)
def test_what_no_event_can_hold_is_refused_by_attribute(changes, attribute):
    with pytest.raises(InvalidRequest) as refusal:
        from_cloudevent(GOOD | changes)
    assert list(refusal.value.fields) == [attribute]


@pytest.mark.parametrize("text", ["?", "AA", 7, None])
def test_bad_base64_is_refused(text):
    bad = {name: value for name, value in GOOD.items() if name != "data"}
    with pytest.raises(InvalidRequest) as refusal:
        from_cloudevent(bad | {"data_base64": text})
    assert list(refusal.value.fields) == ["data_base64"]


PUBLISHED = {
    "json": event(custom=b'{"a":[1,"x"]}', data_content_type="application/json"),
    "text": event(custom="ä".encode(), data_content_type="text/plain"),
    "bytes": event(custom=b"\x00\xff", data_content_type="image/png"),
    "nothing": event(),
}


@pytest.mark.parametrize(
    "made",
    [
        *PUBLISHED.values(),
        *(event(k, data_content_type="application/protobuf", **TYPED[k]) for k in TYPED),
    ],
    ids=[*PUBLISHED, *TYPED],
)
def test_the_cloudevents_package_reads_and_writes_them(made):
    formats = pytest.importorskip("cloudevents.core.formats.json", reason="not installed")
    document = json.dumps(to_cloudevent(made)).encode()
    understood = formats.JSONFormat().read(None, document)
    assert understood.get_id() == made.id
    assert understood.get_type() == made.type
    assert understood.get_source() == made.source
    assert understood.get_subject() == made.subject
    assert understood.get_time() == made.time.ToDatetime(understood.get_time().tzinfo)
    assert understood.get_extension("sequence") == "7"
    assert understood.get_extension("correlationid") == "c"
    if made.WhichOneof("data") == "custom" and made.data_content_type == "image/png":
        assert understood.get_data() == made.custom
    written = formats.JSONFormat().write(understood)
    assert from_cloudevent(json.loads(written)) == made
