#!/bin/sh
# A streaming replica. On the first start it copies the primary; PGPASSWORD is that of the role replica.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  chmod 0700 "$PGDATA"
  # --write-recovery-conf makes it a standby, and writes down where its primary is.
  pg_basebackup --host=postgres --username=replica --pgdata="$PGDATA" --wal-method=stream --checkpoint=fast --write-recovery-conf
fi
exec postgres -c max_connections=100 -c listen_addresses='*'
