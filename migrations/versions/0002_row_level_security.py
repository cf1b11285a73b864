"""Row-level security, forced, on every table; grants of the app and worker roles."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TENANT_TABLES = (
    "api_keys",
    "chunks",
    "conversations",
    "document_fields",
    "document_versions",
    "documents",
    "idempotent_answers",
    "index_generations",
    "jobs",
    "messages",
)
# After the first transaction that set it the variable reads '' and not NULL, hence nullif.
TENANT = "nullif(current_setting('app.tenant_id', true), '')::uuid"
SCOPE = "current_setting('app.scope', true)"
KEY = "nullif(current_setting('app.key_id', true), '')"

# What one role may see beyond its tenant, each as narrow as its purpose: (table, name, command, role, condition).
NARROW_SCOPES = (
    ("api_keys", "key_lookup", "SELECT", "tessera_app", f"id = {KEY}"),
    ("idempotent_answers", "expiry_read", "SELECT", "tessera_worker", f"{SCOPE} = 'dispatcher'"),
    ("idempotent_answers", "expiry", "DELETE", "tessera_worker", f"{SCOPE} = 'dispatcher'"),
    ("jobs", "dispatch_read", "SELECT", "tessera_worker", f"{SCOPE} = 'dispatcher'"),
    ("jobs", "dispatch_write", "UPDATE", "tessera_worker", f"{SCOPE} = 'dispatcher'"),
    ("jobs", "erasure", "ALL", "tessera_app", f"{SCOPE} = 'admin' AND kind = 'erase_tenant'"),
    ("tenants", "own_row", "SELECT", "tessera_app, tessera_worker", f"id = {TENANT}"),
    ("tenants", "dispatch_read", "SELECT", "tessera_worker", f"{SCOPE} = 'dispatcher'"),
    ("tenants", "admin", "ALL", "tessera_app, tessera_worker", f"{SCOPE} = 'admin'"),
)
APP_GRANTS = {
    "SELECT": ("chunks", "index_generations"),
    "SELECT, INSERT, UPDATE": ("api_keys", "documents", "document_versions", "jobs", "tenants"),
    "SELECT, INSERT, UPDATE, DELETE": ("conversations", "messages", "idempotent_answers"),
    "SELECT, INSERT, DELETE": ("document_fields",),
}


def upgrade() -> None:
    # Token vectors are one-bit and do not compress: stored out of line as they are.
    op.execute("ALTER TABLE chunks ALTER COLUMN token_bits SET STORAGE EXTERNAL")
    op.execute("GRANT USAGE ON SCHEMA public TO tessera_app, tessera_worker")
    for table in (*TENANT_TABLES, "tenants"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO tessera_worker")
    for table in TENANT_TABLES:
        op.execute(
            f"CREATE POLICY tenant_guard ON {table} TO tessera_app, tessera_worker"
            f" USING (tenant_id = {TENANT}) WITH CHECK (tenant_id = {TENANT})"
        )
    for table, name, command, roles, condition in NARROW_SCOPES:
        check = "" if command in ("SELECT", "DELETE") else f" WITH CHECK ({condition})"
        op.execute(f"CREATE POLICY {name} ON {table} FOR {command} TO {roles} USING ({condition}){check}")
    for privileges, tables in APP_GRANTS.items():
        op.execute(f"GRANT {privileges} ON {', '.join(tables)} TO tessera_app")


def downgrade() -> None:
    for table, name, *_ in NARROW_SCOPES:
        op.execute(f"DROP POLICY {name} ON {table}")
    for table in TENANT_TABLES:
        op.execute(f"DROP POLICY tenant_guard ON {table}")
    for table in (*TENANT_TABLES, "tenants"):
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
        op.execute(f"REVOKE ALL ON {table} FROM tessera_app, tessera_worker")
    op.execute("REVOKE USAGE ON SCHEMA public FROM tessera_app, tessera_worker")
