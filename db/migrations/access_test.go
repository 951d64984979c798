package migrations_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"ddtb/db/dbtest"
	"ddtb/db/migrations"
)

func TestWhatTheRoleMayNotDoIsSaidAsTheStatementsToType(t *testing.T) {
	for _, c := range []struct {
		name, owner string   // of Django's tables; "": no tables
		refuse      []string // statements that the superuser ran before
		says        []string
	}{
		{
			"a schema in which only its owner creates", "",
			[]string{"REVOKE CREATE ON SCHEMA public FROM PUBLIC"},
			[]string{"may not create tables in the schema \"public\"", "GRANT CREATE ON SCHEMA \"public\" TO \"ROLE\";"},
		},
		{
			"tables of another role", "dj O'Hara \"x\"", nil,
			[]string{"belong to \"dj O'Hara", "GRANT \"dj O'Hara \"\"x\"\"\" TO \"ROLE\";"},
		},
		{
			"a database without a schema", "",
			[]string{"DROP SCHEMA public CASCADE"},
			[]string{`no schema of its search_path ("$user", public) exists`, "CREATE SCHEMA \"public\" AUTHORIZATION \"ROLE\";"},
		},
		{
			"a search_path to nowhere", "",
			[]string{`ALTER ROLE CURRENT_ROLE SET search_path = '$user', "no where"`},
			[]string{`no schema of its search_path ("$user", "no where") exists`, `CREATE SCHEMA "no where" AUTHORIZATION "ROLE";`},
		},
		{
			"both", "django_owner",
			[]string{"REVOKE CREATE ON SCHEMA public FROM PUBLIC"},
			[]string{"GRANT CREATE ON SCHEMA \"public\" TO \"ROLE\";", "GRANT \"django_owner\" TO \"ROLE\";"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, control := unmigrated(t)
			role := pgx.Identifier{cfg.User}.Sanitize()
			run(t, control, "ALTER DATABASE "+role+" OWNER TO CURRENT_USER")
			run(t, control, "GRANT CREATE ON SCHEMA public TO PUBLIC")
			if c.owner != "" {
				owner := pgx.Identifier{c.owner}.Sanitize()
				run(t, control, "CREATE ROLE "+owner)
				t.Cleanup(func() { drop(t, control, owner) })
				run(t, control, "SET ROLE "+owner)
				run(t, control, django)
				run(t, control, "RESET ROLE")
			}
			for _, sql := range c.refuse {
				run(t, control, strings.ReplaceAll(sql, "CURRENT_ROLE", role))
			}
			_, err := migrations.Up(t.Context(), cfg)
			e, ok := errors.AsType[*migrations.Problem](err)
			if !ok {
				t.Fatalf("no Problem: %v", err)
			}
			for _, words := range c.says {
				if words = strings.ReplaceAll(words, "ROLE", cfg.User); !strings.Contains(err.Error(), words) {
					t.Errorf("it does not say %s: %v", words, err)
				}
			}
			for _, statement := range e.Statements {
				run(t, control, statement)
			}
			if _, err := migrations.Up(t.Context(), cfg); err != nil {
				t.Errorf("after what it says was typed: %v", err)
			}
		})
	}
}

// drop removes a role with everything it has in the database.
func drop(t *testing.T, control *pgx.Conn, role string) {
	t.Helper()
	for _, sql := range []string{"DROP OWNED BY " + role + " CASCADE", "DROP ROLE " + role} {
		if _, err := control.Exec(context.WithoutCancel(t.Context()), sql); err != nil {
			t.Error(err)
		}
	}
}

func TestTablesThatTheRoleMayNotReadKeepTheServerFromStarting(t *testing.T) {
	cfg := dbtest.Config(t)
	control := dbtest.Control(t, cfg)
	run(t, control, "REASSIGN OWNED BY ddtb_owner TO CURRENT_USER")
	run(t, control, "SET ROLE "+pgx.Identifier{cfg.User}.Sanitize())
	err := migrations.Check(t.Context(), control)
	e, ok := errors.AsType[*migrations.Problem](err)
	if !ok {
		t.Fatalf("no Problem: %v", err)
	}
	run(t, control, "RESET ROLE")
	for _, statement := range e.Statements {
		run(t, control, statement)
	}
	run(t, control, "SET ROLE "+pgx.Identifier{cfg.User}.Sanitize())
	if err := migrations.Check(t.Context(), control); err != nil {
		t.Errorf("after what it says was typed: %v", err)
	}
	run(t, control, "INSERT INTO polls_question (question_text, pub_date) VALUES ('May I?', now())")
	run(t, control, "RESET ROLE")
	run(t, control, "REVOKE INSERT ON auth_user FROM "+pgx.Identifier{cfg.User}.Sanitize())
	if _, err := migrations.Up(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), `GRANT SELECT, INSERT, UPDATE, DELETE ON "auth_user" TO`) {
		t.Errorf("migrate with nothing to do: %v", err)
	}
}
