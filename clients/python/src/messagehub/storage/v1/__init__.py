"""Generated from `protos/messagehub/storage/v1`; not for services."""
