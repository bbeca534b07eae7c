"""YAML as plain values and nothing else: the one reader of config files, whoever wrote them.

A file may be a stranger's, or damaged. So it is bounded before it is built (size, depth, values once aliases are
spelled out), keys are text and given once, and values are what JSON has. Importable without torch.
"""

from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

MOST_CHARACTERS = 2**20
"""Of a text. The largest config of a run has some 5,000."""
MOST_DEPTH = 32
"""Of sections in sections."""
MOST_VALUES = 20_000
"""Of a text whose aliases are spelled out: nine lines of nested aliases stand for a thousand million."""

_TAG = "tag:yaml.org,2002:"
_PLAIN = {f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map", "merge")}
_TEXT = {f"{_TAG}timestamp", f"{_TAG}value"}  # a date and `=`, which nobody writes as anything but text here


def _is_base_sixty(node: yaml.ScalarNode) -> bool:
    """Whether YAML 1.1 reads a time of day as a number: 4:00:00 as 14400, and 08:00:00 as text."""
    return node.tag in (f"{_TAG}int", f"{_TAG}float") and ":" in node.value


class _PlainLoader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._values = 0
        self._behind: dict[str, int] = {}  # values that an alias of this name stands for

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self._behind:
                raise _refused(f"alias *{event.anchor} stands inside what it names", event.start_mark)
            self._count(self._behind.get(str(event.anchor), 1), event.start_mark)
            return super().compose_node(parent, index)
        before = self._values
        self._count(1, event.start_mark)
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise _refused(f"nested more than {MOST_DEPTH} deep", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, yaml.ScalarNode) and (node.tag in _TEXT or _is_base_sixty(node)):
            node.tag = f"{_TAG}str"
        if node is not None and node.tag not in _PLAIN:
            raise _refused(f"a value of kind {node.tag.removeprefix(_TAG)}", event.start_mark)
        if getattr(event, "anchor", None):
            self._behind[event.anchor] = self._values - before
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:  # before `<<` puts others beside them, which these are to replace
            if key.tag == f"{_TAG}merge":
                continue
            if key.tag != f"{_TAG}str":
                raise _refused(f"key {str(key.value)[:40]} is no text; put it in quotes", key.start_mark)
            if key.value in seen:
                raise _refused(f"key {key.value[:40]!r} is given twice", key.start_mark)
            seen.add(key.value)
        return node

    def _count(self, values: int, mark: Any) -> None:
        self._values += values
        if self._values > MOST_VALUES:
            raise _refused(f"more than {MOST_VALUES:,} values, aliases spelled out", mark)


def _refused(problem: str, mark: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


@lru_cache(maxsize=32)
def _read(text: str) -> Any:
    """Reading takes some 20 ms a config, and a report asks for the same ones again and again; a copy takes 0.1."""
    return _PlainLoader(text).get_single_data()


def plain_yaml(text: str, source: str | Path) -> Any:
    """Return the value in a YAML text: None, numbers, text, lists and mappings with text as keys.

    Args:
        source: what the message calls it.

    Raises:
        ValueError: no YAML, or YAML that is no config (too large, too deep, a key given twice): says where.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(
            f"{source} is no config: it has {len(text):,} characters, a config at most {MOST_CHARACTERS:,}"
        )
    try:
        return deepcopy(_read(text))
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(
            f"{source} is not YAML that a config can be read from: {error.problem}{line}"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{source} is not YAML that a config can be read from: {said[:200]}") from None


def plain_yaml_file(path: Path) -> Any:
    """Return the value in a YAML file; see `plain_yaml`.

    Raises:
        ValueError: no such file, or its text is not what a config is; names the file.
    """
    if not path.is_file():
        there = "is not a file" if path.exists() else "does not exist"
        raise ValueError(f"{path} {there}; give the path of a YAML config")
    if path.stat().st_size > 4 * MOST_CHARACTERS:  # UTF-8 has at most 4 bytes a character
        raise ValueError(f"{path} is no config: it has {path.stat().st_size:,} bytes")
    try:
        return plain_yaml(path.read_text(encoding="utf-8"), path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not YAML that a config can be read from: {error}") from None
