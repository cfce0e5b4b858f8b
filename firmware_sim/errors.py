"""Every error of the simulator: what was wrong, where, and what to do.

Must never hold logic beyond building a sentence.
"""

from __future__ import annotations

from pathlib import Path


class FirmwareSimError(Exception):
    """Base of every error that the simulator raises on purpose."""


class SettingsError(FirmwareSimError):
    """A setting makes no sense."""

    def __init__(self, setting: str, value: object, remedy: str) -> None:
        self.setting, self.value = setting, value
        super().__init__(f"The fleet cannot have {setting} = {value!r}: {remedy}.")


class BatteryWornOutError(FirmwareSimError):
    """A battery holds no usable energy any more before the last trip."""

    def __init__(self, vehicle_id: str, trips_driven: int, trips_asked: int) -> None:
        self.vehicle_id, self.trips_driven, self.trips_asked = vehicle_id, trips_driven, trips_asked
        super().__init__(
            f"The battery of {vehicle_id} is worn out after {trips_driven} of {trips_asked} trips: "
            f"ask for at most {trips_driven} trips."
        )


class FolderOccupiedError(FirmwareSimError):
    """The output folder holds something that is not an earlier fleet."""

    def __init__(self, folder: Path, found: str) -> None:
        self.folder, self.found = folder, found
        super().__init__(
            f"{folder} is occupied: it {found}, which no earlier fleet wrote. "
            "Nothing was changed: name another folder or empty this one."
        )


class WriteFailedError(FirmwareSimError):
    """The operating system refused to write the files."""

    def __init__(self, folder: Path, cause: OSError) -> None:
        self.folder = folder
        super().__init__(
            f"The fleet could not be written to {folder} ({cause.strerror or cause}): "
            "check the free space and the permissions; what was there before is unchanged."
        )


class ExtraMissingError(FirmwareSimError):
    """A library that only some commands need is not installed, or does not load."""

    def __init__(self, library: str, extra: str) -> None:
        self.library, self.extra = library, extra
        super().__init__(
            f"{library} does not load: install the extra with `pip install 'living-twin[{extra}]'` "
            "(in a checkout: `.venv/bin/uv pip install --python .venv/bin/python "
            f"-e '.[{extra}]'`)."
        )


class SimulationFailedError(FirmwareSimError):
    """PyBaMM's solver gave up before the last cycle."""

    def __init__(self, cell_id: str, cycles_done: int, cycles_asked: int) -> None:
        self.cell_id, self.cycles_done, self.cycles_asked = cell_id, cycles_done, cycles_asked
        super().__init__(
            f"PyBaMM could not cycle {cell_id} beyond {cycles_done} of {cycles_asked} cycles: "
            "ask for fewer cycles."
        )


class BusError(FirmwareSimError):
    """There is no such CAN bus, or it cannot be opened."""

    def __init__(self, interface: str, channel: str, problem: str) -> None:
        self.interface, self.channel = interface, channel
        super().__init__(
            f"The bus {interface} {channel} cannot be opened ({problem}): for a virtual one on "
            "this machine use --interface udp_multicast --channel 239.74.163.2, or make a vcan0."
        )
