"""What follows from a vehicle's estimate: health, forecast, range, planned trips, predictions.

Must never compute: the service does.
"""

from __future__ import annotations

from cloud.api import derived_schemas, schemas, what_if_schemas
from cloud.client.transport import Transport

V1 = "/api/v1"


class Deriving(Transport):
    """Operations under a vehicle that ask its twin."""

    def get_health(self, vehicle_id: str, odometer: float | None = None) -> derived_schemas.Health:
        """State of health with its 95 % band."""
        path = f"{V1}/vehicles/{vehicle_id}/health"
        return self.get(derived_schemas.Health, path, odometer=odometer)

    def get_forecast(self, vehicle_id: str, **question: float | None) -> derived_schemas.Forecast:
        """When health falls to a threshold; the fields of a ForecastQuestion."""
        path = f"{V1}/vehicles/{vehicle_id}/forecast"
        return self.get(derived_schemas.Forecast, path, **question)

    def get_range(
        self, vehicle_id: str, wanted: derived_schemas.RangeRequest
    ) -> derived_schemas.Range:
        """What is left until the cut-off."""
        return self.post(derived_schemas.Range, f"{V1}/vehicles/{vehicle_id}/range", wanted)

    def plan(
        self, vehicle_id: str, wanted: derived_schemas.PlannedTripRequest
    ) -> derived_schemas.PlannedTrip:
        """The voltage band along a planned trip."""
        path = f"{V1}/vehicles/{vehicle_id}/planned-trip"
        return self.post(derived_schemas.PlannedTrip, path, wanted)

    def predict(self, vehicle_id: str, wanted: schemas.PredictionRequest) -> schemas.Prediction:
        """The voltage that the vehicle's BMS would measure."""
        return self.post(schemas.Prediction, f"{V1}/vehicles/{vehicle_id}/predict", wanted)

    def what_if_vehicle(
        self, vehicle_id: str, wanted: what_if_schemas.WhatIf
    ) -> what_if_schemas.WhatIfAnswer:
        """What each scenario comes to for a vehicle."""
        path = f"{V1}/vehicles/{vehicle_id}/what-if"
        return self.post(what_if_schemas.WhatIfAnswer, path, wanted)

    def what_if_fleet(
        self, wanted: what_if_schemas.FleetWhatIf
    ) -> what_if_schemas.FleetWhatIfAnswer:
        """The same for many vehicles."""
        return self.post(what_if_schemas.FleetWhatIfAnswer, f"{V1}/what-if", wanted)
