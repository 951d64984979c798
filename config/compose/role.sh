#!/bin/sh
# PostgreSQL runs this on the first start. The application's role is not a superuser, because a superuser would also
# use the slots reserved for the operator. pg_monitor lets the dashboard see the sessions of all roles.
set -eu
psql -X -v ON_ERROR_STOP=1 -v password="$APP_PASSWORD" --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE app LOGIN PASSWORD :'password' IN ROLE pg_monitor;
CREATE DATABASE app OWNER app;
SQL
