"""What AWS IoT Core would say to an action under a policy: as much of its rules as ours use.

Effect, Action and Resource with the wildcards `*` and `?`; policy variables; the conditions Bool,
StringEquals and ForAllValues:StringEquals. MQTT's own wildcards are letters like any other. A
variable without a value matches nothing, a denial overrides, and what nobody allows is denied.
(AWS IoT developer guide: "AWS IoT Core policies", "Thing policy variables".)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cfnlint.decode import decode

Policy = Mapping[str, Any]

ACCOUNT = "arn:aws:iot:eu-central-1:123456789012"
_TOKEN = re.compile(r"\$\{([^}]*)\}|([*?])")
_LITERALS = {"*": r"\*", "?": r"\?", "$": r"\$"}


def template_policies(
    path: Path, region: str = "eu-central-1", partition: str = "aws"
) -> dict[str, Policy]:
    """The policies of a CloudFormation template by logical id, as they stand in the account."""
    template, problems = decode(str(path))
    assert template is not None, problems
    defaults = {name: one["Default"] for name, one in template["Parameters"].items()}
    known = {
        **defaults,
        "AWS::Partition": partition,
        "AWS::Region": region,
        "AWS::AccountId": "123456789012",
    }
    return {
        name: resolved(resource["Properties"]["PolicyDocument"], known)
        for name, resource in template["Resources"].items()
        if "PolicyDocument" in resource["Properties"]
    }


def resolved(node: Any, known: Mapping[str, str]) -> Any:
    """With every Fn::Sub replaced by what it gives."""
    if isinstance(node, Mapping):
        if "Fn::Sub" in node:
            text = re.sub(r"\$\{([^!}]+)\}", lambda m: known[m[1]], node["Fn::Sub"])
            return text.replace("${!", "${")
        return {str(key): resolved(value, known) for key, value in node.items()}
    return [resolved(one, known) for one in node] if isinstance(node, list) else node


def is_allowed(
    policy: Policy,
    action: str,
    resource: str,
    known: Mapping[str, str | list[str]],
) -> bool:
    """Whether it may do `action` on an ARN; `known` are variables and condition keys."""
    effects = [
        one["Effect"]
        for one in policy["Statement"]
        if any(matches(pattern, action, {}) for pattern in _many(one["Action"]))
        and any(matches(pattern, resource, known) for pattern in _many(one["Resource"]))
        and _holds(one.get("Condition", {}), known)
    ]
    return "Allow" in effects and "Deny" not in effects


def matches(pattern: str, text: str, known: Mapping[str, str | list[str]]) -> bool:
    """Whether a pattern of a policy matches all of `text`."""
    expression, at = "", 0
    for token in _TOKEN.finditer(pattern):
        expression += re.escape(pattern[at : token.start()])
        at = token.end()
        variable, wildcard = token.groups()
        if wildcard:
            expression += ".*" if wildcard == "*" else "."
        elif variable in _LITERALS:
            expression += _LITERALS[variable]
        elif variable in known:
            expression += re.escape(str(known[variable]))
        else:
            return False
    return re.fullmatch(expression + re.escape(pattern[at:]), text) is not None


def _holds(conditions: Mapping[str, Any], known: Mapping[str, str | list[str]]) -> bool:
    for operator, wished in conditions.items():
        for key, values in wished.items():
            given = known.get(key)
            if operator == "ForAllValues:StringEquals":
                if not set(_many(given or [])) <= set(_many(values)):
                    return False
            elif operator not in ("Bool", "StringEquals") or given not in _many(values):
                return False
    return True


def _many(one_or_more: Any) -> list[Any]:
    return one_or_more if isinstance(one_or_more, list) else [one_or_more]


@dataclass(frozen=True)
class Client:
    """A connection under one policy; `thing` is what its certificate is attached to, if any."""

    policy: Policy
    client_id: str
    thing: str | None = None
    attributes: list[str] = field(default_factory=lambda: ["PersistentConnect", "LastWill"])

    def connects(self) -> bool:
        return self._may("Connect", f"client/{self.client_id}")

    def publishes(self, topic: str, *, retained: bool = False) -> bool:
        """A retained message needs both rights."""
        plain = self._may("Publish", f"topic/{topic}")
        return plain and (not retained or self._may("RetainPublish", f"topic/{topic}"))

    def subscribes(self, name: str) -> bool:
        return self._may("Subscribe", f"topicfilter/{name}")

    def receives(self, topic: str) -> bool:
        return self._may("Receive", f"topic/{topic}")

    def _may(self, action: str, resource: str) -> bool:
        known: dict[str, str | list[str]] = {
            "iot:ClientId": self.client_id,
            "iot:ConnectAttributes": self.attributes,
        }
        if self.thing is not None:
            known["iot:Connection.Thing.ThingName"] = self.thing
            known["iot:Connection.Thing.IsAttached"] = "true"
        return is_allowed(self.policy, f"iot:{action}", f"{ACCOUNT}:{resource}", known)
