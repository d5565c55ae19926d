# Stands for docker.io/prom/prometheus where no registry of images can be reached.
ARG BASE
FROM ${BASE}
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends prometheus >/dev/null \
 && rm -rf /var/lib/apt/lists/* && mkdir -p /prometheus && chown prometheus /prometheus
USER prometheus
VOLUME /prometheus
ENTRYPOINT ["prometheus"]
