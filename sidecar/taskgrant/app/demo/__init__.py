"""``taskgrant demo``: an agent gets access for one task, uses it, oversteps, is refused, loses it. All is real.

======================= ==========================================================================
``toolserver``          a tool server of the ``mcp`` package: tickets, mail, files, a slow export
``stage``               the processes: tool server, guard, sidecar with OPA; and their end
``story``               the steps: what is done, what is expected, what was seen
======================= ==========================================================================
"""


def run() -> int:
    """Plays the demo. Answers the exit code: 0 when everything that was seen is what was expected."""
    from taskgrant.app.demo.story import play

    return play()
