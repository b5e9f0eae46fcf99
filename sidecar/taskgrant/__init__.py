"""taskgrant: an OPA-backed sidecar that lets an AI agent's tool calls pass only under the grant of its current task."""
