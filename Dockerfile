# A tag that security fixes reach at every rebuild. Where builds must repeat to the byte, add its digest: TAG@sha256:...
FROM python:3.13-slim-trixie AS build

WORKDIR /build
# "requirements.txt requirements-tracing.txt" adds what sends traces to an OpenTelemetry collector.
ARG REQUIREMENTS="requirements.txt"
COPY requirements.txt requirements-tracing.txt ./
# Only wheels whose hashes are known: nothing is compiled and no package's code runs while it is installed.
RUN python -m venv --without-pip /opt/gateway/venv \
    && for lock in $REQUIREMENTS; do \
       python -m pip --python /opt/gateway/venv install --no-cache-dir --no-compile \
       --only-binary=:all: --require-hashes -r "$lock" || exit; done

COPY *.py /opt/gateway/app/
COPY cache/ /opt/gateway/app/cache/
COPY load/ /opt/gateway/app/load/
COPY routing/ /opt/gateway/app/routing/
COPY proxy/ /opt/gateway/app/proxy/
COPY relay/ /opt/gateway/app/relay/
COPY views/ /opt/gateway/app/views/
COPY tracing/ /opt/gateway/app/tracing/
# Bytecode that ignores file times: the root file system is read-only at run time, and a start costs no compiling.
# The modes are set because a checkout under a strict umask would be unreadable to the image's user.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/gateway \
    && chmod -R a+rX,go-w /opt/gateway


FROM python:3.13-slim-trixie

LABEL org.opencontainers.image.title="inference-gateway" \
      org.opencontainers.image.description="An inference gateway for Kubernetes that respects the life cycle of its pods" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.13-slim-trixie"

# Large prompts go back to the system as soon as they are sent: else glibc keeps room for some in every thread. A
# container has its own share of the machine, so workers give way to nobody but the relay.
ENV PATH=/opt/gateway/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GATEWAY_NICENESS=10 \
    MALLOC_MMAP_THRESHOLD_=131072

COPY --from=build /opt/gateway /opt/gateway
WORKDIR /opt/gateway/app

# Numeric, so that Kubernetes can see that it is not root. Any other user works as well: nothing here is writable.
USER 65532:65532

EXPOSE 8080

# Exec form throughout: gunicorn is the first process and gets the signal itself. It drains for GATEWAY_GRACE_SECONDS,
# so outside Kubernetes give it the time: docker stop --time 630.
STOPSIGNAL SIGTERM

# Kubernetes ignores this and uses its own probes. No urllib: it would obey HTTP_PROXY.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 8080), timeout=2); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]

ENTRYPOINT ["gunicorn"]
