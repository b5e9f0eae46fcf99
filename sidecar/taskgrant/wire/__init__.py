"""Bytes on the wire: listeners, TLS and HTTP framing."""
