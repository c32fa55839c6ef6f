"""what users may read by themselves, in databases of Supabase: from now on `row_security` sees to it"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing here: it is done at the end of each upgrade, by env.py, for the tables that are there then."""


def downgrade() -> None:
    """Users may read nothing. Row-level security stays on: it is in no backend's way."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_CLOSE)


_CLOSE = """
DO $$
DECLARE
    opened name;
BEGIN
    FOR opened IN
        SELECT tablename FROM pg_policies
        WHERE schemaname = current_schema() AND policyname = 'users_read_their_own'
    LOOP
        EXECUTE format('DROP POLICY users_read_their_own ON %I', opened);
        EXECUTE format('REVOKE ALL ON %I FROM anon, authenticated', opened);
        IF EXISTS (
            SELECT FROM pg_publication_tables AS published JOIN pg_publication USING (pubname)
            WHERE pubname = 'supabase_realtime' AND NOT puballtables
                AND pg_has_role(current_user, pubowner, 'USAGE')
                AND published.schemaname = current_schema() AND published.tablename = opened
        ) THEN
            EXECUTE format('ALTER PUBLICATION supabase_realtime DROP TABLE %I', opened);
        END IF;
    END LOOP;
END $$
"""
