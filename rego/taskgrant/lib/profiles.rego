# METADATA
# title: Helpers for authors of policy
# description: Each is true or undefined, so that `not` of it is the safe side of a denial.
package taskgrant.lib

# METADATA
# title: The profile of a tool; empty when there is none
profile(server, tool) := object.union({}, data.taskgrant.profiles[concat("/", [server, tool])])

profile(server, tool) := {} if not data.taskgrant.profiles[concat("/", [server, tool])]

# METADATA
# title: The entries of an agent's boundary that name a tool
# description: All of them apply together; none means that the tool is outside.
boundary(agent, server, tool) := {entry |
	some entry in data.taskgrant.boundaries[agent]
	entry.server == server
	tool in entry.tools
}

# METADATA
# title: True if the tool is inside the agent's boundary
inside_boundary(agent, server, tool) if count(boundary(agent, server, tool)) > 0

# METADATA
# title: True if a task of this agent may ask for the tool when it has no grant for it
can_ask(agent, server, tool) if {
	profile(server, tool).ask == true
	inside_boundary(agent, server, tool)
}
