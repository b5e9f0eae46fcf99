"""The composition of every part into one running sidecar."""
