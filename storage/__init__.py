"""The storage server: executes what the hub routes to it.

    config     every limit, with its unit and default
    server     the composition root
    api/       the private contract, glue only
    core/      databases, queues, the journal's tail; knows neither gRPC nor an engine
    sqlite/    the engine: one file per database

A write travels api/exchange -> core/database -> sqlite/engine and back with its commit.
"""
