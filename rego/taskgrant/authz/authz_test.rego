package taskgrant.authz_test

import data.taskgrant.authz

_agent := "spiffe://example.org/agent/researcher"

_schema := {"type": "object", "properties": {"to": {"type": "string", "enum": ["a@example.org"]}}, "additionalProperties": false, "required": ["to"]}

_nothing := {"type": "object", "properties": {}, "additionalProperties": false}

_grant := {
	"id": "grant-1",
	"server": "mail",
	"tools": ["send"],
	"schemas": [_schema],
	"state": "active",
	"expires_at": "2026-01-01T01:00:00.000000Z",
	"max_uses": 2,
	"used": 0,
	"in_flight": 0,
	"remaining": 2,
}

_call(grants) := {
	"version": 1,
	"subject": {"type": "agent", "id": _agent, "properties": {}},
	"action": {"name": "tools/call", "properties": {"protocol": "mcp", "version": "2025-11-25"}},
	"resource": {
		"type": "tool",
		"id": "send",
		"properties": {"server": "mail", "arguments": {"to": "a@example.org"}, "meta": {}, "params": {}, "headers": {}},
	},
	"context": {
		"time": "2026-01-01T00:00:00Z",
		"task": {"id": "task-1", "type": "", "purpose": "test", "deadline": "2026-01-01T02:00:00Z", "params": {}},
		"grants": grants,
		"calls": 0,
		"request": {},
	},
}

_with(changes) := object.union(_grant, changes)

_injected(grants) := json.patch(_call(grants), [{
	"op": "replace",
	"path": "/resource/properties/arguments",
	"value": {"to": "x@evil.example"},
}])

_listing(grants) := json.patch(_call(grants), [
	{"op": "replace", "path": "/resource/type", "value": "list"},
	{"op": "replace", "path": "/resource/id", "value": "tools/list"},
])

_past := "2025-12-31T23:59:59Z"

# name → call, expected code
_cases := {
	"granted": {"call": _call([_grant]), "code": "granted"},
	"unlimited uses": {"call": _call([_with({"max_uses": null, "remaining": null})]), "code": "granted"},
	"no grants": {"call": _call([]), "code": "no_grant"},
	"other server": {"call": _call([_with({"server": "files"})]), "code": "no_grant"},
	"other tool": {"call": _call([_with({"tools": ["read"]})]), "code": "no_grant"},
	"no schema": {"call": _call([_with({"schemas": []})]), "code": "arguments_refused"},
	"injected": {"call": _injected([_grant]), "code": "arguments_refused"},
	"injected, pending": {"call": _injected([_with({"state": "pending"})]), "code": "arguments_refused"},
	"injected, over": {"call": _injected([_with({"state": "expired"})]), "code": "no_grant"},
	"second ancestor refuses": {"call": _call([_with({"schemas": [_schema, _nothing]})]), "code": "arguments_refused"},
	"past its end": {"call": _call([_with({"expires_at": _past})]), "code": "grant_expired"},
	"at its end": {"call": _call([_with({"expires_at": "2026-01-01T00:00:00Z"})]), "code": "grant_expired"},
	"expired": {"call": _call([_with({"state": "expired"})]), "code": "grant_expired"},
	"exhausted": {"call": _call([_with({"state": "exhausted", "remaining": 0})]), "code": "uses_exhausted"},
	"nothing left": {"call": _call([_with({"remaining": 0})]), "code": "uses_exhausted"},
	"pending": {"call": _call([_with({"state": "pending"})]), "code": "pending_approval"},
	"revoked": {"call": _call([_with({"state": "revoked"})]), "code": "revoked"},
	"rejected": {"call": _call([_with({"state": "rejected"})]), "code": "no_grant"},
	"one of two": {"call": _call([_with({"state": "revoked"}), _with({"id": "grant-2"})]), "code": "granted"},
	"most telling": {
		"call": _call([_with({"state": "revoked"}), _with({"id": "grant-2", "state": "pending"})]),
		"code": "pending_approval",
	},
	"list": {"call": _listing([_with({"tools": ["read"]})]), "code": "granted"},
	"list, last use in flight": {
		"call": _listing([_with({"state": "exhausted", "remaining": 0, "in_flight": 1})]),
		"code": "granted",
	},
	"list, exhausted": {"call": _listing([_with({"state": "exhausted", "remaining": 0})]), "code": "uses_exhausted"},
	"list, expired": {"call": _listing([_with({"expires_at": _past})]), "code": "grant_expired"},
	"list, other server": {"call": _listing([_with({"server": "files"})]), "code": "no_grant"},
	"unknown kind": {
		"call": json.patch(_call([_grant]), [{"op": "replace", "path": "/resource/type", "value": "session"}]),
		"code": "no_grant",
	},
	"unknown version": {
		"call": json.patch(_call([_grant]), [{"op": "replace", "path": "/version", "value": 2}]),
		"code": "policy_error",
	},
	"past the deadline": {
		"call": json.patch(_call([_grant]), [{"op": "replace", "path": "/context/task/deadline", "value": _past}]),
		"code": "task_ended",
	},
}

