package main

import (
	"fmt"
	"testing"

	"ddtb/db"
)

// A pooler lets a client in at once. Its query may wait for query_wait_timeout, which is two minutes by default.
func TestADoctorThatAFullPoolerLeavesWithoutAnAnswerSaysSo(t *testing.T) {
	t.Parallel()
	m, direct := withDatabase(t)
	cfg := newBouncerFor(m, direct, direct.User, "default_pool_size = 3", "default_pool_size = 1").cfg
	cc, err := db.ConnConfig(cfg, "first")
	if err != nil {
		t.Fatal(err)
	}
	first, err := db.Connect(t.Context(), cc)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Disconnect(first)
	run(t, first, "BEGIN")
	m.configure(direct)
	dsn := fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=disable", cfg.Host, cfg.Port, cfg.User, cfg.Password.Reveal(), cfg.Name)
	m.run("", "db-connections", "doctor", "--dsn", dsn).must(exitFailed, "no query was answered within 10s", "a pooler's", "name the server itself")
}
