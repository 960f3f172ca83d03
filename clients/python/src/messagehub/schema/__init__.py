"""What hub, storage server and client must agree on about schemas: versions, ranges, scripts."""
