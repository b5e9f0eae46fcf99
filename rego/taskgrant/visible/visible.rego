# METADATA
# title: Which of these tools may this task see?
# schemas:
#   - input: schema.visible_input
package taskgrant.visible

import data.taskgrant.lib

# METADATA
# title: The names of the tools that an active grant of the task names, or that the task can ask for
# entrypoint: true
tools contains tool if {
	some tool in input.resource.properties.tools
	some grant in input.context.grants
	grant.server == input.resource.id
	tool in grant.tools
	grant.state == "active"
	time.parse_rfc3339_ns(input.context.time) < time.parse_rfc3339_ns(grant.expires_at)
}

tools contains tool if {
	some tool in input.resource.properties.tools
	lib.can_ask(input.subject.id, input.resource.id, tool)
}
