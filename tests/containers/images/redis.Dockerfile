# Stands for docker.io/library/redis where no registry of images can be reached.
ARG BASE
FROM ${BASE}
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends redis-server >/dev/null \
 && rm -rf /var/lib/apt/lists/* && mkdir -p /data && chown redis /data
WORKDIR /data
USER redis
VOLUME /data
CMD ["redis-server"]
