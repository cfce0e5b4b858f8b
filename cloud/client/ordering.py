"""What an operator writes: settings, cohorts, orders; and what came of it.

Each write carries an idempotency key of its own, so that `Transport.send` may repeat it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import TypeVar

from pydantic import BaseModel

from cloud.api import operator_schemas, schemas
from cloud.client.transport import Transport

M = TypeVar("M", bound=BaseModel)
V1 = "/api/v1"


class Ordering(Transport):
    """Operations that write, and the audit of them."""

    def battery_replaced(
        self, vehicle_id: str, told: schemas.BatteryReplaced, *, dry_run: bool = False
    ) -> operator_schemas.OrderItem:
        """Begin anew with a new battery."""
        path = f"{V1}/vehicles/{vehicle_id}/battery-replaced"
        return self._write("POST", operator_schemas.OrderItem, path, told, dry_run=dry_run)

    def roll_back(
        self, vehicle_id: str, told: schemas.RollBack, *, dry_run: bool = False
    ) -> operator_schemas.OrderItem:
        """Send the content of an earlier revision again."""
        path = f"{V1}/vehicles/{vehicle_id}/roll-back"
        return self._write("POST", operator_schemas.OrderItem, path, told, dry_run=dry_run)

    def recalibrate(
        self, vehicle_id: str, told: schemas.Recalibrate, *, dry_run: bool = False
    ) -> operator_schemas.OrderItem:
        """Replay the breaches recorded after a revision."""
        path = f"{V1}/vehicles/{vehicle_id}/recalibrate"
        return self._write("POST", operator_schemas.OrderItem, path, told, dry_run=dry_run)

    def pin(
        self, vehicle_id: str, told: schemas.RollBack, *, dry_run: bool = False
    ) -> operator_schemas.OrderItem:
        """Keep the content of a revision."""
        path = f"{V1}/vehicles/{vehicle_id}/pin"
        return self._write("POST", operator_schemas.OrderItem, path, told, dry_run=dry_run)

    def unpin(
        self, vehicle_id: str, told: schemas.Unpin, *, dry_run: bool = False
    ) -> operator_schemas.OrderItem:
        """End a pin."""
        path = f"{V1}/vehicles/{vehicle_id}/unpin"
        return self._write("POST", operator_schemas.OrderItem, path, told, dry_run=dry_run)

    def list_orders(self, **params: object) -> Iterator[operator_schemas.OrderItem]:
        """What was ordered, the latest first."""
        return self.pages(operator_schemas.OrderItem, f"{V1}/orders", **params)

    def get_order(self, order_id: str) -> operator_schemas.OrderItem:
        """How far an order has come."""
        return self.get(operator_schemas.OrderItem, f"{V1}/orders/{order_id}")

    def get_settings(self, vehicle_id: str) -> operator_schemas.VehicleSettings:
        """What operators say of a vehicle."""
        path = f"{V1}/vehicles/{vehicle_id}/settings"
        return self.get(operator_schemas.VehicleSettings, path)

    def put_settings(
        self,
        vehicle_id: str,
        told: operator_schemas.VehicleSettingsChange,
        *,
        if_match: str | None = None,
        dry_run: bool = False,
    ) -> operator_schemas.VehicleSettings:
        """Put a vehicle into a cohort, and give it a label and a note."""
        path = f"{V1}/vehicles/{vehicle_id}/settings"
        kind = operator_schemas.VehicleSettings
        return self._write("PUT", kind, path, told, dry_run=dry_run, if_match=if_match)

    def list_cohorts(self) -> Iterator[operator_schemas.CohortItem]:
        """Every cohort with its size."""
        return self.pages(operator_schemas.CohortItem, f"{V1}/cohorts")

    def assign(
        self, cohort: str, told: operator_schemas.CohortAssignment, *, dry_run: bool = False
    ) -> operator_schemas.CohortAssigned:
        """Put many vehicles into a cohort."""
        path = f"{V1}/cohorts/{cohort}/vehicles"
        return self._write("POST", operator_schemas.CohortAssigned, path, told, dry_run=dry_run)

    def list_policies(self) -> Iterator[operator_schemas.PolicyItem]:
        """The policy of every cohort that has one."""
        return self.pages(operator_schemas.PolicyItem, f"{V1}/policies")

    def get_policy(self, cohort: str) -> operator_schemas.PolicyItem:
        """The policy that holds for a cohort."""
        return self.get(operator_schemas.PolicyItem, f"{V1}/policies/{cohort}")

    def list_policy_versions(
        self, cohort: str, **params: object
    ) -> Iterator[operator_schemas.PolicyItem]:
        """Every version of a cohort's policy, the newest first."""
        return self.pages(operator_schemas.PolicyItem, f"{V1}/policies/{cohort}/versions", **params)

    def put_policy(
        self,
        cohort: str,
        told: operator_schemas.PolicyChange,
        *,
        if_match: str = "*",
        dry_run: bool = False,
    ) -> operator_schemas.PolicyItem:
        """Make the next version of a cohort's policy."""
        path, kind = f"{V1}/policies/{cohort}", operator_schemas.PolicyItem
        return self._write("PUT", kind, path, told, dry_run=dry_run, if_match=if_match)

    def change_policy(
        self, cohort: str, changes: Mapping[str, object], why: str, *, dry_run: bool = False
    ) -> operator_schemas.PolicyItem:
        """Make the next version of the policy that holds now, with these settings changed.

        Raises ContradictionError: somebody else was faster; pydantic.ValidationError: no such
        setting, or a value that it cannot have.
        """
        found = self.send("GET", f"{V1}/policies/{cohort}")
        holding = operator_schemas.PolicyItem.model_validate_json(found.content)
        wanted = {**holding.policy.model_dump(), **changes}
        policy = operator_schemas.PolicySettings.model_validate(wanted)
        told = operator_schemas.PolicyChange(policy=policy, why=why)
        return self.put_policy(cohort, told, if_match=found.headers["ETag"], dry_run=dry_run)

    def list_approvals(self, **params: object) -> Iterator[operator_schemas.ApprovalItem]:
        """Revisions that wait for an operator, the latest first."""
        return self.pages(operator_schemas.ApprovalItem, f"{V1}/approvals", **params)

    def approve(
        self, vehicle_id: str, number: int, told: operator_schemas.Verdict, *, dry_run: bool = False
    ) -> operator_schemas.ApprovalItem:
        """Let a revision be pushed that waits."""
        path = f"{V1}/vehicles/{vehicle_id}/revisions/{number}/approve"
        return self._write("POST", operator_schemas.ApprovalItem, path, told, dry_run=dry_run)

    def reject(
        self, vehicle_id: str, number: int, told: operator_schemas.Verdict, *, dry_run: bool = False
    ) -> operator_schemas.ApprovalItem:
        """Keep a revision from ever being pushed that waits."""
        path = f"{V1}/vehicles/{vehicle_id}/revisions/{number}/reject"
        return self._write("POST", operator_schemas.ApprovalItem, path, told, dry_run=dry_run)

    def retry_message(
        self, number: int, told: operator_schemas.Verdict, *, dry_run: bool = False
    ) -> schemas.QuarantineItem:
        """Take a refused message in again."""
        path = f"{V1}/quarantine/{number}/retry"
        return self._write("POST", schemas.QuarantineItem, path, told, dry_run=dry_run)

    def list_alarms(self, **params: object) -> Iterator[operator_schemas.AlarmItem]:
        """Alarms, the last raised first."""
        return self.pages(operator_schemas.AlarmItem, f"{V1}/alarms", **params)

    def acknowledge(
        self, alarm_id: int, told: operator_schemas.AlarmAcknowledgement, *, dry_run: bool = False
    ) -> operator_schemas.AlarmItem:
        """Say that somebody knows of an alarm."""
        path = f"{V1}/alarms/{alarm_id}/acknowledge"
        return self._write("POST", operator_schemas.AlarmItem, path, told, dry_run=dry_run)

    def list_webhooks(self) -> Iterator[operator_schemas.WebhookItem]:
        """All webhooks."""
        return self.pages(operator_schemas.WebhookItem, f"{V1}/webhooks")

    def make_webhook(
        self, told: operator_schemas.NewWebhook, *, dry_run: bool = False
    ) -> operator_schemas.WebhookMade:
        """Carry events to an address; the answer alone shows the secret."""
        kind = operator_schemas.WebhookMade
        return self._write("POST", kind, f"{V1}/webhooks", told, dry_run=dry_run)

    def get_webhook(self, webhook_id: int) -> operator_schemas.WebhookItem:
        """One webhook."""
        return self.get(operator_schemas.WebhookItem, f"{V1}/webhooks/{webhook_id}")

    def delete_webhook(self, webhook_id: int, why: str, *, dry_run: bool = False) -> None:
        """Carry nothing more to it."""
        params = {"why": why, **({"dry_run": "true"} if dry_run else {})}
        self.send("DELETE", f"{V1}/webhooks/{webhook_id}", params=params)

    def list_deliveries(
        self, webhook_id: int, **params: object
    ) -> Iterator[operator_schemas.DeliveryItem]:
        """What is on its way to a webhook, came there, or was given up."""
        path = f"{V1}/webhooks/{webhook_id}/deliveries"
        return self.pages(operator_schemas.DeliveryItem, path, **params)

    def list_audit(self, **params: object) -> Iterator[operator_schemas.EventItem]:
        """What people did, the latest first."""
        return self.pages(operator_schemas.EventItem, f"{V1}/audit", **params)

    def _write(
        self,
        method: str,
        kind: type[M],
        path: str,
        told: BaseModel,
        *,
        dry_run: bool = False,
        if_match: str | None = None,
    ) -> M:
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        if if_match is not None:
            headers["If-Match"] = if_match
        body = told.model_dump(mode="json", exclude_unset=True)  # null may mean: off
        params = {"dry_run": "true"} if dry_run else {}
        answer = self.send(method, path, params=params, body=body, headers=headers)
        return kind.model_validate_json(answer.content)