test_codes[name] if {
	some name, case in _cases
	answer := _answer(case.call)
	answer.code == case.code
	_consistent(answer)
}

# A function, since each case needs an evaluation of its own: in a loop OPA keeps what it found for the first input.
_answer(call) := answer if answer := authz.decision with input as call

_consistent(answer) if {
	answer.code == "granted"
	answer.allow == true
	answer.reasons == []
	is_string(answer.grant_id)
}

_consistent(answer) if {
	answer.code != "granted"
	answer.allow == false
	count(answer.reasons) == 1
	answer.grant_id == null
}

test_chosen_expires_first_then_lower_id if {
	grants := [
		_with({"id": "grant-3", "expires_at": "2026-01-01T00:30:00Z"}),
		_grant,
		_with({"id": "grant-2", "expires_at": "2026-01-01T00:30:00Z"}),
	]
	answer := authz.decision with input as _call(grants)
	answer.grant_id == "grant-2"
}

test_obligations_merge_one_way if {
	profile := {"scopes": ["mail.send"], "max_rate_per_minute": 30, "mask": ["/to"]}
	answer := authz.decision with input as _call([_grant]) with data.taskgrant.profiles as {"mail/send": profile}
	answer.obligations == {"scopes": ["mail.send"], "mask": ["/to"], "rate_per_minute": 30}
}

test_no_profile_no_obligations if {
	answer := authz.decision with input as _call([_grant])
	answer.obligations == {"scopes": [], "mask": [], "rate_per_minute": null}
}

test_can_ask_only_inside_the_boundary_and_for_no_grant if {
	profiles := {"mail/send": {"ask": true, "approvers": ["uid:7"]}}
	inside := {_agent: [{"server": "mail", "tools": ["send"]}]}
	asked := authz.decision with input as _call([])
		with data.taskgrant.profiles as profiles
		with data.taskgrant.boundaries as inside
	asked.elevate == {"server": "mail", "tool": "send", "approvers": ["uid:7"]}

	outside := authz.decision with input as _call([]) with data.taskgrant.profiles as profiles
	outside.elevate == null

	injected := authz.decision with input as _injected([_grant])
		with data.taskgrant.profiles as profiles
		with data.taskgrant.boundaries as inside
	injected.elevate == null

	unaskable := authz.decision with input as _call([]) with data.taskgrant.boundaries as inside
	unaskable.elevate == null
}

test_miss_names_what_failed if {
	answer := authz.decision with input as _injected([
		_grant,
		_with({"id": "grant-2", "server": "files"}),
		_with({"id": "grant-3", "tools": ["read"], "state": "revoked", "expires_at": _past, "remaining": 0}),
		_with({"id": "grant-4", "schemas": [_nothing]}),
	])
	answer.miss["grant-1"] == ["arguments/to: enum"]
	answer.miss["grant-2"] == ["server"]
	answer.miss["grant-3"] == ["expires_at", "remaining", "state", "tools"]
	answer.miss["grant-4"] == ["arguments: additional_property_not_allowed"]
}

test_denial_overrides_with_its_code if {
	denials := {{"code": "frozen", "reason": "not now"}, "no object"}
	answer := authz.decision with input as _call([_grant]) with authz.deny as denials
	not answer.allow
	answer.code == "denied_by_policy"
	answer.reasons == ["not now", "policy refuses this call"]
	answer.grant_id == null
}

test_foreign_permit_chooses_nothing if {
	answer := authz.decision with input as _call([])
		with authz.permit as {{"grant_id": "grant-9", "obligations": {"scopes": []}}}
	not answer.allow
}
