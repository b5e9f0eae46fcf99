package taskgrant.grants

_type := object.get(input.context.task, "type", "")

_template := data.taskgrant.templates[_type]

# METADATA
# title: The grants of the task type's template, with its parameters filled in
# description: |
#   A string that is exactly `${params.<name>}` becomes the parameter's value, of whatever type. There is no way to put a
#   parameter into a longer string: it could change the meaning of a pattern.
from_template := json.patch(_template, [patch |
	some place in _places
	patch := {"op": "replace", "path": place.path, "value": input.context.task.params[place.name]}
])

_places := [{"path": path, "name": name} |
	walk(_template, [path, value])
	name := _parameter(value)
]

_parameter(value) := trim_suffix(trim_prefix(value, "${params."), "}") if {
	is_string(value)
	regex.match(`^\$\{params\.[A-Za-z0-9_]+\}$`, value)
}

_uses_template if {
	count(input.context.grants) == 0
	_type != ""
}

deny contains {"code": "denied_by_policy", "reason": reason} if {
	_uses_template
	not _template
	reason := sprintf("no template for tasks of type %q, and no grants were asked for", [_type])
}

deny contains {"code": "denied_by_policy", "reason": reason} if {
	_uses_template
	some place in _places
	not _given(place.name)
	reason := sprintf("the template for tasks of type %q needs the parameter %q", [_type, place.name])
}

deny contains {"code": "policy_error", "reason": reason} if {
	_uses_template
	walk(_template, [path, value])
	is_string(value)
	contains(value, "${")
	not _parameter(value)
	reason := sprintf("the template for tasks of type %q has a parameter inside a longer text, at %v", [_type, path])
}

_given(name) if name in object.keys(input.context.task.params)
