# The server. The first stage installs it into a virtual environment. The second has Python, that environment and an
# unprivileged user, but no build tools. It runs on a read-only file system, also as another user of group 0. A private
# Valkey must be asked for, with a volume: BOTS_DATA_DIR=/data. Without TLS and tokens it asks for BOTS_INSECURE=true.
# The digest is that of the image's index, so it holds for every architecture. `docker buildx imagetools inspect IMAGE:TAG`
# prints it for a newer tag.
ARG BASE=python:3.12.14-slim-bookworm@sha256:0f5b26b9518d002b6173fd61daad821fa340635ebfec5bba471013f9ca114579

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
# To build from another package index: --build-arg PIP_INDEX_URL=... (pip reads the variables).
ARG PIP_INDEX_URL
ARG PIP_TRUSTED_HOST
RUN python3 -m venv /venv
COPY deploy/requirements/image.txt /src/
RUN /venv/bin/pip install --no-deps --require-hashes --requirement /src/image.txt
COPY client /src/client
COPY server /src/server
# The tests of the installed packages take a fifth of their size, and nothing uses them.
RUN /venv/bin/pip install --no-deps --no-build-isolation /src/client /src/server \
    && /venv/bin/pip check \
    && /venv/bin/pip uninstall --yes setuptools pip \
    && find /venv/lib -type d -name tests -prune -exec rm -rf {} +

FROM ${BASE}
RUN groupadd --gid 10001 bots \
    && useradd --uid 10001 --gid bots --no-create-home --home-dir /data --shell /usr/sbin/nologin bots \
    && install --directory --owner=bots --group=root --mode=0770 /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    BOTS_HOST=0.0.0.0 \
    BOTS_METRICS_HOST=0.0.0.0 \
    BOTS_METRICS_PORT=9090 \
    BOTS_LOG_FORMAT=json
USER 10001:10001
WORKDIR /data
EXPOSE 50051 9090
HEALTHCHECK --interval=5s --timeout=4s --start-period=20s --retries=3 \
    CMD ["python", "-m", "bots_server.process.health"]
ENTRYPOINT ["bots-server"]
