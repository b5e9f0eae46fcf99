# METADATA
# title: May this pass, which is no tool call?
# description: |
#   Asked for hosts of the configuration's `egress` only: for each HTTP request (`egress/request`), or once for a
#   connection that is let through unread (`egress/connect`). What may pass is data, `data.taskgrant.destinations[<host>]`:
#
#       {"allow": [{"methods": ["POST"], "paths": ["/v1/messages"], "task_types": ["research"]}],
#        "members": ["model", "messages", "tools"], "hosted_tools": ["web_search"], "connectors": ["mcp.example.org"],
#        "without_task": false}
#
#   Paths are globs in which `*` stands for one segment's worth and `**` for any. Add `pass` and `deny` rules in files of
#   your own, in this package; a denial overrides.
# schemas:
#   - input: schema.egress_input
package taskgrant.egress

import data.taskgrant.lib

# METADATA
# title: The answer to the sidecar
# description: '`{"action": "pass" | "splice" | "refuse", "code", "reasons"}`'
# entrypoint: true
decision := {"action": _action, "code": "granted", "reasons": []} if {
	count(deny) == 0
	count(pass) > 0
}

decision := {
	"action": "refuse",
	"code": min({object.get(one, "code", "denied_by_policy") | some one in deny}),
	"reasons": sort({object.get(one, "reason", "policy refuses this") | some one in deny}),
} if {
	count(deny) > 0
}

decision := {
	"action": "refuse",
	"code": "denied_by_policy",
	"reasons": ["policy has nothing that lets this pass"],
} if {
	count(deny) == 0
	count(pass) == 0
}

# METADATA
# title: Why it may pass; each is a word for people
pass contains "allow" if {
	input.action.name == "egress/request"
	some one in _rules.allow
	input.resource.properties.method in one.methods
	some path in one.paths
	glob.match(path, ["/"], input.resource.properties.path)
	_for_task(one)
}

# The host is on a list that a person wrote, as one to be let through unread.
pass contains "unread" if {
	input.action.name == "egress/connect"
	_for_task(_rules)
}

# METADATA
# title: Why it must not, whatever lets it
# description: 'Each is `{"code": …, "reason": …}`. The agent reads the reason.'
deny contains {"code": "policy_error", "reason": "the policy does not know this version of the input"} if {
	not input.version == 1
}

deny contains {"code": "no_task", "reason": "no task is running, so nothing passes"} if {
	input.context.task == null
	not _rules.without_task == true
}

deny contains {"code": "task_ended", "reason": "the task's deadline has passed"} if {
	time.parse_rfc3339_ns(input.context.time) >= time.parse_rfc3339_ns(input.context.task.deadline)
}

deny contains {"code": "arguments_refused", "reason": sprintf("the body has a member that does not pass: %s", [name])} if {
	allowed := {each | some each in _rules.members}
	not "*" in allowed
	some name in input.resource.properties.members
	not name in allowed
}

deny contains {"code": "arguments_refused", "reason": sprintf("the model's provider would run a tool that this task may not use: %s", [name])} if {
	some name in lib.hosted_tools(input.resource.properties.body)
	not name in object.get(_rules, "hosted_tools", [])
}

deny contains {"code": "arguments_refused", "reason": "the model's provider would connect to a server that this task may not use"} if {
	some connector in lib.connectors(input.resource.properties.body)
	not _admitted(connector)
}

_rules := object.union({}, data.taskgrant.destinations[_name])

_rules := {} if not data.taskgrant.destinations[_name]

_name := input.resource.id if {
	input.resource.properties.port == null
} else := sprintf("%s:%d", [input.resource.id, input.resource.properties.port])

_action := "splice" if {
	input.action.name == "egress/connect"
} else := "pass"

_for_task(rule) if not rule.task_types

_for_task(rule) if input.context.task.type in rule.task_types

# A connector is named by its own id, or by the host of its URL.
_admitted(connector) if connector in _rules.connectors

_admitted(connector) if lib.url_host_in(connector, _rules.connectors)
