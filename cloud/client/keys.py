"""API keys: made, listed, rotated, revoked.

Must never keep a secret: whoever asked for it gets it.
"""

from __future__ import annotations

from collections.abc import Iterator

from cloud.api.key_schemas import ApiKeyItem, ApiKeyRequest, ApiKeyWithSecret, Rotation
from cloud.client.transport import Transport

PATH = "/api/v1/api-keys"


class Keys(Transport):
    """Operations for an admin who sees every cohort."""

    def list_api_keys(self) -> Iterator[ApiKeyItem]:
        """API keys by id, the revoked ones too."""
        return self.pages(ApiKeyItem, PATH)

    def create_api_key(self, wanted: ApiKeyRequest) -> ApiKeyWithSecret:
        """Make a key; its secret is in the answer, and nowhere else."""
        return self.post(ApiKeyWithSecret, PATH, wanted)

    def rotate_api_key(self, key_id: str, told: Rotation) -> ApiKeyWithSecret:
        """Give a key another secret; the old one works for a while beside it."""
        return self.post(ApiKeyWithSecret, f"{PATH}/{key_id}/rotate", told)

    def revoke_api_key(self, key_id: str) -> ApiKeyItem:
        """Let a key open nothing any more."""
        return ApiKeyItem.model_validate_json(self.send("DELETE", f"{PATH}/{key_id}").content)
