package system.authz_test

import data.system.authz

test_our_questions_only if {
	every path in ["authz/decision", "visible/tools", "grants/decision", "egress/decision"] {
		authz.allow with input as {"method": "POST", "path": split(concat("", ["v1/data/taskgrant/", path]), "/")}
	}
	authz.allow with input as {"method": "GET", "path": ["health"]}
}

test_nothing_else if {
	every request in [
		["PUT", "v1/policies/x"],
		["DELETE", "v1/policies/x"],
		["GET", "v1/policies"],
		["GET", "v1/config"],
		["GET", "v1/data"],
		["POST", "v1/data"],
		["POST", "v1/data/taskgrant/boundaries"],
		["PUT", "v1/data/taskgrant/authz/decision"],
		["PATCH", "v1/data/taskgrant/boundaries"],
		["POST", "v1/query"],
		["POST", "v1/compile"],
		["POST", "v0/data/taskgrant/authz/decision"],
		["POST", ""],
		["GET", "metrics"],
		["POST", "health"],
		["GET", "health/live"],
	] {
		not authz.allow with input as {"method": request[0], "path": split(request[1], "/")}
	}
}
