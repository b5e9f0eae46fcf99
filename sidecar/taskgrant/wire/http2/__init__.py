"""HTTP/2 (RFC 9113) towards the agent: each stream is one exchange of the pipeline."""
