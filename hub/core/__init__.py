"""The decisions of the hub; payloads pass through unseen, gRPC and protobuf stay outside."""
