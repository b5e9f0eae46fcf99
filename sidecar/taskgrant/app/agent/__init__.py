"""``taskgrant run-agent``: an agent in a network namespace of its own, out of which only the sidecar leads.

run     on the host: checks, starts the stage, hands signals on, answers the agent's exit code
stage   root in the new namespaces: rules, veth pair, the sidecar, then the agent
init    process 1 of the agent's PID namespace: the agent's command, unprivileged
"""
