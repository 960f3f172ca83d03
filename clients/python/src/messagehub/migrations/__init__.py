"""Directories of migrations: what they hold, and what of it a database still needs.

`directory.load` reads the layouts of goose, dbmate and golang-migrate, and our own; `plan.make`
compares them with what a database says of itself.
"""
