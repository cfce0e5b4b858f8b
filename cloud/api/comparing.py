"""Two revisions side by side: which change is more than chance.

Pure. Where the later grew out of the earlier, the evidence between them moved theta by a Kalman
gain, whose covariance is K S K' = P(before, carried there) - P(after): the change is measured by
that. Where it did not, both are estimates of their own, and their variances add up.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from cloud.api import history_schemas as schemas
from cloud.api import views
from cloud.bundles import Catalogue
from cloud.store.tables import RevisionRow
from common.batch import extrapolate
from common.estimate import Estimate, estimate_of
from common.manifest import Manifest
from common.revision import decode_revision
from common.trip_band import Z95

FloatArray = npt.NDArray[np.float64]
LEAST_SHARE: Final = 1e-6  # of the variance before: less is rounding, not evidence


def compared(
    before: RevisionRow,
    after: RevisionRow,
    manifest: Manifest,
    catalogue: Catalogue,
    *,
    related: bool,
) -> schemas.RevisionDiff:
    """The later (`after`) against the earlier, both at the odometer of the later."""
    new = estimate_of(decode_revision(after.content))
    old = extrapolate(estimate_of(decode_revision(before.content)), manifest, new.odometer)
    return schemas.RevisionDiff(
        vehicle_id=after.vehicle_id,
        odometer=new.odometer,
        odometer_unit=manifest.odometer_unit,
        related=related,
        before=views.revision_item(before, catalogue),
        after=views.revision_item(after, catalogue),
        parameters=_changes(old, new, manifest, related=related),
    )


def _changes(
    old: Estimate, new: Estimate, manifest: Manifest, *, related: bool
) -> list[schemas.ParameterChange]:
    count = len(new.theta)
    was, is_now = (np.diag(one.covariance)[:count] for one in (old, new))
    room = was - is_now if related else was + is_now
    enough = room > LEAST_SHARE * was
    change = new.theta - old.theta
    stds = np.sqrt(np.where(enough, room, 1.0))
    z = change / stds
    return [
        schemas.ParameterChange(
            name=parameter.name,
            unit=parameter.unit,
            from_value=float(old.theta[i]),
            from_std=float(np.sqrt(was[i])),
            to_value=float(new.theta[i]),
            to_std=float(np.sqrt(is_now[i])),
            change=float(change[i]),
            change_std=float(stds[i]) if enough[i] else None,
            z=float(z[i]) if enough[i] else None,
            significant=bool(enough[i] and abs(z[i]) > Z95),
        )
        for i, parameter in enumerate(manifest.parameters)
    ]
