//go:build unix

package localpg_test

import (
	"context"
	"testing"
	"time"

	"ddtb/db/localpg"
)

func TestAStandbyIsACopyOfAServerThatWritesMeanwhile(t *testing.T) {
	settings := map[string]string{"wal_level": "replica", "max_wal_senders": "3", "max_wal_size": "32MB", "min_wal_size": "32MB"}
	primary := start(t, localpg.Options{Dir: made(t), Settings: settings})
	conn := login(t, primary.Config("postgres"))
	_, err := conn.Exec(t.Context(), "CREATE TABLE numbers (n int PRIMARY KEY, text text)")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	written, ended := 0, make(chan struct{})
	go func() {
		defer close(ended)
		writer, err := primary.Connect(ctx, "postgres")
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = writer.Close(context.Background()) }()
		for ; ctx.Err() == nil; written++ {
			const row = "INSERT INTO numbers VALUES ($1, repeat('x', 100000)) ON CONFLICT (n) DO UPDATE SET text = excluded.text"
			if _, err := writer.Exec(context.Background(), row, written); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	standby := start(t, localpg.Options{Dir: home(t), Settings: settings, ReplicaOf: primary})
	cancel()
	<-ended
	follower := login(t, standby.Config("postgres"))
	var standing bool
	n := 0
	for end := time.Now().Add(20 * time.Second); n < written && time.Now().Before(end); {
		must(t, follower.QueryRow(t.Context(), "SELECT pg_is_in_recovery(), count(*) FROM numbers").Scan(&standing, &n))
	}
	if !standing || n != written || written < 2 {
		t.Errorf("standby: %v; %d of %d rows", standing, n, written)
	}
}
