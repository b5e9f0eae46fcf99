"""gRPC over HTTP/2, sans I/O: methods of a server's descriptors ↔ calls, answers, denials."""
