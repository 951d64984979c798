#!/bin/sh
# Prepares the primary for a streaming replica: a role, and permission to connect. It changes nothing if both exist.
set -eu
psql -X -v ON_ERROR_STOP=1 -v password="$REPLICA_PASSWORD" <<'SQL'
SELECT 'CREATE ROLE replica REPLICATION LOGIN'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'replica') \gexec
ALTER ROLE replica PASSWORD :'password';
SELECT $$COPY (SELECT 'host replication replica all scram-sha-256') TO PROGRAM 'cat >> pg_hba.conf'$$
WHERE NOT EXISTS (SELECT FROM pg_hba_file_rules WHERE database = '{replication}' AND user_name = '{replica}') \gexec
SELECT pg_reload_conf();
SQL
