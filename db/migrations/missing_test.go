package migrations_test

import (
	"errors"
	"slices"
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
	e := missing(t, cfg)
	if want := []string{"ddtb_session", "ddtb_vote", "polls_choice"}; !slices.Equal(e.Tables, want) || len(e.Schemas) > 0 {
		t.Errorf("%+v", e)
	}
	_, statement, _ := strings.Cut(e.Error(), "type in this database\n")
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
	_, statement, _ := strings.Cut(missing(t, cfg).Error(), "type:\n")
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
	e := missing(t, cfg)
	if !slices.Equal(e.Columns, []string{"polls_question.question_text"}) || len(e.Tables) > 0 {
		t.Errorf("%+v", e)
	}
	_, statement, _ := strings.Cut(e.Error(), "in this database:\n")
	statement, _, _ = strings.Cut(statement, ";")
	run(t, control, statement)
	if _, err := migrations.Up(t.Context(), cfg); err != nil {
		t.Errorf("after what it says was typed: %v", err)
	}
	run(t, control, "ALTER TABLE polls_choice DROP votes")
	if text := missing(t, cfg).Error(); !strings.Contains(text, "polls_choice.votes. Restore it") {
		t.Errorf("a dropped one: %s", text)
	}
}

// missing returns what Up and Check report of the missing tables.
func missing(t *testing.T, cfg config.Database) *migrations.MissingError {
	t.Helper()
	_, err := migrations.Up(t.Context(), cfg)
	e, ok := errors.AsType[*migrations.MissingError](err)
	if !ok {
		t.Fatalf("no MissingError: %v", err)
	}
	if err := migrations.Check(t.Context(), dbtest.Control(t, cfg)); err == nil || !errors.As(err, new(*migrations.MissingError)) {
		t.Errorf("the server's check says %v", err)
	}
	return e
}
