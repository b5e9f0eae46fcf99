package taskgrant.lib

# METADATA
# title: The tools in a request to a model API that the provider itself would run
# description: |
#   By their type, or by the member that stands for it where tools have no type (`google_search`). Tools that the agent
#   runs are none of them: `function`, `custom`, and what has a name and a schema but no type. A tool that cannot be
#   understood is one of them, so that it is never overlooked.
hosted_tools(body) := {name |
	some tool in _list(object.get(body, "tools", []))
	some name in _hosted(tool)
} | ({"web_search" | body.web_search_options} | {name | some plugin in _list(object.get(body, "plugins", [])); name := _text(object.get(_object_of(plugin), "id", "plugin"))})

# METADATA
# title: The servers in a request to a model API that the provider itself would connect to, by URL or by id
# description: Of `mcp_servers`, and of tools of any type with a `server_url`, a `connector_id` or a `url`.
connectors(body) := {address |
	some entry in array.concat(_list(object.get(body, "mcp_servers", [])), _list(object.get(body, "tools", [])))
	some member in ["server_url", "connector_id", "url"]
	address := _text(_object_of(entry)[member])
} | {"unnamed" |
	some entry in _list(object.get(body, "mcp_servers", []))
	not _object_of(entry).url
	not _object_of(entry).server_url
}

_hosted(tool) := {tool.type} if {
	is_string(tool.type)
	not tool.type in {"function", "custom"}
} else := set() if {
	is_string(tool.type)
} else := set() if {
	is_string(tool.name)
	is_object(tool.input_schema)
	count({"name", "description", "input_schema", "cache_control", "strict"} | object.keys(tool)) == 5
} else := set() if {
	object.keys(tool) == {"functionDeclarations"}
} else := set() if {
	object.keys(tool) == {"function_declarations"}
} else := object.keys(tool) - {"functionDeclarations", "function_declarations"} if {
	is_object(tool)
	count(tool) > 0
	not tool.type
} else := {"unknown"}

_list(value) := value if is_array(value)

# What should be a list and is none counts as one entry that is not understood.
_list(value) := [value] if not is_array(value)

_object_of(value) := value if is_object(value)

_object_of(value) := {} if not is_object(value)

_text(value) := value if is_string(value)

_text(value) := json.marshal(value) if not is_string(value)
