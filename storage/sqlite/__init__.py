"""The SQLite engine: one file per database.

engine       the port of the core, put together
connection   the one door to aiosqlite; the settings of a connection and why
ownership    one process per file, by an OS lock
writer       group commit: operations, outcomes and journal in one transaction
reader       statements and pages on read-only connections
journal      the journal's tables and statements
guard        what a caller's SQL may do, enforced by SQLite's authorizer
statements   running one statement: parameters, rows, limits
declarations the declared types of result columns
values       values in and out, exactly
failures     SQLite's errors as ours
"""
