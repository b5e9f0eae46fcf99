package taskgrant.grants_test

import data.taskgrant.grants

_agent := "spiffe://example.org/agent/researcher"

_ask(task, asked) := {
	"version": 1,
	"subject": {"type": "agent", "id": _agent, "properties": {}},
	"action": {"name": "grants/request"},
	"resource": {"type": "task", "id": "task-1"},
	"context": {
		"time": "2026-01-01T00:00:00Z",
		"task": object.union(
			{"id": "task-1", "type": "", "purpose": "test", "deadline": "2026-01-01T02:00:00Z", "params": {}},
			task,
		),
		"requested_by": "uid:1000",
		"grants": asked,
	},
}

_asked := {"server": "mail", "tools": ["send"], "max_uses": 10, "expires_in": null, "reason": "r"}

_only(entry) := {_agent: [object.union({"server": "mail", "tools": ["send", "read"]}, entry)]}

test_inside_the_boundary if {
	answer := grants.decision with input as _ask({}, [_asked]) with data.taskgrant.boundaries as _only({})
	answer == {
		"decision": "approve",
		"code": "granted",
		"grants": [object.union(_asked, {"within": []})],
		"reasons": [],
		"approvers": [],
	}
}

test_task_without_grants if {
	answer := grants.decision with input as _ask({}, []) with data.taskgrant.boundaries as _only({})
	answer.decision == "approve"
	answer.grants == []
}

test_unknown_agent if {
	answer := grants.decision with input as _ask({}, [_asked])
	answer.decision == "deny"
	answer.code == "denied_by_policy"
	answer.grants == []
}

test_outside_the_boundary if {
	every change in [{"server": "files"}, {"tools": ["send", "purge"]}] {
		answer := grants.decision with input as _ask({}, [_asked, object.union(_asked, change)])
			with data.taskgrant.boundaries as _only({})
		answer.decision == "deny"
		count(answer.reasons) == 1
		contains(answer.reasons[0], "outside the agent's boundary")
	}
}

test_unknown_version if {
	answer := grants.decision with input as object.union(_ask({}, [_asked]), {"version": 2})
		with data.taskgrant.boundaries as _only({})
	answer.code == "policy_error"
}

test_narrowed_to_the_maxima if {
	schema := {"properties": {"to": {"const": "a"}}}
	answer := grants.decision with input as _ask({}, [_asked])
		with data.taskgrant.boundaries as _only({"max_uses": 3, "max_expires_in": 60, "arguments": schema})
	answer.decision == "approve"
	answer.grants == [object.union(_asked, {"max_uses": 3, "expires_in": 60, "within": [schema]})]
	answer.reasons == [
		"grants[0]: expires_in is 60, the most that the agent's boundary allows",
		"grants[0]: max_uses is 3, the most that the agent's boundary allows",
		"grants[0]: the agent's boundary limits the arguments too",
	]
}

test_less_than_the_maxima_stays if {
	answer := grants.decision with input as _ask({}, [_asked]) with data.taskgrant.boundaries as _only({"max_uses": 30})
	answer.grants[0].max_uses == 10
	answer.reasons == []
}

test_every_entry_that_names_a_tool_applies if {
	boundary := {_agent: [
		{"server": "mail", "tools": ["send"], "max_uses": 5},
		{"server": "mail", "tools": ["send"], "max_uses": 2},
		{"server": "mail", "tools": ["read"], "max_uses": 1},
	]}
	answer := grants.decision with input as _ask({}, [_asked]) with data.taskgrant.boundaries as boundary
	answer.grants[0].max_uses == 2
}

test_boundary_requires_approval if {
	answer := grants.decision with input as _ask({}, [_asked])
		with data.taskgrant.boundaries as _only({"approval": "required", "approvers": ["uid:7"]})
	answer.decision == "ask"
	answer.code == "pending_approval"
	answer.approvers == ["uid:7"]
	answer.grants[0].server == "mail"
}

test_profile_requires_approval_by_those_in_every_list if {
	boundaries := _only({"approval": "required", "approvers": ["uid:7", "uid:8"]})
	common := grants.decision with input as _ask({}, [_asked])
		with data.taskgrant.boundaries as boundaries
		with data.taskgrant.profiles as {"mail/send": {"approval": "required", "approvers": ["uid:8", "uid:9"]}}
	common.approvers == ["uid:8"]

	nobody := grants.decision with input as _ask({}, [_asked])
		with data.taskgrant.boundaries as boundaries
		with data.taskgrant.profiles as {"mail/send": {"approval": "required", "approvers": ["uid:9"]}}
	nobody.decision == "deny"

	anyone := grants.decision with input as _ask({}, [_asked])
		with data.taskgrant.boundaries as _only({})
		with data.taskgrant.profiles as {"mail/send": {"approval": "required"}}
	anyone.decision == "ask"
	anyone.approvers == []
}

test_agent_asks_for_itself if {
	own := json.patch(_ask({}, [_asked]), [{"op": "replace", "path": "/context/requested_by", "value": _agent}])
	refused := grants.decision with input as own with data.taskgrant.boundaries as _only({})
	refused.decision == "deny"

	given := grants.decision with input as own
		with data.taskgrant.boundaries as _only({})
		with data.taskgrant.profiles as {"mail/send": {"ask": true}}
	given.decision == "approve"
}

_templates := {"report": [{
	"server": "mail",
	"tools": ["send"],
	"arguments": {"properties": {"to": {"enum": "${params.recipients}"}, "subject": {"const": "${params.subject}"}}},
	"max_uses": 1,
}]}

test_template if {
	params := {"recipients": ["a", "b"], "subject": "s"}
	answer := grants.decision with input as _ask({"type": "report", "params": params}, [])
		with data.taskgrant.boundaries as _only({"max_expires_in": 60})
		with data.taskgrant.templates as _templates
	answer.decision == "approve"
	answer.grants == [{
		"server": "mail",
		"tools": ["send"],
		"arguments": {"properties": {"to": {"enum": ["a", "b"]}, "subject": {"const": "s"}}},
		"max_uses": 1,
		"expires_in": 60,
		"within": [],
	}]
}

test_asked_grants_stand_instead_of_the_template if {
	answer := grants.decision with input as _ask({"type": "report"}, [_asked])
		with data.taskgrant.boundaries as _only({})
		with data.taskgrant.templates as _templates
	answer.grants[0].max_uses == 10
}

test_template_outside_the_boundary if {
	answer := grants.decision with input as _ask({"type": "report", "params": {"recipients": ["a"], "subject": "s"}}, [])
		with data.taskgrant.boundaries as {_agent: []}
		with data.taskgrant.templates as _templates
	answer.decision == "deny"
}

test_template_lacks_a_parameter if {
	answer := grants.decision with input as _ask({"type": "report", "params": {"recipients": ["a"]}}, [])
		with data.taskgrant.boundaries as _only({})
		with data.taskgrant.templates as _templates
	answer.decision == "deny"
	answer.reasons == [`the template for tasks of type "report" needs the parameter "subject"`]
}

test_unknown_type if {
	answer := grants.decision with input as _ask({"type": "reprot"}, [])
		with data.taskgrant.boundaries as _only({})
		with data.taskgrant.templates as _templates
	answer.decision == "deny"
}

test_parameter_inside_a_longer_text if {
	answer := grants.decision with input as _ask({"type": "t", "params": {"x": "y"}}, [])
		with data.taskgrant.boundaries as _only({})
		with data.taskgrant.templates as {"t": [{"server": "mail", "tools": ["send"], "reason": "for ${params.x}"}]}
	answer.decision == "deny"
	answer.code == "policy_error"
}
