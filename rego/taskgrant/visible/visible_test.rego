package taskgrant.visible_test

import data.taskgrant.visible

_agent := "spiffe://example.org/agent/researcher"

_grant := {
	"id": "grant-1",
	"server": "mail",
	"tools": ["send", "gone"],
	"state": "active",
	"expires_at": "2026-01-01T01:00:00Z",
}

_list(grants) := {
	"version": 1,
	"subject": {"type": "agent", "id": _agent, "properties": {}},
	"action": {"name": "tools/list"},
	"resource": {"type": "server", "id": "mail", "properties": {"tools": ["send", "read", "purge"]}},
	"context": {"time": "2026-01-01T00:00:00Z", "grants": grants},
}

test_granted_tools_that_exist if {
	visible.tools == {"send"} with input as _list([_grant])
}

test_nothing_without_a_live_grant if {
	every change in [
		{"state": "pending"},
		{"state": "exhausted"},
		{"server": "files"},
		{"expires_at": "2025-01-01T00:00:00Z"},
	] {
		visible.tools == set() with input as _list([object.union(_grant, change)])
	}
}

test_what_can_be_asked_for if {
	visible.tools == {"read"} with input as _list([])
		with data.taskgrant.profiles as {"mail/read": {"ask": true}, "mail/send": {"ask": false}, "mail/purge": {"ask": true}}
		with data.taskgrant.boundaries as {_agent: [{"server": "mail", "tools": ["read", "send"]}]}
}
