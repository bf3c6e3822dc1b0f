# One image for every process: `docker build -t postbote:local .`, then `docker run … postbote api` and the like.
FROM python:3.13-slim AS build
WORKDIR /build
ARG PIP_ARGS=""
RUN python3 -m venv /opt/postbote
COPY constraints.txt pyproject.toml README.md ./
COPY broker broker
COPY consumers consumers
RUN /opt/postbote/bin/pip install --quiet --no-cache-dir --no-compile --disable-pip-version-check \
      $PIP_ARGS -c constraints.txt . \
 && /opt/postbote/bin/python -m compileall -q -j 0 /opt/postbote/lib \
 && /opt/postbote/bin/pip uninstall --quiet --yes pip

FROM python:3.13-slim
LABEL org.opencontainers.image.title="Postbote" \
      org.opencontainers.image.description="Carries what chatbots say to webhooks: at least once, in order"
RUN groupadd --system --gid 10001 postbote && useradd --system --uid 10001 --gid postbote --no-create-home postbote \
 && install --directory --mode=700 --owner=10001 --group=10001 /spool
COPY --from=build /opt/postbote /opt/postbote
ENV PATH=/opt/postbote/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    POSTBOTE_HOST=0.0.0.0 POSTBOTE_DATA_DIR=/tmp/data POSTBOTE_LOG_FORMAT=json \
    POSTBOTE_HEALTH_FILE=/tmp/postbote-alive POSTBOTE_SPOOL_DIR=/spool
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["postbote", "health"]
ENTRYPOINT ["postbote"]
CMD ["api"]
