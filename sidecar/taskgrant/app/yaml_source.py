"""YAML with places: what a file says, and on which line it says it.

Plain data only (no tags, no merge keys, no anchors that repeat), one document, keys unique: a configuration that a
person can review from top to bottom.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from taskgrant.errors import ConfigurationError

Place = tuple[str | int, ...]

#: The tags of YAML's own types; all others name types of some programme.
_PLAIN = "tag:yaml.org,2002:"


@dataclass(slots=True)
class Source:
    """``data`` is the document; ``lines`` gives each key's and item's line, by its path from the root."""

    path: Path
    data: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest thing around it that is there."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def fault(self, place: Place, reason: str) -> str:
        key = ".".join(str(part) for part in place) or "(document)"
        return f"{self.path}:{self.line(place)}: {key}: {reason}"


def read(path: Path) -> Source:
    """Raises ``ConfigurationError`` for a file that cannot be read or is not such YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as fault:
        raise ConfigurationError([f"{path}: cannot be read: {fault.strerror}"]) from fault
    except UnicodeDecodeError as fault:
        raise ConfigurationError([f"{path}: is not UTF-8 text"]) from fault
    source = Source(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as fault:
        line = fault.problem_mark.line + 1 if fault.problem_mark else 1
        raise ConfigurationError([f"{path}:{line}: is not YAML: {fault.problem}"]) from fault
    except yaml.YAMLError as fault:
        raise ConfigurationError([f"{path}: is not YAML: {fault}"]) from fault
    if node is None:
        raise ConfigurationError([f"{path}: is empty"])
    source.data = _build(source, node, (), frozenset())
    if source.faults:
        raise ConfigurationError(source.faults)
    return source


def _build(source: Source, node: yaml.Node, place: Place, above: frozenset[int]) -> Any:
    source.lines.setdefault(place, node.start_mark.line + 1)
    if id(node) in above:
        source.faults.append(source.fault(place, "an alias that contains itself"))
        return None
    above |= {id(node)}
    if not _is_plain(node.tag):
        source.faults.append(source.fault(place, f"the tag {node.tag} is not supported"))
        return None
    if isinstance(node, yaml.MappingNode):
        return _mapping(source, node, place, above)
    if isinstance(node, yaml.SequenceNode):
        return [_build(source, item, (*place, index), above) for index, item in enumerate(node.value)]
    return _scalar(source, node, place)


def _is_plain(tag: str) -> bool:
    return tag.startswith(_PLAIN) and not tag.startswith(_PLAIN + "python/")


def _mapping(source: Source, node: yaml.MappingNode, place: Place, above: frozenset[int]) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if key is None or key_node.tag == "tag:yaml.org,2002:merge":
            line = key_node.start_mark.line + 1
            source.faults.append(f"{source.path}:{line}: keys are plain words; merge keys are not supported")
            continue
        inner = (*place, key)
        if key in built:
            line = key_node.start_mark.line + 1
            source.faults.append(f"{source.path}:{line}: {'.'.join(map(str, inner))}: is given twice")
            continue
        source.lines[inner] = key_node.start_mark.line + 1
        built[key] = _build(source, value_node, inner, above)
    return built


def _scalar(source: Source, node: yaml.Node, place: Place) -> Any:
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError):
        source.faults.append(
            source.fault(place, f"{node.value!r} cannot be read as {node.tag.removeprefix(_PLAIN)}")
        )
        return None
