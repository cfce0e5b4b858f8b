"""A vehicle's lineage in the vocabulary of W3C PROV, as PROV-JSON, and as a Graphviz graph.

T. D. Huynh et al., "The PROV-JSON Serialization", W3C Member Submission, 2013; the terms are those
of PROV-DM (W3C Recommendation, 2013): entities (revisions, breaches, bundles, priors), activities
(each calibration or order), agents (the service's software, operators, the vehicle). Pure. Must
never invent a relation that no signed content states.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from cloud.audit.lineage import Node, edges, label

NAMESPACE: Final = "urn:living-twin:"
Document = dict[str, dict[str, Any]]


def prov_json(vehicle_id: str, nodes: Sequence[Node]) -> Document:
    """The PROV-JSON document of a vehicle's revisions."""
    out: Document = {
        name: {}
        for name in (
            "entity",
            "activity",
            "agent",
            "wasGeneratedBy",
            "used",
            "wasDerivedFrom",
            "wasAssociatedWith",
            "wasAttributedTo",
        )
    }
    for node in nodes:
        _add_revision(out, vehicle_id, node)
    return {"prefix": {"twin": NAMESPACE}, **{name: part for name, part in out.items() if part}}


def _add_revision(out: Document, vehicle_id: str, node: Node) -> None:
    made, cause = node.revision, node.revision.cause
    entity, activity = (
        f"twin:{vehicle_id}/revision/{node.number}",
        f"twin:{vehicle_id}/made/{node.number}",
    )
    at = datetime.fromtimestamp(made.created_at, UTC).isoformat()
    out["entity"][entity] = {
        "prov:type": "twin:revision",
        "prov:label": f"revision {node.number}",
        "twin:sha256": node.row.hash,
        "twin:verdict": node.row.verdict or "",
        "twin:odometer": made.odometer,
    }
    out["activity"][activity] = {
        "prov:endTime": at,
        "prov:type": f"twin:{cause.kind}",
        "prov:label": label(node),
    }
    software = f"twin:software/{made.code_version}"
    out["agent"][software] = {"prov:type": "prov:SoftwareAgent"}
    _relate(out, "wasGeneratedBy", node.number, entity=entity, activity=activity, time=at)
    _relate(out, "wasAssociatedWith", f"{node.number}.software", activity=activity, agent=software)
    _add_inputs(out, vehicle_id, node, entity, activity)
    if cause.ordered_by:
        operator = f"twin:operator/{_safe(cause.ordered_by)}"
        out["agent"][operator] = {"prov:type": "prov:Person", "prov:label": cause.ordered_by}
        _relate(
            out, "wasAssociatedWith", f"{node.number}.operator", activity=activity, agent=operator
        )


def _add_inputs(out: Document, vehicle_id: str, node: Node, entity: str, activity: str) -> None:
    made = node.revision
    bundle = f"twin:bundle/{made.bundle}"
    out["entity"][bundle] = {"prov:type": "twin:bundle"}
    _relate(out, "used", f"{node.number}.bundle", activity=activity, entity=bundle)
    if made.base:
        base = f"twin:{vehicle_id}/revision/{made.base}"
        out["entity"].setdefault(base, {"prov:type": "twin:revision"})
        _relate(out, "used", f"{node.number}.base", activity=activity, entity=base)
        _relate(
            out,
            "wasDerivedFrom",
            node.number,
            generatedEntity=entity,
            usedEntity=base,
            activity=activity,
        )
    elif made.prior_version:
        prior = f"twin:fleet-prior/{made.bundle}/{made.prior_version}"
        out["entity"][prior] = {"prov:type": "twin:fleet_prior"}
        _relate(out, "used", f"{node.number}.prior", activity=activity, entity=prior)
    if node.breach is not None:
        breach, vehicle = f"twin:{vehicle_id}/breach/{node.breach}", f"twin:vehicle/{vehicle_id}"
        out["entity"][breach] = {
            "prov:type": "twin:breach",
            "prov:label": made.cause.trip_id or node.breach,
        }
        out["agent"][vehicle] = {"prov:type": "prov:SoftwareAgent", "prov:label": vehicle_id}
        _relate(out, "used", f"{node.number}.breach", activity=activity, entity=breach)
        _relate(out, "wasAttributedTo", f"{node.number}.breach", entity=breach, agent=vehicle)


def _relate(out: Document, kind: str, name: object, **ends: str) -> None:
    out[kind][f"_:{kind}.{name}"] = {f"prov:{end}": value for end, value in ends.items()}


def _safe(name: str) -> str:
    """A name of a person as the local part of a qualified name."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)


def dot(vehicle_id: str, nodes: Sequence[Node]) -> str:
    """The graph in Graphviz's language."""
    lines = [f'digraph "{vehicle_id}" {{', "  rankdir=TB; node [shape=box, fontname=sans];"]
    for node in nodes:
        style = ", style=dashed" if node.row.verdict == "refused" else ""
        text = f"{node.number}\\n{_quoted(label(node))}"
        lines.append(f'  r{node.number} [label="{text}"{style}];')
    lines += [f"  r{base} -> r{number};" for base, number in edges(nodes)]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
