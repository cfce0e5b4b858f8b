"""Errors of the service: what was wrong, where, and what to do.

Must never hold logic beyond building a sentence.
"""

from __future__ import annotations

from common.errors import ContractError, TransientError, TwinError


class ConfigError(TwinError):
    """The configuration file cannot be used."""

    def __init__(self, path: object, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(
            f"The configuration {path} cannot be used: {problem}. Correct it and start again."
        )


class StoreError(TwinError):
    """The database file cannot be used; it was left as it is."""

    def __init__(self, path: object, problem: str, remedy: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(f"The database {path} cannot be used: {problem}. {remedy}")


class PortOccupiedError(TwinError):
    """The API's address is taken, or is not one of this machine's."""

    def __init__(self, host: str, port: int, problem: str) -> None:
        self.host, self.port = host, port
        super().__init__(
            f"The API cannot listen on {host}:{port} ({problem}): end the program that does, "
            "or give another [api] port."
        )


class RoleError(TwinError):
    """This role cannot run on this database."""

    def __init__(self, role: str, location: object) -> None:
        self.role = role
        super().__init__(
            f"`twin-cloud {role}` shares the work with other processes, which {location} does not "
            "allow: give [store] a postgresql:// url, or run `twin-cloud serve`."
        )


class LinkError(TwinError):
    """The link to the broker cannot even be set up."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"The broker link cannot be set up: {problem}. Correct [mqtt].")


class StoreUnavailableError(TransientError):
    """The database does not take or give anything at the moment."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"The database does not answer ({cause}): free its disk or its lock.")


class BackupError(TwinError):
    """The database cannot be copied, or not be brought back."""

    def __init__(self, where: object, problem: str) -> None:
        self.problem = problem
        super().__init__(f"No copy was made of or from {where}: {problem}.")


class OvertakenError(TransientError):
    """Another worker has done meanwhile what this one was at."""

    def __init__(self, breaches: int) -> None:
        super().__init__(
            f"Of {breaches} breaches not all are pending any more: another worker took them over, "
            "and what this one found is dropped."
        )


class FleetPriorError(TwinError):
    """A stored fleet prior cannot be used."""

    def __init__(self, bundle: str, version: int, problem: str) -> None:
        self.bundle, self.version, self.problem = bundle, version, problem
        super().__init__(
            f"Version {version} of the fleet prior of bundle {bundle[:12]}… cannot be used: "
            f"{problem}. Restore the database from a backup, or make a new version."
        )


class RollBackError(TwinError):
    """A vehicle cannot be given the content of that revision again."""

    def __init__(self, vehicle_id: str, number: int, problem: str) -> None:
        self.vehicle_id, self.number, self.problem = vehicle_id, number, problem
        super().__init__(
            f"Vehicle {vehicle_id} cannot go back to revision {number}: {problem}. "
            "`twin-cloud history` lists its revisions."
        )


class KeyOrderError(TwinError):
    """A statement about keys cannot be made, or the service's own key may not sign."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"The keys stay as they are: {problem}. See `twin-cloud keys list`.")


class NotAuthenticatedError(TwinError):
    """Who asks has not shown who it is; the problem is for the log alone."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"Nobody is let in by what was shown: {problem}.")


class IssuerUnavailableError(TransientError):
    """The OIDC issuer does not give its keys at the moment."""

    def __init__(self, issuer: str, cause: object) -> None:
        self.issuer = issuer
        super().__init__(f"The issuer {issuer} does not give its keys ({cause}): check [oidc].")


class SecretError(TwinError):
    """A secret that is needed cannot be had."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"A secret is missing: {problem}. Correct the configuration.")


class SignerUnavailableError(TransientError):
    """The token or service that holds the signing key does not sign at the moment."""

    def __init__(self, where: str, cause: object) -> None:
        self.where = where
        told = str(cause) or type(cause).__name__
        super().__init__(f"The {where} does not sign ({told}): check it and [keys].")


class UnsignableError(TwinError):
    """What is to be signed is longer than whoever holds the key takes."""

    def __init__(self, where: str, size: int, largest: int) -> None:
        self.where, self.size, self.largest = where, size, largest
        super().__init__(
            f"The {where} signs at most {largest} bytes, and these are {size}: sign with a file "
            "or a PKCS#11 token."
        )


class AuthorityError(TwinError):
    """The certificate authority does not do what is asked of it."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"The certificate authority refuses: {problem}.")


class ApiKeyError(TwinError):
    """An API key cannot be made or changed so."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"The API keys stay as they are: {problem}.")


class AwsEnrolmentError(TwinError):
    """A name cannot be enrolled in, or put out of, AWS IoT Core's registry."""

    def __init__(self, name: str, problem: str) -> None:
        self.name, self.problem = name, problem
        super().__init__(f"Nothing was changed for {name} in AWS's registry: {problem}.")


class BatteryOrderError(TwinError):
    """A battery cannot be taken as replaced."""

    def __init__(self, vehicle_id: str, problem: str) -> None:
        self.vehicle_id, self.problem = vehicle_id, problem
        super().__init__(
            f"The battery of vehicle {vehicle_id} cannot be taken as replaced: {problem}."
        )


class ApprovalError(TwinError):
    """A revision does not wait for an operator's decision."""

    def __init__(self, vehicle_id: str, number: int, problem: str) -> None:
        self.vehicle_id, self.number, self.problem = vehicle_id, number, problem
        super().__init__(
            f"Revision {number} of vehicle {vehicle_id} cannot be approved or rejected: {problem}. "
            "`GET /api/v1/approvals` lists what waits."
        )


class WebhookError(TwinError):
    """Nothing can be, or may be, sent to a webhook."""

    def __init__(self, url: str, problem: str) -> None:
        self.url, self.problem = url, problem
        super().__init__(f"The webhook {url} cannot be used: {problem}.")


class KeyReusedError(TwinError):
    """An Idempotency-Key came again with another request."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(
            f"The Idempotency-Key {key!r} belongs to another request: give each write its own."
        )


class KeyInUseError(TransientError):
    """The first request with an Idempotency-Key has not been answered yet."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(
            f"The request with the Idempotency-Key {key!r} is being carried out: ask again shortly."
        )


class ForeignVehicleError(ContractError):
    """The payload names another vehicle than its topic."""

    def __init__(self, topic_id: str, payload_id: str) -> None:
        self.topic_id, self.payload_id = topic_id, payload_id
        super().__init__(
            f"The message says vehicle {payload_id} on the topic of {topic_id}: "
            "a vehicle speaks for itself alone."
        )


class UnknownBundleError(ContractError):
    """No bundle of this service has the given hash."""

    def __init__(self, sha256: str) -> None:
        self.sha256 = sha256
        super().__init__(
            f"Bundle {sha256[:12]}… is none of this service's: add its folder to [bundles] paths."
        )


class UnknownRevisionError(ContractError):
    """An acknowledgement is about a revision that this service never made."""

    def __init__(self, vehicle_id: str, number: int, digest: str) -> None:
        self.vehicle_id, self.number, self.digest = vehicle_id, number, digest
        super().__init__(
            f"Vehicle {vehicle_id} acknowledges revision {number} ({digest[:12]}…), which this "
            "service never made: find out which service did."
        )


class UnknownReleaseError(ContractError):
    """A vehicle speaks of a release that this service never announced to it."""

    def __init__(self, vehicle_id: str, number: int) -> None:
        self.vehicle_id, self.number = vehicle_id, number
        super().__init__(
            f"Vehicle {vehicle_id} speaks of release {number}, which this service never announced "
            "to it: announce the bundle again."
        )


class CalibrationFailedError(ContractError):
    """A breach over which the calibration itself failed."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"No revision came of it: {problem}. Send it again with `twin-cloud quarantine retry` "
            "when the cause is mended."
        )


class RetryError(TwinError):
    """A message in the quarantine cannot be taken in again."""

    def __init__(self, number: int, problem: str) -> None:
        self.number, self.problem = number, problem
        super().__init__(f"Message {number} of the quarantine stays there: {problem}.")


class UnstorableMessageError(ContractError):
    """A message that parses, but that the database refuses to hold."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"The message cannot be stored ({cause}). Correct its sender.")


class HeadsError(TwinError):
    """Signed statements of chain heads cannot be believed."""

    def __init__(self, number: int, problem: str) -> None:
        self.number, self.problem = number, problem
        super().__init__(
            f"Statement {number} of the chains' heads cannot be believed: {problem}. "
            "Compare it with another copy, and find out who edited it."
        )


class HeadsExportError(TransientError):
    """A statement cannot be written where it is to be kept."""

    def __init__(self, where: object, problem: str) -> None:
        self.where, self.problem = where, problem
        super().__init__(f"Statements cannot be kept in {where}: {problem}. Correct [heads].")


class RecalibrationError(TwinError):
    """A vehicle's history cannot be replayed from that revision."""

    def __init__(self, vehicle_id: str, number: int, problem: str) -> None:
        self.vehicle_id, self.number, self.problem = vehicle_id, number, problem
        super().__init__(
            f"Vehicle {vehicle_id} cannot be recalibrated from revision {number}: {problem}. "
            "`twin-cloud history` lists its revisions."
        )


class PinError(TwinError):
    """A vehicle cannot be pinned, or is not."""

    def __init__(self, vehicle_id: str, problem: str) -> None:
        self.vehicle_id, self.problem = vehicle_id, problem
        super().__init__(f"Vehicle {vehicle_id}: {problem}.")


class RolloutError(TwinError):
    """A roll-out cannot begin, or not do now what it is told."""

    def __init__(self, name: str, problem: str) -> None:
        self.name, self.problem = name, problem
        super().__init__(f"Roll-out {name!r}: {problem}.")


class ReproductionError(TwinError):
    """A revision cannot be computed again: something that it was made from is not there."""

    def __init__(self, vehicle_id: str, number: int, problem: str) -> None:
        self.vehicle_id, self.number, self.problem = vehicle_id, number, problem
        super().__init__(
            f"Revision {number} of vehicle {vehicle_id} cannot be computed again: {problem}."
        )


class TraceGoneError(TwinError):
    """A trace has outlived what `[traces] keep_days` keeps."""

    def __init__(self, vehicle_id: str, trip_id: str, kept_until: str) -> None:
        self.vehicle_id, self.trip_id, self.kept_until = vehicle_id, trip_id, kept_until
        self.problem = f"of trip {trip_id} nothing is left: its trace was kept until {kept_until}"
        super().__init__(f"Vehicle {vehicle_id}: {self.problem}.")


class TraceFileError(TwinError):
    """A file of the archive of traces is not there, or not as it was written."""

    def __init__(self, where: object, problem: str) -> None:
        self.where = where
        self.problem = f"the file of traces {where} cannot be used: {problem}"
        super().__init__(
            f"{self.problem[0].upper()}{self.problem[1:]}. Bring it back from a copy, or correct "
            "[traces] archive."
        )


class TraceArchiveError(TransientError):
    """The archive of traces does not take or give anything at the moment."""

    def __init__(self, where: object, problem: str) -> None:
        self.where, self.problem = where, problem
        super().__init__(f"The archive of traces {where} does not answer: {problem}.")
