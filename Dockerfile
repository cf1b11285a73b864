# One image for every process of Tessera: API (the default), worker, scheduler, and the `tessera` command.
# It holds no server, no compiler, no tool of the set-up and no secret, runs as an ordinary user, and needs to write
# nowhere but in /tmp. `docker build -t tessera .`; scanned pages are read with --build-arg OCR=1, and
# --build-arg TORCH=1 makes the image of workers with GPUs.

# Debian 12, the platform that the tests run on.
ARG PYTHON=python:3.11.14-slim-bookworm

FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1
RUN python -m venv --without-pip /opt/tessera
COPY requirements-image.lock /tmp/
# Wheels with the hashes of the lock, and nothing else: no source is built, no dependency looked up.
RUN pip --python /opt/tessera/bin/python install --require-hashes --no-deps --only-binary :all: \
    --requirement /tmp/requirements-image.lock
ARG TORCH=0
# Gigabytes, and other wheels for each kind of GPU, so not in the lock; what is locked stays as it is.
RUN if [ "${TORCH}" = 1 ]; then \
        pip --python /opt/tessera/bin/python freeze > /tmp/pins.txt \
        && pip --python /opt/tessera/bin/python install --only-binary :all: --constraint /tmp/pins.txt \
            'sentence-transformers>=6'; \
    fi
WORKDIR /srv/tessera
ENV PYTHONPATH=/srv/tessera
COPY tenants tenants
COPY shards shards
COPY ingestion ingestion
COPY rag rag
COPY eval eval
COPY migrations migrations
COPY service service
COPY deploy/tessera /opt/tessera/bin/tessera
COPY deploy/convert.py deploy/
# The bundled model as ONNX, in the form of either kind of processor; compiled files, for the image is read-only. Packages
# hold files for other versions of Python, which need not compile; their tests are left out.
RUN /opt/tessera/bin/python deploy/convert.py /srv/models \
    && rm -r deploy \
    && find /opt/tessera/lib -type d -name tests -prune -exec rm -r {} + \
    && { /opt/tessera/bin/python -m compileall -qq -j 0 /opt/tessera/lib || true; } \
    && /opt/tessera/bin/python -m compileall -q -j 0 /srv/tessera \
    && chmod -R a+rX /srv /opt/tessera && chmod 0755 /opt/tessera/bin/tessera

FROM ${PYTHON} AS run
ARG OCR=0
# tini as process 1 passes signals on and reaps what parsers leave behind. No exact versions (DL3008): a release of Debian
# keeps the newest of a package alone, so a build that names one ends with its next security fix.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && if [ "${OCR}" = 1 ]; then apt-get install --yes --no-install-recommends tesseract-ocr; fi \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 tessera \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin tessera
COPY --from=build /opt/tessera /opt/tessera
COPY --from=build /srv /srv

ENV PATH=/opt/tessera/bin:$PATH \
    PYTHONPATH=/srv/tessera \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    OPENBLAS_NUM_THREADS=1 \
    OMP_WAIT_POLICY=PASSIVE \
    TESSERA_API_HOST=0.0.0.0 \
    TESSERA_API_PORT=8321 \
    TESSERA_DATA_DIR=/tmp/tessera \
    TESSERA_EMBED_CACHE_DIR=/srv/models \
    TESSERA_PROCESS_ALIVE_FILE=/tmp/alive \
    TESSERA_URL=http://127.0.0.1:8321

LABEL org.opencontainers.image.title="Tessera" \
      org.opencontainers.image.description="Multi-tenant retrieval-augmented generation with cited answers" \
      org.opencontainers.image.licenses="Apache-2.0"

WORKDIR /srv/tessera
USER 10001:10001
EXPOSE 8321
STOPSIGNAL SIGTERM
# Of the API; for a worker and the scheduler compose and the chart look at the age of /tmp/alive instead.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8321/healthz', timeout=4)"]
# tini signals the process alone and not what it started: a worker ends its parsers itself.
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "service.serve"]
