"""Generated from `protos/messagehub/v1`: the public contract of the hub."""
