"""The inbox on disk: one SQLite file in the data directory of its one hub."""
