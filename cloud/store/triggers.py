"""What the database itself refuses: to change, remove or reorder what is append-only.

The same rules in the words of SQLite and of PostgreSQL; a refusal is an IntegrityError on both.
Must never be relaxed by a later version of the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from common.revision import GENESIS


@dataclass(frozen=True)
class Rule:
    """Of `table`: its `columns` (none: all of them) stay, and `number` rises within `within`.

    Where the rows are `chained`, each has as `parent_hash` the `hash` of the one before.
    """

    table: str
    named: str
    columns: str = ""
    number: str = ""
    within: str = ""
    chained: bool = False

    def last(self, column: str) -> str:
        """That column of the newest row before NEW."""
        return (
            f"(SELECT {column} FROM {self.table} WHERE {self.within} = NEW.{self.within} "  # noqa: S608 - names of ours
            f"ORDER BY {self.number} DESC LIMIT 1)"
        )


REVISIONS: Final = Rule(
    "revision",
    "revisions",
    "id, vehicle_id, number, bundle, odometer, cause_message_id, content, hash, key_id, signature, "
    "created_at, kind, inputs, parent_hash",
    "number",
    "vehicle_id",
    chained=True,
)
PRIORS: Final = Rule("fleet_prior", "fleet priors", "", "version", "bundle")
PROVISIONALS: Final = Rule("provisional", "provisionals")
NOTES: Final = Rule("revision_note", "notes")
STATEMENTS: Final = Rule("head_statement", "statements", "number, signed, made_at")
POLICIES: Final = Rule("policy", "policies", "", "version", "cohort")
RULES: Final = (REVISIONS, PRIORS, PROVISIONALS, NOTES, STATEMENTS, POLICIES)


def order_events(connection: Connection) -> None:
    """Let one transaction at a time add events, until it ends: their ids come in commit order.

    SQLite has one writer at a time anyway.
    """
    if connection.dialect.name == "postgresql":
        for statement in _ONE_AT_A_TIME:
            connection.exec_driver_sql(statement)


def create(connection: Connection, rules: tuple[Rule, ...] = RULES) -> None:
    """In a database that has the tables, and not these triggers yet."""
    for statement in statements(connection.dialect.name, rules):
        connection.exec_driver_sql(statement)


def replace(connection: Connection, rule: Rule) -> None:
    """The rule of a table that has one for fewer columns."""
    on = f" ON {rule.table}" if connection.dialect.name == "postgresql" else ""
    for what in ("is_not_updated", "is_not_deleted", "is_not_truncated", "follows", "is_chained"):
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {rule.table}_{what}{on}")
    create(connection, (rule,))


def statements(dialect: str, rules: tuple[Rule, ...] = RULES) -> list[str]:
    """What makes the triggers of these rules."""
    if dialect == "postgresql":
        return [_REFUSE, *(line for rule in rules for line in _postgres(rule))]
    return [line for rule in rules for line in _sqlite(rule)]


def _sqlite(rule: Rule) -> list[str]:
    table, told = rule.table, f"{rule.named} are append-only"
    of = f" OF {rule.columns}" if rule.columns else ""
    lines = [
        f"""CREATE TRIGGER {table}_is_not_updated BEFORE UPDATE{of} ON {table}
    BEGIN SELECT RAISE(ABORT, '{told}: an update was refused'); END""",
        f"""CREATE TRIGGER {table}_is_not_deleted BEFORE DELETE ON {table}
    BEGIN SELECT RAISE(ABORT, '{told}: a deletion was refused'); END""",
    ]
    if rule.number:  # it must rise, which also stops INSERT OR REPLACE
        lines.append(f"""CREATE TRIGGER {table}_follows BEFORE INSERT ON {table}
    WHEN NEW.{rule.number} IS NULL OR NEW.{rule.number} <= coalesce(
        (SELECT max({rule.number}) FROM {table} WHERE {rule.within} = NEW.{rule.within}), 0)
    BEGIN SELECT RAISE(ABORT, '{told}: a {rule.number} does not follow'); END""")  # noqa: S608 - names of ours
    if rule.chained:
        lines.append(f"""CREATE TRIGGER {table}_is_chained BEFORE INSERT ON {table}
    WHEN NEW.parent_hash IS NOT coalesce({rule.last("hash")}, '{GENESIS}')
    BEGIN SELECT RAISE(ABORT, '{told}: a parent is not the newest'); END""")
    return lines


_ONE_AT_A_TIME: Final = (
    """CREATE OR REPLACE FUNCTION twin_one_at_a_time() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock(hashtextextended(TG_TABLE_NAME, 0)); RETURN NULL; END $$""",
    """CREATE TRIGGER event_one_at_a_time BEFORE INSERT ON event
    FOR EACH STATEMENT EXECUTE FUNCTION twin_one_at_a_time()""",
)
_REFUSE: Final = """CREATE OR REPLACE FUNCTION twin_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation',
        MESSAGE = TG_ARGV[0] || ' are append-only: ' || TG_ARGV[1] || ' was refused'; END $$"""


def _postgres(rule: Rule) -> list[str]:
    table = rule.table
    of = f" OF {rule.columns}" if rule.columns else ""
    refuse = f"EXECUTE FUNCTION twin_refuse('{rule.named}', "
    lines = [
        f"""CREATE TRIGGER {table}_is_not_updated BEFORE UPDATE{of} ON {table}
    FOR EACH ROW {refuse}'an update')""",
        f"""CREATE TRIGGER {table}_is_not_deleted BEFORE DELETE ON {table}
    FOR EACH ROW {refuse}'a deletion')""",
        f"""CREATE TRIGGER {table}_is_not_truncated BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT {refuse}'a deletion')""",
    ]
    return lines + (_postgres_follows(rule) if rule.number else [])


def _postgres_follows(rule: Rule) -> list[str]:
    table, told = rule.table, f"{rule.named} are append-only"
    hold = parent = ""
    if rule.chained:  # without the lock two writers at once could both see the same newest row
        hold = f"PERFORM 1 FROM vehicle WHERE {rule.within} = NEW.{rule.within} FOR UPDATE;"
        parent = f"""IF NEW.parent_hash IS DISTINCT FROM coalesce({rule.last("hash")}, '{GENESIS}')
        THEN RAISE EXCEPTION '{told}: a parent is not the newest'
            USING ERRCODE = 'integrity_constraint_violation';
        END IF;"""
    return [
        f"""CREATE OR REPLACE FUNCTION {table}_must_follow() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {hold}
        IF NEW.{rule.number} IS NULL OR NEW.{rule.number} <= coalesce({rule.last(rule.number)}, 0)
        THEN RAISE EXCEPTION '{told}: a {rule.number} does not follow'
            USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        {parent}
        RETURN NEW;
    END $$""",
        f"""CREATE TRIGGER {table}_follows BEFORE INSERT ON {table}
    FOR EACH ROW EXECUTE FUNCTION {table}_must_follow()""",
    ]
