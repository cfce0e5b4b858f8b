-- Who may do what in the service's database. Run once as a superuser, connected to that database:
--   psql --dbname twin --file deploy/cloud/postgres-roles.sql
-- then give each role its password with \password, and make the tables:
--   twin-cloud database upgrade --database postgresql://twin_owner@HOST/twin
--
-- twin_owner    owns the tables: upgrades, backups, restores. No service runs as it.
-- twin_service  what the services run as. It owns nothing, so it can neither drop a table nor take
--               off a trigger that keeps revisions append-only, nor empty a table.
-- twin_reader   for verify, history, dashboards.

DO $$
DECLARE role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['twin_owner', 'twin_service', 'twin_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', role);
        END IF;
    END LOOP;
END $$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO twin_owner;
GRANT USAGE ON SCHEMA public TO twin_service, twin_reader;

ALTER DEFAULT PRIVILEGES FOR ROLE twin_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO twin_service;
ALTER DEFAULT PRIVILEGES FOR ROLE twin_owner IN SCHEMA public
    GRANT USAGE ON SEQUENCES TO twin_service;
ALTER DEFAULT PRIVILEGES FOR ROLE twin_owner IN SCHEMA public
    GRANT SELECT ON TABLES TO twin_reader;
