"""What the API takes and shows of bundles.

Must never show a model's bytes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from cloud.api.operator_schemas import Told
from cloud.push.bundle_files import MANIFEST_BYTES, MODEL_BYTES

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="Of the bundle's manifest.")]


def _base64(most_bytes: int, described: str) -> Any:
    return Field(
        min_length=4,
        max_length=4 * (most_bytes // 3 + 1),
        pattern="^[A-Za-z0-9+/]+=*$",
        description=f"{described}, in base64; at most {most_bytes} bytes.",
    )


class BundleUpload(Told):
    """The two files of a bundle."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"manifest": "e30=", "model": "VEZMMw==", "why": "trained on winter"}]
        }
    )

    manifest: Annotated[str, _base64(MANIFEST_BYTES, "`manifest.json`, byte for byte")]
    model: Annotated[str, _base64(MODEL_BYTES, "`voltage_model.tflite`")]


class BundleFeature(BaseModel):
    """An input of a bundle's model."""

    name: str
    unit: str


class BundleItem(BaseModel):
    """A bundle that this service knows."""

    sha256: str = Field(description="Of its manifest: its id.")
    name: str
    size_bytes: int | None = Field(description="Of both files; null: they were never kept here.")
    features: list[BundleFeature]
    parameters: list[str]
    provenance: dict[str, Any] = Field(description="As its manifest has it.")
    configured: bool = Field(description="It stands in the service's configuration.")
    kept: bool = Field(description="Its files are in the database.")
    vehicles: int = Field(description="How many say that they run it, of those you may see.")
    added_at: datetime | None
    added_by: str | None
    why: str | None


class BundleDetail(BundleItem):
    """A bundle with all of its manifest."""

    manifest: dict[str, Any]
