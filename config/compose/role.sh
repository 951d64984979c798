#!/bin/sh
# On the first start PostgreSQL runs this. The application gets a role without a superuser's rights, since a
# superuser would also take the slots that are reserved for the operator. pg_monitor lets the dashboard see what
# everybody's sessions do.
set -eu
psql -X -v ON_ERROR_STOP=1 -v password="$APP_PASSWORD" --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE app LOGIN PASSWORD :'password' IN ROLE pg_monitor;
CREATE DATABASE app OWNER app;
SQL
