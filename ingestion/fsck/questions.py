"""What Postgres's own rows promise each other, as questions that find who breaks a promise.

Each is one statement, so one moment. Its rows have `document_id`, `version` and `what` to name in a report.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import TextClause, text

from ingestion.editions import LIVE_EDITION
from ingestion.fsck.report import Class
from ingestion.fsck.truth import ON_ITS_WAY
from ingestion.models import UNFINISHED

_ACTIVE = (
    "SELECT d.id AS document_id, d.latest_version AS version, d.id AS what FROM documents d"
    " LEFT JOIN document_versions v ON v.tenant_id = d.tenant_id AND v.document_id = d.id"
    " AND v.version = d.active_version"
    " WHERE d.tenant_id = :tenant AND d.deleted_at IS NULL AND ((d.active_version IS NOT NULL AND (v.version IS NULL"
    " OR v.state <> 'active' OR v.version_no IS DISTINCT FROM d.active_version_no))"
    " OR (d.state = 'active') <> (d.active_version IS NOT NULL)"
    " OR (SELECT count(*) FROM document_versions o WHERE o.tenant_id = d.tenant_id AND o.document_id = d.id"
    " AND o.state = 'active') <> CASE WHEN d.active_version IS NULL THEN 0 ELSE 1 END)"
)
_CHUNK_COUNT = (
    "SELECT v.document_id, v.version, v.document_id AS what FROM document_versions v"
    " JOIN documents d ON d.tenant_id = v.tenant_id AND d.id = v.document_id AND d.active_version = v.version"
    " WHERE v.tenant_id = :tenant AND v.state = 'active' AND d.deleted_at IS NULL AND v.chunk_count IS DISTINCT FROM"
    " (SELECT count(*) FROM chunks c WHERE c.tenant_id = v.tenant_id AND c.document_id = v.document_id"
    " AND c.version = v.version AND c.edition = <live edition>) AND NOT <on its way>"
)
_LEFT_CHUNKS = (
    "SELECT v.document_id, v.version, v.document_id AS what FROM document_versions v"
    " WHERE v.tenant_id = :tenant AND v.state NOT IN ('active', 'pending') AND NOT <on its way> AND EXISTS"
    " (SELECT FROM chunks c WHERE c.tenant_id = v.tenant_id AND c.document_id = v.document_id"
    " AND c.version = v.version)"
)
_LEFT_EDITIONS = (
    "SELECT DISTINCT c.document_id, c.version, c.document_id AS what FROM chunks c WHERE c.tenant_id = :tenant"
    " AND EXISTS (SELECT FROM index_generations g WHERE g.tenant_id = :tenant AND g.state = 'live')"
    " AND NOT EXISTS (SELECT FROM index_generations g WHERE g.tenant_id = c.tenant_id AND g.edition = c.edition"
    " AND g.state <> 'gone')"
    " AND NOT EXISTS (SELECT FROM jobs j WHERE j.tenant_id = c.tenant_id AND j.kind = 'drop_generation' AND <waits>)"
)
_UNPLACED = (
    "SELECT DISTINCT d.id AS document_id, d.active_version AS version, d.id AS what FROM index_generations g"
    " JOIN documents d ON d.tenant_id = g.tenant_id AND d.deleted_at IS NULL"
    " JOIN chunks c ON c.tenant_id = d.tenant_id AND c.document_id = d.id AND c.version = d.active_version"
    " AND c.edition = g.edition"
    " WHERE g.tenant_id = :tenant AND g.state = 'live' AND NOT EXISTS (SELECT FROM chunk_cells k"
    " WHERE k.tenant_id = g.tenant_id AND k.generation = g.generation AND k.version_no = d.active_version_no"
    " AND k.chunk_id = c.id)"
)
_NO_INDEX = (
    "SELECT d.id AS document_id, d.active_version AS version, d.id AS what FROM documents d WHERE d.tenant_id = :tenant"
    " AND d.deleted_at IS NULL AND d.active_version IS NOT NULL AND NOT EXISTS (SELECT FROM index_generations g"
    " WHERE g.tenant_id = d.tenant_id AND g.state = 'live')"
)
_LEFT_PLACES = (
    "SELECT DISTINCT CAST(NULL AS uuid) AS document_id, k.version_no AS version, CAST(k.version_no AS text) AS what"
    " FROM index_generations g JOIN chunk_cells k ON k.tenant_id = g.tenant_id AND k.generation = g.generation"
    " LEFT JOIN document_versions v ON v.tenant_id = k.tenant_id AND v.version_no = k.version_no"
    " LEFT JOIN chunks c ON c.tenant_id = k.tenant_id AND c.id = k.chunk_id AND c.edition = g.edition"
    " WHERE g.tenant_id = :tenant AND g.state = 'live' AND (v.version IS NULL OR NOT <on its way>)"
    " AND (v.state IS DISTINCT FROM 'active' OR c.id IS NULL)"
)
_MICROS = (
    # The places are counted once, not once for each micro-cell.
    "WITH counted AS MATERIALIZED (SELECT k.micro, count(*) AS rows FROM chunk_cells k WHERE k.tenant_id = :tenant"
    " AND k.generation = <live generation> GROUP BY k.micro), wrong AS (SELECT FROM micro_cells m LEFT JOIN counted n"
    " ON n.micro = m.micro WHERE m.tenant_id = :tenant AND m.generation = <live generation>"
    " AND m.rows <> coalesce(n.rows, 0))"
    " SELECT CAST(NULL AS uuid) AS document_id, g.generation AS version, g.collection AS what FROM index_generations g"
    " WHERE g.tenant_id = :tenant AND g.state = 'live'"
    " AND (g.rows <> (SELECT coalesce(sum(n.rows), 0) FROM counted n) OR EXISTS (SELECT FROM wrong))"
)
_LOST_JOBS = (
    "SELECT j.document_id, j.version, j.id AS what FROM jobs j WHERE j.tenant_id = :tenant AND j.state = 'running'"
    " AND (j.batch_id IS NULL OR j.lease_until IS NULL OR j.lease_until < now() - interval '5 minutes')"
)
_PENDING = (
    "SELECT v.document_id, v.version, v.document_id AS what FROM document_versions v"
    " JOIN documents d ON d.tenant_id = v.tenant_id AND d.id = v.document_id AND d.deleted_at IS NULL"
    " WHERE v.tenant_id = :tenant AND v.state = 'pending' AND NOT <on its way>"
)
_REPLACED = (
    "SELECT v.document_id, v.version, v.document_id AS what FROM document_versions v"
    " WHERE v.tenant_id = :tenant AND v.state = 'replaced' AND NOT <on its way>"
)
_DELETED = (
    "SELECT d.id AS document_id, d.latest_version AS version, d.id AS what FROM documents d"
    " WHERE d.tenant_id = :tenant AND d.deleted_at IS NOT NULL AND NOT EXISTS (SELECT FROM jobs j"
    " WHERE j.tenant_id = d.tenant_id AND j.document_id = d.id AND j.kind = 'delete' AND <waits>)"
)
_UNDROPPED = (
    "SELECT CAST(NULL AS uuid) AS document_id, g.generation AS version, g.collection AS what FROM index_generations g"
    " WHERE g.tenant_id = :tenant AND (g.state = 'retired' AND g.retired_at < <late> OR EXISTS (SELECT"
    " FROM cell_changes x WHERE x.tenant_id = g.tenant_id AND x.generation = g.generation AND x.state = 'flipped'"
    " AND x.changed_at < <late>)) AND NOT EXISTS (SELECT FROM jobs j WHERE j.tenant_id = g.tenant_id"
    " AND j.kind = 'drop_generation' AND <waits>)"
)
# A first generation is planned once: the tenant's next upload goes on with it. A paused job waits, too.
NOBODY_FINISHES = (
    "(g.state = 'embedding' OR g.state = 'building' AND EXISTS (SELECT FROM index_generations l"  # noqa: S608 - constants
    " WHERE l.tenant_id = g.tenant_id AND l.state = 'live')) AND NOT EXISTS (SELECT FROM jobs j"
    " WHERE j.tenant_id = g.tenant_id AND j.kind = CASE g.state WHEN 'embedding' THEN 'reembed' ELSE 'partition' END"
    f" AND j.{UNFINISHED})"
)
"""Whether a generation `g` was begun and no job is to finish it."""
_UNBUILT = (
    "SELECT CAST(NULL AS uuid) AS document_id, g.generation AS version, g.collection AS what FROM index_generations g"
    " WHERE g.tenant_id = :tenant AND g.created_at < <late> AND <nobody finishes>"
)
_COUNTS = (
    "SELECT (SELECT count(*) FROM documents d WHERE d.tenant_id = :tenant AND d.deleted_at IS NULL) AS documents,"
    " (SELECT count(*) FROM document_versions v WHERE v.tenant_id = :tenant) AS versions,"
    " (SELECT count(*) FROM document_versions v WHERE v.tenant_id = :tenant"
    " AND v.state <> 'active' AND <on its way>) AS versions_on_their_way,"
    " (SELECT coalesce(sum(v.chunk_count), 0) FROM document_versions v WHERE v.tenant_id = :tenant"
    " AND v.state = 'active') AS chunks"
)


@dataclass(frozen=True)
class Question:
    """A promise of the rows, and how its breach is called."""

    name: str
    kind: Class
    why: str
    sql: str

    @property
    def query(self) -> TextClause:
        """Return the statement; it takes `tenant`."""
        return _statement(self.sql)


def _statement(sql: str) -> TextClause:
    for name, meaning in _MEANINGS.items():
        sql = sql.replace(name, meaning)
    return text(sql)


_MEANINGS = {
    "<on its way>": ON_ITS_WAY.format("v", "document_id"),
    "<live edition>": LIVE_EDITION,
    "<live generation>": "(SELECT l.generation FROM index_generations l WHERE l.tenant_id = :tenant"
    " AND l.state = 'live')",
    "<waits>": f"j.{UNFINISHED}",
    "<nobody finishes>": NOBODY_FINISHES,
    "<late>": "now() - interval '10 minutes'",
}
COUNTS = _statement(_COUNTS)
"""How much there is of a tenant, in one row."""
QUESTIONS = (
    Question("active", "active_version", "the active version is not the one that the document names", _ACTIVE),
    Question("count", "chunk_count", "the active version has another number of chunks than it says", _CHUNK_COUNT),
    Question("chunks", "stale", "chunks of a version that is not served", _LEFT_CHUNKS),
    Question("editions", "stale", "chunks of an edition that no index has", _LEFT_EDITIONS),
    Question("no_index", "catalog", "a served document and no live generation", _NO_INDEX),
    Question("unplaced", "catalog", "a served chunk has no place in the live generation", _UNPLACED),
    Question("places", "catalog", "a place of a chunk that is not served", _LEFT_PLACES),
    Question("micros", "catalog", "the rows of micro-cells are not those of their chunks", _MICROS),
    Question("lost", "job", "runs without a lease", _LOST_JOBS),
    Question("pending", "job", "a version waits and no job is to ingest it", _PENDING),
    Question("replaced", "job", "a version was replaced and no job is to purge it", _REPLACED),
    Question("deleted", "job", "a document was deleted and no job is to purge it", _DELETED),
    Question("unbuilt", "job", "an index was begun and no job is to finish it", _UNBUILT),
    Question("undropped", "job", "an index was replaced and no job is to drop it", _UNDROPPED),
)
