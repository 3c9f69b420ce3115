# syntax=docker/dockerfile:1
# The driver and the fetcher. BASE is any Debian 12: nothing but its packages and the locked requirements goes in.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends python3-pip python3-venv
RUN python3 -m venv --without-pip /opt/goldlink && python3 -m venv /tmp/build
WORKDIR /src
COPY requirements requirements
# Everything by its hash, also what makes the wheel.
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements/dev.txt >/tmp/build.txt \
    && pip --python /tmp/build/bin/python install -q --require-hashes -r /tmp/build.txt \
    && pip --python /opt/goldlink/bin/python install -q --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY cachefetch cachefetch
COPY csi csi
RUN pip --python /tmp/build/bin/python wheel -q --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
    && pip --python /opt/goldlink/bin/python install -q --no-deps --no-index /tmp/wheel/*.whl

FROM ${BASE}
# What makes and mends the images of cache disks, and Python; no compiler, no pip.
RUN apt-get update -qq \
    && apt-get install -qq -y --no-install-recommends ca-certificates e2fsprogs erofs-utils python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
COPY --from=build /opt/goldlink /opt/goldlink
ARG VERSION=0.0.0
LABEL org.opencontainers.image.title="goldlink" \
      org.opencontainers.image.description="Kubernetes CSI driver for cache volumes, and its fetcher" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
ENV PATH=/opt/goldlink/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONUNBUFFERED=1
# The controller needs no more. Mounts and owners of files need root: the DaemonSet of the chart asks for it.
USER 65532:65532
CMD ["goldlink-csi", "--help"]
