package taskgrant.egress_test

import data.taskgrant.egress

_rules := {"api.example": {
	"allow": [
		{"methods": ["POST"], "paths": ["/v1/messages"]},
		{"methods": ["GET"], "paths": ["/v1/models", "/files/**"], "task_types": ["research"]},
	],
	"members": ["model", "tools", "mcp_servers"],
	"hosted_tools": ["web_search_20250305"],
	"connectors": ["mcp.example", "connector_mail"],
}}

_task := {"id": "task-1", "type": "", "purpose": "p", "deadline": "2026-01-01T01:00:00Z", "params": {}}

_request(change) := {
	"version": 1,
	"subject": {"type": "agent", "id": "spiffe://example.org/agent/researcher", "properties": {}},
	"action": {"name": "egress/request"},
	"resource": {"type": "host", "id": "api.example", "properties": object.union(
		{
			"port": null, "mode": "read", "method": "POST", "path": "/v1/messages", "query": {}, "headers": {},
			"secrets": ["x-api-key"], "has_body": true, "members": ["model"], "body": {"model": "m"},
		},
		change,
	)},
	"context": {"time": "2026-01-01T00:00:00Z", "task": _task, "request": {"listener": "transparent"}},
}

_answer(asked) := answer if {
	answer := egress.decision with input as asked with data.taskgrant.destinations as _rules
}

_code(change) := _answer(_request(change)).code

test_what_is_listed_passes if {
	_answer(_request({})) == {"action": "pass", "code": "granted", "reasons": []}
}

test_nothing_passes_without_data if {
	egress.decision.code == "denied_by_policy" with input as object.union(_request({}), {"resource": {"properties": {"members": []}}})
}

test_method_path_and_port_are_what_is_listed if {
	every change in [{"method": "PUT"}, {"path": "/v1/messages/x"}, {"path": "/v1/Messages"}] {
		_code(change) == "denied_by_policy"
	}
	_code({"port": 8443, "members": []}) == "denied_by_policy"
}

test_some_types_of_task if {
	get := _request({"method": "GET", "path": "/files/a/b", "members": [], "body": {}})
	_answer(get).action == "refuse"
	_answer(object.union(get, {"context": {"task": {"type": "research"}}})).action == "pass"
}

test_a_task_is_needed if {
	idle := json.patch(_request({}), [{"op": "replace", "path": "/context/task", "value": null}])
	_answer(idle).code == "no_task"
	with_none := object.union(_rules, {"api.example": {"without_task": true}})
	egress.decision.action == "pass" with input as idle with data.taskgrant.destinations as with_none
}

test_a_task_that_is_over if {
	late := object.union(_request({}), {"context": {"time": "2026-01-01T01:00:00Z"}})
	_answer(late).code == "task_ended"
}

test_another_version if {
	_answer(object.union(_request({}), {"version": 2})).code == "policy_error"
}

test_a_member_that_is_not_listed if {
	_code({"members": ["model", "container"]}) == "arguments_refused"
	any_member := object.union(_rules, {"api.example": {"members": ["*"]}})
	egress.decision.action == "pass" with input as _request({"members": ["other"]})
		with data.taskgrant.destinations as any_member
}

test_hosted_tools if {
	own := {"name": "search", "input_schema": {}}
	every tools in [[], [own], [{"type": "function"}], [{"type": "web_search_20250305", "name": "web_search"}], [{"functionDeclarations": []}], [{"function_declarations": []}]] {
		_code({"body": {"tools": tools}}) == "granted"
	}
	every tools in [
		[own, {"type": "code_interpreter"}],
		[{"type": "mcp", "server_url": "https://mcp.example/"}],
		[{"google_search": {}}],
		[{"functionDeclarations": [], "code_execution": {}}],
		[object.union(own, {"run": "there"})],
		[{}],
		["web"],
		{"type": "code_interpreter"},
		null,
	] {
		_code({"body": {"tools": tools}}) == "arguments_refused"
	}
	_code({"body": {"web_search_options": {}}}) == "arguments_refused"
	_code({"body": {"plugins": [{"id": "web"}]}}) == "arguments_refused"
}

test_connectors if {
	every servers in [[], [{"url": "https://mcp.example/sse"}], [{"connector_id": "connector_mail", "url": "https://mcp.example"}]] {
		_code({"body": {"mcp_servers": servers}}) == "granted"
	}
	every servers in [
		[{"url": "https://mcp.example@evil.example/"}],
		[{"url": "https://evil.example/mcp.example"}],
		[{"url": 7}],
		[{"name": "nameless"}],
		["https://mcp.example/"],
		"https://evil.example/",
	] {
		_code({"body": {"mcp_servers": servers}}) == "arguments_refused"
	}
}

test_connections_that_are_let_through_unread if {
	connect := {
		"version": 1,
		"subject": {"type": "agent", "id": "spiffe://example.org/agent/researcher", "properties": {}},
		"action": {"name": "egress/connect"},
		"resource": {"type": "host", "id": "pinned.example", "properties": {"port": null, "mode": "splice"}},
		"context": {"time": "2026-01-01T00:00:00Z", "task": _task, "request": {}},
	}
	_answer(connect) == {"action": "splice", "code": "granted", "reasons": []}
	idle := json.patch(connect, [{"op": "replace", "path": "/context/task", "value": null}])
	_answer(idle).code == "no_task"
	some_tasks := {"pinned.example": {"task_types": ["research"]}}
	egress.decision.action == "refuse" with input as connect with data.taskgrant.destinations as some_tasks
}
