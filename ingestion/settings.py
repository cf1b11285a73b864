"""Settings of the write line."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class IngestSettings(BaseModel):
    """Limits and sizes of uploads, parsing, chunking and batching."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    max_upload_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    """Largest upload; the body is cut while it streams in."""
    intake_bytes: int = Field(default=256 * 1024 * 1024, ge=1)
    """Uploads that one API process reads in at a time; a tenant may take no more than it leaves free. More is answered
    429."""
    upload_grace_s: float = Field(default=30.0, gt=0)
    """An upload is waited for this long, and longer for what has come (see below); then it is answered 408."""
    upload_bytes_per_s: int = Field(default=64 * 1024, ge=1)
    """Each so many bytes that have come are worth another second."""
    stored_at_once: int = Field(default=8, ge=1)
    """Requests whose originals one API process stores at a time: each has a connection to Postgres as long as the
    object store takes. More wait, and after half a minute are answered 429."""
    filters_per_tenant: int = Field(default=4, ge=1)
    """Lists and deletes by a filter that one API process does at a time for a tenant: each may read all its documents.
    More wait, and after ten seconds are answered 429."""
    queue_documents: int = Field(default=100_000, ge=1)
    """Documents of one tenant that may wait; more are answered 429 until some are done."""
    queue_bytes: int = Field(default=16 * 1024**3, ge=1)
    """Their content."""
    max_metadata_bytes: int = Field(default=16 * 1024, ge=2)
    """Largest `metadata` of one document."""
    max_text_chars: int = Field(default=20_000_000, ge=1)
    """Longest extracted text of one document."""
    max_pages: int = Field(default=2000, ge=1)
    """Most pages of one document."""
    parse_memory_bytes: int = Field(default=1024**3, ge=64 * 1024**2)
    """Address space of a parser process."""
    parse_cpu_s: int = Field(default=60, ge=1)
    """CPU seconds for parsing one document."""
    parse_wall_s: float = Field(default=120.0, gt=0)
    """Seconds for parsing one document."""
    ocr: Literal["auto", "off"] = "auto"
    """`auto`: scanned pages are read where Tesseract is installed. `off`: they never are."""
    ocr_languages: str = Field(default="eng", pattern=r"^[A-Za-z_]+(\+[A-Za-z_]+)*$")
    """Languages of scanned pages, by the names of Tesseract's data files: `eng+deu`."""
    ocr_data: str | None = None
    """Folder of Tesseract's data files, where it is not the one that Tesseract knows itself."""
    ocr_max_pages: int = Field(default=40, ge=1)
    """Most scanned pages of one document that are read; each takes about a second."""
    chunk_tokens: int = Field(default=200, ge=32)
    """Upper bound of a chunk's own text, in tokens of the embedder; headings come on top, within the model's limit."""
    batch_documents: int = Field(default=128, ge=1)
    """Documents of one tenant that one task takes together; fewer while several tenants wait."""
    batch_bytes: int = Field(default=2 * 1024 * 1024, ge=1)
    """Bytes of content that one task takes together (a larger document goes alone), and the quantum of fairness."""
    in_flight: int = Field(default=4, ge=1)
    """Batches given to the broker at one time, over all tenants, for each worker process that lives."""
    in_flight_per_tenant: int = Field(default=3, ge=1)
    """The same for one tenant."""
    slow_in_flight: int = Field(default=2, ge=1)
    """Slow documents in work at one time, beside these, for each worker process."""
    background_in_flight: int = Field(default=2, ge=1)
    """Upkeep of indexes, runs of sources and checks in work at one time, beside these, for each worker process."""
    patience_s: float = Field(default=2.0, gt=0)
    """A document that takes longer to parse is slow: the others of its batch go on without it."""
    long_chunks: int = Field(default=500, ge=1)
    """A document of more chunks is slow as well, however quickly it is parsed: two cores embed 141 a second."""
    batch_chunks: int = Field(default=1500, ge=1)
    """When a task of the main lane has so many chunks it begins no further document: what is left of its batch waits
    for the tenant's next turn."""
    batch_s: float = Field(default=20.0, gt=0)
    """The same after so many seconds."""
    streams_per_tenant: int = Field(default=20, ge=1)
    """Streams of job events that a tenant may have open, over all API processes."""
    max_attempts: int = Field(default=3, ge=1)
    """How often a job is tried before it fails."""
    lease_s: float = Field(default=15.0, gt=1)
    """A running job whose lease is not renewed for this long is given to another worker."""
    workers: int = Field(default=1, ge=1, le=16)
    """Worker processes of the local stack; each parses and embeds on every core."""
    drain_s: float = Field(default=20.0, ge=0)
    """Seconds after SIGTERM in which a worker ends what it has begun; the rest it hands back, for another to do."""
    queues: str = ""
    """Queues that a worker reads, separated by commas: `tessera` is that of all work but what needs a model of
    `sentence-transformers`, `gpu` that of such models unless they name another. Without it `tessera`, and where
    `tessera[torch]` is installed also those of all declared models."""
    sole_worker: bool = False
    """There is one worker process alone, as in the local stack: when it starts, whatever ran before has lost its worker
    and is given out at once, without waiting for the lease."""
    poll_s: float = Field(default=0.1, gt=0)
    """Least seconds between two looks of the dispatcher at the queue. It looks when there is something new."""
    fsck_every_s: float = Field(default=86_400.0, ge=0)
    """Every tenant's stores are compared with Postgres once in so many seconds; 0 only when asked."""
    sweep_every_s: float = Field(default=86_400.0, ge=0)
    """What tenants' retention says is applied once in so many seconds; 0 never."""
    jobs_kept_days: int = Field(default=30, ge=1)
    """Jobs are forgotten so many days after they ended, failed ones too. Those of deletions are kept, as evidence."""
    fsck_object_age_s: float = Field(default=3600.0, ge=0)
    """An object of no version is left alone for so many seconds: its upload may not have committed yet."""
