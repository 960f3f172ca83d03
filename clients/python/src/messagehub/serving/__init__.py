"""What the processes of the hub and of the storage server share; services do not need it.

configuration   messagehub.toml, then MESSAGEHUB_*, then flags, into one checked structure
interceptor     the first hop of every call: size, correlation id, deadline, errors
health          grpc.health.v1, told by the process
logs            one line per fact, with the correlation id of the call
process         start, serve until SIGTERM or Ctrl-C, drain, stop
failpoints      where a fault test makes the process die or stall
supervision     tell the supervisor, if there is one, and do not outlive it
"""
