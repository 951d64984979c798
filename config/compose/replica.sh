#!/bin/sh
# A streaming replica. On the first start it copies the primary. PGPASSWORD is the password of the role replica.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  chmod 0700 "$PGDATA"
  # --write-recovery-conf makes it a standby, and stores the address of its primary.
  pg_basebackup --host=postgres --username=replica --pgdata="$PGDATA" --wal-method=stream --checkpoint=fast --write-recovery-conf
fi
exec postgres -c max_connections=100 -c listen_addresses='*'
