"""taskgrant: an OPA-backed sidecar that lets an AI agent's tool calls pass only under the grant of its current task."""


def version() -> str:
    """The version that is installed."""
    from importlib.metadata import version as installed

    return installed("taskgrant")
