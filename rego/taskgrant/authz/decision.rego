package taskgrant.authz

import data.taskgrant.lib

# METADATA
# title: The answer to the sidecar
# description: |
#   `{"allow", "code", "reasons", "grant_id", "elevate", "obligations", "miss"}`. Of several permits the grant that expires
#   first is chosen, then the lower id: the same question always has the same answer.
# entrypoint: true
decision := {
	"allow": true,
	"code": "granted",
	"reasons": [],
	"grant_id": _chosen,
	"elevate": null,
	"obligations": {
		"scopes": sort({scope | some one in permit; one.grant_id == _chosen; some scope in one.obligations.scopes}),
		"mask": sort({pointer | some one in oblige; some pointer in one.mask}),
		"rate_per_minute": _rate,
	},
	"miss": {},
} if {
	count(deny) == 0
}

decision := {
	"allow": false,
	"code": _code,
	"reasons": sort(_reasons),
	"grant_id": null,
	"elevate": _elevate,
	"obligations": {},
	"miss": miss,
} if {
	not _passes
}

# METADATA
# title: For each grant, what about the call it does not cover
# description: 'Names of the grant''s members, and for arguments `arguments<JSON pointer>: <keyword>`. For people, never for the agent.'
miss[grant.id] := found if {
	some grant in input.context.grants
	found := _misses(grant)
	count(found) > 0
}

_passes if {
	count(deny) == 0
	_chosen
}

_chosen := min({[time.parse_rfc3339_ns(grant.expires_at), grant.id] |
	some one in permit
	some grant in input.context.grants
	grant.id == one.grant_id
})[1]

default _rate := null

_rate := min({one.rate_per_minute | some one in oblige})

# --- why not ---------------------------------------------------------------------------------------------------------

default _code := "no_grant"

_code := min(_deny_codes) if {
	count(deny) > 0
} else := [code | some code in _telling; code in _gaps][0] if {
	count(deny) == 0
}

# A denial without a code of its own is `denied_by_policy`; a code that would let the call be asked for is no denial's.
_deny_codes := {code | some one in deny; code := object.get(_object(one), "code", "denied_by_policy")}

_object(value) := value if is_object(value)

_object(value) := {} if not is_object(value)

_reasons := {reason | some one in deny; reason := object.get(_object(one), "reason", "policy refuses this call")} if {
	count(deny) > 0
} else := {_sentences[_code]}

# Most telling first.
_telling := ["pending_approval", "uses_exhausted", "grant_expired", "revoked", "arguments_refused"]

_sentences := {
	"pending_approval": "a grant for this call waits for approval",
	"uses_exhausted": "the grant for this call has no uses left",
	"grant_expired": "the grant for this call has expired",
	"revoked": "the grant for this call was revoked",
	"arguments_refused": "this task may use the tool, but not with these arguments",
	"no_grant": "nothing in this task grants this call",
}

# A grant that is over counts only if it would have covered these very arguments, else it is as good as absent.
_gaps contains _over(grant) if {
	input.resource.type == "tool"
	some grant in input.context.grants
	_names_tool(grant)
	_satisfied(grant)
}

_gaps contains "arguments_refused" if {
	input.resource.type == "tool"
	some grant in input.context.grants
	_names_tool(grant)
	not _satisfied(grant)
	_awaited(grant)
}

_gaps contains _over(grant) if {
	input.resource.type in _without_tool
	some grant in input.context.grants
	grant.server == input.resource.properties.server
}

_names_tool(grant) if {
	grant.server == input.resource.properties.server
	input.resource.id in grant.tools
}

_satisfied(grant) if {
	count(grant.schemas) > 0
	every schema in grant.schemas {
		json.match_schema(input.resource.properties.arguments, schema)[0] == true
	}
}

_awaited(grant) if _admits(grant)

_awaited(grant) if _over(grant) == "pending_approval"

_over(grant) := "revoked" if {
	grant.state == "revoked"
} else := "grant_expired" if {
	grant.state == "expired"
} else := "grant_expired" if {
	not _in_time(grant.expires_at)
} else := "no_grant" if {
	grant.state == "rejected"
} else := "pending_approval" if {
	grant.state == "pending"
} else := "uses_exhausted" if {
	not _admits(grant)
}

# --- what can be done about it ---------------------------------------------------------------------------------------

default _elevate := null

_elevate := {
	"server": input.resource.properties.server,
	"tool": input.resource.id,
	"approvers": sort(object.get(profile, "approvers", [])),
} if {
	_code == "no_grant"
	count(deny) == 0
	input.resource.type == "tool"
	lib.can_ask(input.subject.id, input.resource.properties.server, input.resource.id)
}

# --- for people ------------------------------------------------------------------------------------------------------

_misses(grant) := ["server"] if grant.server != input.resource.properties.server

_misses(grant) := sort(((_missed_tool(grant) | _missed_life(grant)) | _missed_arguments(grant))) if {
	grant.server == input.resource.properties.server
}

_missed_tool(grant) := {"tools" | input.resource.type == "tool"; not input.resource.id in grant.tools}

_missed_life(grant) := ({"state" | not grant.state == "active"} | {"expires_at" | not _in_time(grant.expires_at)}) | {"remaining" | not _uses_left(grant.remaining)}

_missed_arguments(grant) := {text |
	input.resource.type == "tool"
	input.resource.id in grant.tools
	some schema in grant.schemas
	some fault in json.match_schema(input.resource.properties.arguments, schema)[1]
	text := sprintf("arguments%s: %s", [_pointer(fault), fault.type])
}

_pointer(fault) := "" if fault.field == "(Root)"

_pointer(fault) := concat("/", array.concat([""], split(fault.field, "."))) if fault.field != "(Root)"
