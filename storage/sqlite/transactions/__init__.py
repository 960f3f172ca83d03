"""Parts of transactions in a SQLite file: run with a recorded clock, prepared, run again."""
