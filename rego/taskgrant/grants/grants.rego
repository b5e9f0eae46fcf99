# METADATA
# title: May this task be started, or these grants be added to it?
# description: |
#   Each grant must lie inside the agent's boundary, `data.taskgrant.boundaries[<SPIFFE ID>]`; what exceeds a maximum of it
#   is narrowed. Add `deny` and `ask` rules in files of your own, in this package.
# schemas:
#   - input: schema.grants_input
package taskgrant.grants

import data.taskgrant.lib

# METADATA
# title: The answer to the authority
# description: '`{"decision": "approve" | "ask" | "deny", "code", "grants", "reasons", "approvers"}`'
# entrypoint: true
decision := {
	"decision": "deny",
	"code": min({object.get(one, "code", "denied_by_policy") | some one in deny}),
	"grants": [],
	"reasons": sort({object.get(one, "reason", "policy refuses this") | some one in deny}),
	"approvers": [],
} if {
	count(deny) > 0
}

decision := {
	"decision": "ask",
	"code": "pending_approval",
	"grants": granted,
	"reasons": sort(_notes | {object.get(one, "reason", "a person must approve this") | some one in ask}),
	"approvers": sort(approvers),
} if {
	count(deny) == 0
	count(ask) > 0
}

decision := {
	"decision": "approve",
	"code": "granted",
	"grants": granted,
	"reasons": sort(_notes),
	"approvers": [],
} if {
	count(deny) == 0
	count(ask) == 0
}

# METADATA
# title: The grants that are asked for; those of the task type's template when none are
asked := input.context.grants if count(input.context.grants) > 0

asked := from_template if {
	count(input.context.grants) == 0
	_type != ""
}

asked := [] if {
	count(input.context.grants) == 0
	_type == ""
}

# METADATA
# title: Why the request is refused
# description: 'Each is `{"code": …, "reason": …}`.'
deny contains {"code": "policy_error", "reason": "the policy does not know this version of the input"} if {
	not input.version == 1
}

deny contains {"code": "denied_by_policy", "reason": reason} if {
	not data.taskgrant.boundaries[input.subject.id]
	reason := sprintf("the agent %s has no boundary: it may be given nothing", [input.subject.id])
}

deny contains {"code": "denied_by_policy", "reason": reason} if {
	some tool in _tools
	not lib.inside_boundary(input.subject.id, tool.server, tool.tool)
	reason := sprintf("%s/%s is outside the agent's boundary", [tool.server, tool.tool])
}

deny contains {"code": "denied_by_policy", "reason": reason} if {
	input.context.requested_by == input.subject.id
	some tool in _tools
	not lib.can_ask(input.subject.id, tool.server, tool.tool)
	reason := sprintf("the agent cannot ask for %s/%s itself", [tool.server, tool.tool])
}

deny contains {"code": "denied_by_policy", "reason": "nobody may approve all of these grants; ask for them one by one"} if {
	count(_approver_lists) > 0
	count(approvers) == 0
}

# METADATA
# title: Why a person must approve the request
# description: 'Each is `{"reason": …, "approvers": […]}`. Without `approvers` any approver will do; of several lists those in all of them.'
ask contains {"reason": reason, "approvers": object.get(entry, "approvers", [])} if {
	some tool in _tools
	some entry in lib.boundary(input.subject.id, tool.server, tool.tool)
	entry.approval == "required"
	reason := sprintf("the agent's boundary requires approval for %s/%s", [tool.server, tool.tool])
}

ask contains {"reason": reason, "approvers": object.get(profile, "approvers", [])} if {
	some tool in _tools
	profile := lib.profile(tool.server, tool.tool)
	profile.approval == "required"
	reason := sprintf("%s/%s requires approval", [tool.server, tool.tool])
}

# METADATA
# title: Who may approve, in every list; empty when any approver may
approvers := intersection(_approver_lists) if count(_approver_lists) > 0

approvers := set() if count(_approver_lists) == 0

_approver_lists := {list |
	some one in ask
	list := {each | some each in one.approvers}
	count(list) > 0
}

_tools := {{"server": grant.server, "tool": tool} | some grant in asked; some tool in grant.tools}

# --- inside the boundary ---------------------------------------------------------------------------------------------

# METADATA
# title: The grants as they may be given, in the order asked
# description: '`within` lists the boundary''s own schemas: arguments must satisfy each of them too.'
granted := [object.union(grant, narrowed) |
	some grant in asked
	narrowed := object.union(_limits(grant), {"within": _within(grant)})
]

# All entries of the boundary that name one of the grant's tools apply to the whole grant.
_entries(grant) := {entry |
	some tool in grant.tools
	some entry in lib.boundary(input.subject.id, grant.server, tool)
}

_within(grant) := sort({entry.arguments | some entry in _entries(grant)})

_maxima := {"max_uses": "max_uses", "expires_in": "max_expires_in"}

_limits(grant) := {member: min(values) |
	some member, maximum in _maxima
	limits := {entry[maximum] | some entry in _entries(grant)}
	count(limits) > 0
	values := limits | ({object.get(grant, member, null)} - {null})
} if {
	is_string(grant.server)
}

_notes contains note if {
	some index, grant in asked
	some member, limit in _limits(grant)
	object.get(grant, member, null) != limit
	note := sprintf("grants[%d]: %s is %v, the most that the agent's boundary allows", [index, member, limit])
}

_notes contains note if {
	some index, grant in asked
	count(_within(grant)) > 0
	note := sprintf("grants[%d]: the agent's boundary limits the arguments too", [index])
}
