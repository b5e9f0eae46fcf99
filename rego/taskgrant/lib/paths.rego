package taskgrant.lib

# METADATA
# title: True if an absolute path lies inside a directory, or is it
# description: |
#   Compared segment by segment, after `//` and `/./` are folded. A path with `..`, a backslash, a control character or
#   a percent sign is never inside: what it names depends on links and decoders that policy cannot see.
path_inside(path, directory) if {
	startswith(path, "/")
	startswith(directory, "/")
	not _doubtful_path(path)
	not _doubtful_path(directory)
	segments := _segments(path)
	above := _segments(directory)
	array.slice(segments, 0, count(above)) == above
}

_doubtful_path(path) if regex.match(`(^|/)\.\.(/|$)|[\\%\x00-\x1f\x7f]`, path)

_segments(path) := [segment | some segment in split(path, "/"); not segment in {"", "."}]
