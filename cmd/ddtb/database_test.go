package main

import (
	"strings"
	"testing"

	"ddtb/db/dbtest"
)

func TestMigrateGoesUpAndDown(t *testing.T) {
	t.Parallel()
	m, _ := withDatabase(t)
	m.run("", "migrate", "status").must(exitFine, "00001_polls.sql", "applied 20")
	m.run("", "migrate").must(exitFine, "Nothing to do: the database is up to date.")
	m.run("y\n", "migrate", "down").must(exitUsage, "drops what it made with all data in it", "nothing was changed", "--yes")
	down := m.run("", "migrate", "down", "--yes")
	down.must(exitFine, "Took back 0000")
	status := m.run("", "migrate", "status")
	status.must(exitFine, "not applied")
	if n := strings.Count(status.out, "not applied"); n != 1 {
		t.Errorf("%d are not applied:\n%s", n, status.out)
	}
	m.run("", "runserver", "127.0.0.1:0").must(exitFailed, "ddtb migrate")
	m.run("", "migrate", "up").must(exitFine, "Applied 0000")
	m.run("", "migrate", "status").must(exitFine, "applied 20")
	for range strings.Count(status.out, "applied") {
		m.run("", "migrate", "down", "--yes").must(exitFine, "Took back 0000")
	}
	m.run("", "migrate", "down").must(exitFailed, "there is nothing to take back")
	m.run("", "runserver", "127.0.0.1:0").must(exitFailed, "none of ddtb's tables yet", "ddtb migrate")
	m.run("", "migrate").must(exitFine, "Applied 00001_polls.sql")
}

func TestAServerDoesNotRunOnTablesThatAreNewerThanItself(t *testing.T) {
	t.Parallel()
	m, cfg := withDatabase(t)
	if _, err := dbtest.Control(t, cfg).Exec(t.Context(),
		"INSERT INTO ddtb_migrations (version_id, is_applied) VALUES (9999, true)"); err != nil {
		t.Fatal(err)
	}
	m.run("", "runserver", "127.0.0.1:0").must(exitFailed, "at migration 9999, newer than this ddtb", "update ddtb")
	m.run("", "migrate", "status").must(exitFine, "09999 (of a newer ddtb)", "applied 20")
}

func TestTheDemoIsLoadedOnce(t *testing.T) {
	t.Parallel()
	m, cfg := withDatabase(t)
	m.run("", "loaddemo").must(exitFine, "Added 7 questions.")
	m.run("", "loaddemo").must(exitFine, "There are questions already, so nothing was added.")
	var n int
	if err := dbtest.Control(t, cfg).QueryRow(t.Context(), "SELECT count(*) FROM polls_question").Scan(&n); err != nil || n != 7 {
		t.Errorf("%d questions, %v", n, err)
	}
}

func TestACommandWithoutADatabaseSaysWhyAndShowsNoPassword(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, c := range []struct{ way, word string }{
		{"host = \"127.0.0.1\"\nport = 1\n", "connection refused"},
		{"host = \"no-such-host.invalid\"\n", "no-such-host.invalid"},
	} {
		m.write("[databases.default]\nname = \"polls\"\nuser = \"www\"\npassword = \"s3cr3t-word\"\nsslmode = \"disable\"\n" + c.way)
		m.secrets = []string{"s3cr3t-word"}
		for _, command := range []string{"migrate", "migrate status", "loaddemo", "createsuperuser --noinput", "changepassword ada"} {
			m.runWith([]string{"DJANGO_SUPERUSER_USERNAME=ada", "DJANGO_SUPERUSER_PASSWORD=s3cr3t-word"}, "", strings.Fields(command)...).
				must(exitFailed, c.word)
		}
	}
	cfg := dbtest.Config(t)
	cfg.Password = "not-the-password"
	m.configure(cfg)
	m.run("", "migrate").must(exitFailed, "password authentication failed")
	m.run("", "loaddemo").must(exitFailed, "login rejected", "password authentication failed")
}
