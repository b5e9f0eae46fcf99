# METADATA
# title: May this call pass?
# description: |
#   A call passes if some grant permits it and nothing denies it. Add `deny` and `oblige` rules in files of your own, in
#   this package. A grant that does not cover the call can be permitted by no rule: the sidecar checks that itself.
# schemas:
#   - input: schema.authz_input
package taskgrant.authz

import data.taskgrant.lib

# METADATA
# title: The grants that permit the call, each with the scopes that its credential needs
permit contains {"grant_id": grant.id, "obligations": {"scopes": object.get(profile, "scopes", [])}} if {
	input.resource.type == "tool"
	some grant in input.context.grants
	grant.server == input.resource.properties.server
	input.resource.id in grant.tools
	grant.state == "active"
	_in_time(grant.expires_at)
	_uses_left(grant.remaining)

	# A grant always has its own schema: one without any was damaged, and must not admit everything.
	count(grant.schemas) > 0
	every schema in grant.schemas {
		json.match_schema(input.resource.properties.arguments, schema)[0] == true
	}
}

permit contains {"grant_id": grant.id, "obligations": {"scopes": []}} if {
	input.resource.type in _without_tool
	some grant in input.context.grants
	grant.server == input.resource.properties.server
	_reaches(grant)
}

# METADATA
# title: Why the call must not pass, whatever permits it
# description: 'Each is `{"code": …, "reason": …}`. The agent reads the reason: never put a value that would pass into it.'
deny contains {"code": "policy_error", "reason": "the policy does not know this version of the input"} if {
	not input.version == 1
}

deny contains {"code": "task_ended", "reason": "the task's deadline has passed"} if not _before_deadline

# METADATA
# title: What the sidecar must do when the call passes, beside what the permit says
# description: 'Each has any of `mask` (JSON pointers into the arguments) and `rate_per_minute`. Masks unite; the lowest rate wins.'
oblige contains {"mask": profile.mask}

oblige contains {"rate_per_minute": profile.max_rate_per_minute}

# METADATA
# title: The profile of the tool that is called; empty when there is none
profile := lib.profile(input.resource.properties.server, input.resource.id)

_without_tool := {"list", "stream", "notice", "answer"}

_now := time.parse_rfc3339_ns(input.context.time)

_before_deadline if _now < time.parse_rfc3339_ns(input.context.task.deadline)

# A call that uses no tool may also begin while the grant's last use is on its way.
_reaches(grant) if _admits(grant)

_reaches(grant) if {
	grant.state == "exhausted"
	_in_time(grant.expires_at)
	grant.in_flight > 0
}

_admits(grant) if {
	grant.state == "active"
	_in_time(grant.expires_at)
	_uses_left(grant.remaining)
}

_in_time(expires_at) if _now < time.parse_rfc3339_ns(expires_at)

_uses_left(null)

_uses_left(remaining) if remaining > 0
