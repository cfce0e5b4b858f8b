BEGIN TRANSACTION;
CREATE TABLE battery_order (
	id INTEGER NOT NULL, 
	vehicle_id VARCHAR NOT NULL, 
	odometer FLOAT NOT NULL, 
	ordered_by VARCHAR NOT NULL, 
	why VARCHAR NOT NULL, 
	ordered_at FLOAT NOT NULL, 
	revision INTEGER, 
	PRIMARY KEY (id), 
	UNIQUE (vehicle_id, odometer)
);
CREATE TABLE breach (
	id INTEGER NOT NULL, 
	vehicle_id VARCHAR NOT NULL, 
	message_id VARCHAR NOT NULL, 
	trip_id VARCHAR NOT NULL, 
	bundle VARCHAR NOT NULL, 
	revision INTEGER NOT NULL, 
	odometer FLOAT NOT NULL, 
	error_v FLOAT NOT NULL, 
	threshold_v FLOAT NOT NULL, 
	trace BLOB NOT NULL, 
	received_at FLOAT NOT NULL, 
	state VARCHAR NOT NULL, 
	reason VARCHAR, 
	decided_at FLOAT, 
	heard_at FLOAT, 
	PRIMARY KEY (id), 
	UNIQUE (message_id, vehicle_id)
);
CREATE TABLE fleet_prior (
	id INTEGER NOT NULL, 
	bundle VARCHAR NOT NULL, 
	version INTEGER NOT NULL, 
	content BLOB NOT NULL, 
	hash VARCHAR NOT NULL, 
	made_at FLOAT NOT NULL, 
	fleet_vehicles INTEGER NOT NULL, 
	fleet_revisions INTEGER NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (bundle, version)
);
CREATE TABLE quarantine (
	id INTEGER NOT NULL, 
	topic VARCHAR NOT NULL, 
	payload BLOB NOT NULL, 
	payload_bytes INTEGER NOT NULL, 
	error VARCHAR NOT NULL, 
	reason VARCHAR NOT NULL, 
	received_at FLOAT NOT NULL, 
	digest VARCHAR NOT NULL, 
	times INTEGER NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (digest)
);
CREATE TABLE revision (
	id INTEGER NOT NULL, 
	vehicle_id VARCHAR NOT NULL, 
	number INTEGER NOT NULL, 
	bundle VARCHAR NOT NULL, 
	odometer FLOAT NOT NULL, 
	cause_message_id VARCHAR NOT NULL, 
	content BLOB NOT NULL, 
	hash VARCHAR NOT NULL, 
	key_id VARCHAR NOT NULL, 
	signature VARCHAR NOT NULL, 
	created_at FLOAT NOT NULL, 
	published_at FLOAT, 
	verdict VARCHAR, 
	verdict_reason VARCHAR, 
	verdict_detail VARCHAR, 
	verdict_at FLOAT, 
	trace_error_before_v FLOAT, 
	trace_error_after_v FLOAT, 
	kind VARCHAR DEFAULT 'breach' NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (vehicle_id, number), 
	UNIQUE (vehicle_id, cause_message_id)
);
CREATE TABLE schema_version (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "schema_version" VALUES(2);
CREATE TABLE signing_key (
	key_id VARCHAR NOT NULL, 
	public_key VARCHAR NOT NULL, 
	PRIMARY KEY (key_id)
);
CREATE TABLE trip (
	id INTEGER NOT NULL, 
	vehicle_id VARCHAR NOT NULL, 
	message_id VARCHAR NOT NULL, 
	trip_id VARCHAR NOT NULL, 
	bundle VARCHAR NOT NULL, 
	revision INTEGER NOT NULL, 
	started_at FLOAT NOT NULL, 
	duration_s FLOAT NOT NULL, 
	odometer_start FLOAT NOT NULL, 
	odometer_end FLOAT NOT NULL, 
	samples INTEGER NOT NULL, 
	refused_samples INTEGER NOT NULL, 
	error_v FLOAT NOT NULL, 
	band95_v FLOAT NOT NULL, 
	coverage95 FLOAT NOT NULL, 
	feature_means BLOB NOT NULL, 
	breach BOOLEAN NOT NULL, 
	partial BOOLEAN NOT NULL, 
	received_at FLOAT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (message_id, vehicle_id)
);
CREATE TABLE vehicle (
	vehicle_id VARCHAR NOT NULL, 
	first_seen_at FLOAT NOT NULL, 
	last_seen_at FLOAT, 
	bundle VARCHAR, 
	revision INTEGER, 
	online BOOLEAN, 
	agent_version VARCHAR, 
	outbox_depth INTEGER, 
	dropped_trips INTEGER, 
	dropped_breaches INTEGER, 
	refused_samples INTEGER, 
	refused_messages INTEGER, 
	trips INTEGER NOT NULL, 
	breaches INTEGER NOT NULL, 
	odometer FLOAT, 
	last_trip_error_v FLOAT, 
	last_trip_received_at FLOAT, 
	calibrations INTEGER NOT NULL, 
	failures INTEGER NOT NULL, 
	estimate_state VARCHAR NOT NULL, 
	started BOOLEAN NOT NULL, 
	PRIMARY KEY (vehicle_id)
);
CREATE INDEX vehicle_not_started ON vehicle (bundle, vehicle_id) WHERE NOT started;
CREATE INDEX trip_by_odometer ON trip (vehicle_id, odometer_end, id);
CREATE INDEX breach_unheard ON breach (id) WHERE state = 'declined' AND heard_at IS NULL;
CREATE INDEX breach_pending ON breach (vehicle_id, odometer, id) WHERE state = 'pending';
CREATE INDEX revision_replacement ON revision (vehicle_id, number) WHERE kind = 'replacement';
CREATE INDEX revision_unanswered ON revision (vehicle_id, number) WHERE verdict IS NULL;
CREATE INDEX battery_order_pending ON battery_order (id) WHERE revision IS NULL;
CREATE TRIGGER revision_is_not_updated BEFORE UPDATE OF id, vehicle_id, number, bundle, odometer, cause_message_id, content, hash, key_id, signature, created_at, kind ON revision
    BEGIN SELECT RAISE(ABORT, 'revisions are append-only: an update was refused'); END;
CREATE TRIGGER revision_is_not_deleted BEFORE DELETE ON revision
    BEGIN SELECT RAISE(ABORT, 'revisions are append-only: a deletion was refused'); END;
CREATE TRIGGER revision_follows BEFORE INSERT ON revision
    WHEN NEW.number IS NULL OR NEW.number <= coalesce(
        (SELECT max(number) FROM revision WHERE vehicle_id = NEW.vehicle_id), 0)
    BEGIN SELECT RAISE(ABORT, 'revisions are append-only: a number does not follow'); END;
CREATE TRIGGER fleet_prior_is_not_updated BEFORE UPDATE ON fleet_prior
    BEGIN SELECT RAISE(ABORT, 'fleet priors are append-only: an update was refused'); END;
CREATE TRIGGER fleet_prior_is_not_deleted BEFORE DELETE ON fleet_prior
    BEGIN SELECT RAISE(ABORT, 'fleet priors are append-only: a deletion was refused'); END;
CREATE TRIGGER fleet_prior_follows BEFORE INSERT ON fleet_prior
    WHEN NEW.version IS NULL OR NEW.version <= coalesce(
        (SELECT max(version) FROM fleet_prior WHERE bundle = NEW.bundle), 0)
    BEGIN SELECT RAISE(ABORT, 'fleet priors are append-only: a version does not follow'); END;
COMMIT;
