# METADATA
# title: Who may ask this OPA what
# description: |
#   OPA evaluates this before each request when it runs with `--authorization=basic`. Our questions and its health are
#   all there is: nobody reads or changes policy, data or configuration through the socket.
package system.authz

# METADATA
# title: True if the HTTP request may be served
default allow := false

allow if {
	input.method == "POST"
	input.path == ["v1", "data", "taskgrant", "authz", "decision"]
}

allow if {
	input.method == "POST"
	input.path == ["v1", "data", "taskgrant", "visible", "tools"]
}

allow if {
	input.method == "POST"
	input.path == ["v1", "data", "taskgrant", "grants", "decision"]
}

allow if {
	input.method == "POST"
	input.path == ["v1", "data", "taskgrant", "egress", "decision"]
}

allow if {
	input.method == "GET"
	input.path == ["health"]
}
