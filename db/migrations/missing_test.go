package migrations_test

import (
	"errors"
	"strings"
	"testing"

	"ddtb/config"
	"ddtb/db/dbtest"
	"ddtb/db/migrations"
)

func TestATableThatIsMissingIsNamedWithWhatToType(t *testing.T) {
	cfg := dbtest.Config(t)
	control := dbtest.Control(t, cfg)
	run(t, control, "DROP TABLE polls_choice, ddtb_vote, ddtb_session")
	text := missing(t, cfg)
	if !strings.Contains(text, `: "ddtb_session", "ddtb_vote", "polls_choice". Restore them`) {
		t.Error(text)
	}
	_, statement, _ := strings.Cut(text, "type in this database\n")
	statement, _, _ = strings.Cut(statement, ";")
	run(t, control, statement)
	if _, err := migrations.Up(t.Context(), cfg); err != nil {
		t.Errorf("after what it says was typed: %v", err)
	}
	if n := scan[int](t, control, "SELECT count(*) FROM polls_choice"); n != 0 {
		t.Errorf("polls_choice has %d rows", n)
	}
}

func TestATableInASchemaThatTheRoleDoesNotSearchIsFound(t *testing.T) {
	cfg := dbtest.Config(t)
	control := dbtest.Control(t, cfg)
	run(t, control, `CREATE SCHEMA "my ""polls"`)
	run(t, control, `GRANT USAGE ON SCHEMA "my ""polls" TO PUBLIC`)
	run(t, control, `ALTER TABLE polls_choice SET SCHEMA "my ""polls"`)
	_, statement, _ := strings.Cut(missing(t, cfg), "type:\n")
	statement, _, _ = strings.Cut(statement, ";")
	run(t, control, statement)
	if _, err := migrations.Up(t.Context(), cfg); err != nil {
		t.Errorf("after what it says was typed: %v", err)
	}
}

func TestAColumnThatWasRenamedIsNamedWithWhatToType(t *testing.T) {
	cfg := dbtest.Config(t)
	control := dbtest.Control(t, cfg)
	run(t, control, `ALTER TABLE polls_question RENAME question_text TO "The text"`)
	text := missing(t, cfg)
	if !strings.Contains(text, ": polls_question.question_text. If it was renamed") {
		t.Error(text)
	}
	_, statement, _ := strings.Cut(text, "in this database:\n")
	statement, _, _ = strings.Cut(statement, ";")
	run(t, control, statement)
	if _, err := migrations.Up(t.Context(), cfg); err != nil {
		t.Errorf("after what it says was typed: %v", err)
	}
	run(t, control, "ALTER TABLE polls_choice DROP votes")
	if text := missing(t, cfg); !strings.Contains(text, "polls_choice.votes. Restore it") {
		t.Errorf("a dropped one: %s", text)
	}
}

// missing returns what Up and Check report of the missing tables.
func missing(t *testing.T, cfg config.Database) string {
	t.Helper()
	_, err := migrations.Up(t.Context(), cfg)
	p, ok := errors.AsType[*migrations.Problem](err)
	if !ok || !strings.HasPrefix(p.Error(), "missing, ") {
		t.Fatalf("no Problem: %v", err)
	}
	if err := migrations.Check(t.Context(), dbtest.Control(t, cfg)); err == nil || !errors.As(err, new(*migrations.Problem)) {
		t.Errorf("the server's check says %v", err)
	}
	return p.Error()
}
