"""The hub: routes every storage operation to its database, streams events, tells how all stands.

    server.py    composition root: builds adapters, core and servicers, starts and stops them;
                 guaranteed_delivery.py builds the inbox and its delivery
    api/         one servicer per public service: check, translate, one call into the core
    core/        the decisions, free of gRPC and protobuf: routes, router, status
    adapters/    the storage server behind the ports that the core declares

DESIGN.md says what is guaranteed and why it is built this way.
"""
