"""Router for heavy traffic, HTTP/2 and gRPC: HAProxy, one process for each service."""
