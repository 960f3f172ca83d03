"""What every system is given to keep, so that all of them keep the same bytes."""

VALUE = "message hub " * 8 + "0123"
# The keys that reads are made of.
KEYS = 10_000
CALL_SECONDS = 60.0
SERVICE = "metrics"

INSERT = "INSERT INTO samples (value) VALUES (?)"
READ = "SELECT value FROM items WHERE id = ?"
CREATE_SAMPLES = "CREATE TABLE samples (id INTEGER PRIMARY KEY, value TEXT)"
CREATE_ITEMS = "CREATE TABLE items (id INTEGER PRIMARY KEY, value TEXT)"
# Rows of `items`, as many as the parameter says.
FILL_ITEMS = (
    "INSERT INTO items (id, value) WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n "
    f"LIMIT ?) SELECT i, '{VALUE}' FROM n"
)


def key(number: int) -> int:
    """The key of a read; spread over all keys."""
    return number * 7919 % KEYS
