package app_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db/dbtest"
)

// ballot is the first poll's form with a vote for the choice without votes.
func (s *site) ballot() (action string, form url.Values) {
	s.t.Helper()
	action, form = formOf(s.t, s.get("/polls/1/"))
	form.Set("choice", "5")
	return action, form
}

func mustCount(t *testing.T, control *pgx.Conn, want int) {
	t.Helper()
	var votes int
	if err := control.QueryRow(t.Context(), "SELECT votes FROM polls_choice WHERE id = 5").Scan(&votes); err != nil || votes != want {
		t.Errorf("%d votes, %v; want %d", votes, err, want)
	}
}

func execute(t *testing.T, control *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := control.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// failingVotes has each vote fail with the SQLSTATE that is in the table failure, and counts the attempts.
var failingVotes = []string{
	`CREATE TABLE failure (code text)`, `INSERT INTO failure VALUES ('00000')`, `CREATE SEQUENCE attempts`,
	`CREATE FUNCTION fail() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS $$ BEGIN
		PERFORM nextval('public.attempts');
		RAISE EXCEPTION 'what only the log should tell' USING ERRCODE = (SELECT code FROM public.failure);
	END $$`,
	`CREATE TRIGGER fail BEFORE UPDATE ON polls_choice FOR EACH ROW EXECUTE FUNCTION fail()`,
}

// sqlstates are the server's errors for a vote, and the response to the voter.
var sqlstates = []struct {
	code, says string
	status     int
	level      string
	attempts   int64
	retryAfter string
	sentAgain  bool // its page offers to send the form again
}{
	{"42804", "not as `ddtb migrate` made it", 503, "ERROR", 1, "", true},
	{"40P01", "changed the same data at the same moment", 409, "WARN", 10, "1", true},
	{"40001", "nothing of it is stored", 409, "WARN", 10, "1", true},
	{"57014", "it took longer than allowed", 503, "WARN", 1, "1", true},
	{"55P03", "Another transaction has locked", 503, "WARN", 1, "1", true},
	{"25006", "accepts no changes at the moment", 503, "WARN", 1, "1", true},
	{"53100", "disk is full", 503, "ERROR", 1, "", true},
	{"53200", "too little memory", 503, "WARN", 1, "1", true},
	{"57P01", "does not answer, or is restarting", 503, "WARN", 1, "1", true},
	{"23505", "contradicts what is stored", 409, "DEBUG", 1, "", false},
	{"23514", "A rule of the database (in a trigger) does not allow this value", 409, "WARN", 1, "", false},
	{"P0001", "A trigger or a function in the database refused this", 503, "ERROR", 1, "", true},
	{"53400", "This needs more than the database", 503, "ERROR", 1, "", true},
	{"22012", "Something went wrong on our side", 500, "ERROR", 1, "", false},
	{"42501", "may not do this in the database", 503, "ERROR", 1, "", true},
	{"42P01", "is missing from the database", 503, "ERROR", 1, "", true},
	{"42703", "is missing from the database", 503, "ERROR", 1, "", true},
}

func TestWhatTheDatabaseSaysIsAnsweredHonestly(t *testing.T) {
	underEachStrategy(t, []promise{{"to a vote, whatever fails it", func(t *testing.T, s *site) {
		control := dbtest.Control(t, s.cfg.Databases["default"])
		action, form := s.ballot()
		execute(t, control, failingVotes...)
		for _, want := range sqlstates {
			execute(t, control, "UPDATE failure SET code = '"+want.code+"'", "ALTER SEQUENCE attempts RESTART")
			a := s.post(action, form, "Accept", "text/html")
			mustContain(t, a, want.status, want.says)
			if strings.Contains(a.body, "what only the log") || strings.Contains(a.body, want.code) || a.header("Retry-After") != want.retryAfter {
				t.Errorf("%s: %v\n%s", want.code, a.Header, a.body)
			}
			if offered := strings.Contains(a.body, "Send it again") && strings.Contains(a.body, form.Get("token")); offered != want.sentAgain {
				t.Errorf("%s: the form is offered again: %v\n%s", want.code, offered, a.body)
			}
			var attempts int64
			if err := control.QueryRow(t.Context(), "SELECT last_value FROM attempts").Scan(&attempts); err != nil || attempts != want.attempts && !(attempts == 2 && want.code == "25006") { // on a new session, once more
				t.Errorf("%s: %d attempts, want %d; %v", want.code, attempts, want.attempts, err)
			}
			if lines := s.log.Lines("level="+want.level, "sqlstate="+want.code, "status="+fmt.Sprint(want.status), "request_id="+a.header("X-Request-Id")); len(lines) != 1 {
				t.Errorf("%s: the log does not tell:\n%s", want.code, s.log)
			}
			s.mustBeIdle()
		}
		dbtest.Eventually(t, "/readyz warns of what only a person can end", func() bool {
			a := s.get("/readyz")
			return a.StatusCode == http.StatusOK && strings.Contains(a.body, "A request failed in the last minute: A table or a column")
		})
		execute(t, control, "DROP TRIGGER fail ON polls_choice")
		mustCount(t, control, 0)
		if a := s.post(action, form); a.StatusCode != http.StatusFound {
			t.Errorf("the same form, when nothing fails: %s\n%s", a.Status, a.body)
		}
		mustCount(t, control, 1)
	}}})
}

func TestAStatementOverItsTimeoutIsStoppedAndThePageSaysSo(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *config.Config) {
		setDatabase(c, func(d *config.Database) { d.StatementTimeout = 100 * time.Millisecond })
	})
	lock, err := dbtest.Control(t, s.cfg.Databases["default"]).Begin(t.Context())
	if err == nil {
		_, err = lock.Exec(t.Context(), "LOCK TABLE polls_question IN ACCESS EXCLUSIVE MODE")
	}
	if err != nil {
		t.Fatal(err)
	}
	mustContain(t, s.get("/polls/", "Accept", "text/html"), 503, "The database took too long", "Please try again in a moment")
	mustContain(t, s.get("/polls/", "Accept", "application/json"), 503, `"title":"The database took too long"`)
	s.mustBeIdle()
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustContain(t, s.get("/polls/"), 200, "<h1>")
}

func TestADatabaseThatOnlyReadsShowsItsPagesAndSaysWhyItTakesNoVote(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	control := dbtest.Control(t, s.cfg.Databases["default"])
	execute(t, control, "ALTER DATABASE "+pgx.Identifier{s.cfg.Databases["default"].Name}.Sanitize()+" SET default_transaction_read_only = on")
	action, form := s.ballot() // on the strategy's first connection, which is made after that
	mustContain(t, s.post(action, form, "Accept", "text/html"), 503, "The database is read-only", "Send it again")
	mustContain(t, s.get("/polls/1/results/"), 200, "41 votes")
	mustContain(t, s.get("/readyz"), 200, `"ready":true,"read_only":true`, "default_transaction_read_only")
	mustCount(t, control, 0)
}

func TestATableThatIsDroppedIsNamedToTheOperatorAndComesBackByItself(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	control := dbtest.Control(t, s.cfg.Databases["default"])
	execute(t, control, "ALTER TABLE polls_choice RENAME TO gone")
	mustContain(t, s.get("/polls/1/", "Accept", "text/html"), 503, "The database is incomplete", "run `ddtb migrate`")
	dbtest.Eventually(t, "/readyz names it", func() bool {
		a := s.get("/readyz")
		return a.StatusCode == http.StatusServiceUnavailable && strings.Contains(a.body, `\"polls_choice\"`) && strings.Contains(a.body, "DELETE FROM ddtb_migrations")
	})
	execute(t, control, "ALTER TABLE gone RENAME TO polls_choice")
	mustContain(t, s.get("/polls/1/"), 200, "<h1>")
	dbtest.Eventually(t, "/readyz is well again", func() bool { return s.get("/readyz").StatusCode == http.StatusOK })
}

func TestATableWithAnotherTypeOrARuleIsNamedAsTheCause(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"votes as text": "ALTER TABLE polls_choice ALTER votes TYPE text",
		"a rule":        "CREATE RULE elsewhere AS ON UPDATE TO polls_choice DO INSTEAD NOTHING",
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, nil)
			action, form := s.ballot()
			execute(t, dbtest.Control(t, s.cfg.Databases["default"]), change)
			mustContain(t, s.post(action, form, "Accept", "text/html"), 503, "The database was changed", "not as `ddtb migrate` made it", "Send it again")
		})
	}
}

// deadlocked has a vote hold the row of its choice, wait until the session %d waits for that row, and then wait for
// what that session holds. So it is the vote that finds the deadlock, and is undone.
const deadlocked = `CREATE FUNCTION deadlock() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS $$ BEGIN
	WHILE NOT pg_try_advisory_xact_lock(1) LOOP
		PERFORM pg_try_advisory_xact_lock(2); -- says that the vote is here
		IF EXISTS (SELECT FROM pg_locks WHERE pid = %d AND NOT granted) THEN
			PERFORM pg_advisory_xact_lock(1);
		END IF;
		PERFORM pg_sleep(0.002);
	END LOOP;
	RETURN NEW;
END $$`

func TestAVoteThatMetADeadlockIsCastAgainByItselfAndCountsOnce(t *testing.T) {
	underEachStrategy(t, []promise{{"in a real deadlock", func(t *testing.T, s *site) {
		cfg := s.cfg.Databases["default"]
		control, other := dbtest.Control(t, cfg), dbtest.Control(t, cfg)
		action, form := s.ballot()
		execute(t, control, fmt.Sprintf(deadlocked, other.PgConn().PID()),
			"CREATE TRIGGER deadlock AFTER UPDATE ON polls_choice FOR EACH ROW WHEN (NEW.id = 5 AND NEW.votes <> 40) EXECUTE FUNCTION deadlock()")
		execute(t, other, "SET deadlock_timeout = '1h'", "BEGIN", "SELECT pg_advisory_xact_lock(1)")
		before := deadlocks(t, control)
		voted := make(chan answer, 1)
		go func() {
			a, err := s.send(t.Context(), fresh, http.MethodPost, action, strings.NewReader(form.Encode()), "Content-Type", urlencoded)
			if err != nil {
				t.Error(err)
			}
			voted <- a
		}()
		dbtest.Eventually(t, "the vote holds its row", func() bool {
			var here bool
			if err := control.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 2
				AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`).Scan(&here); err != nil {
				t.Fatal(err)
			}
			return here
		})
		execute(t, other, "UPDATE polls_choice SET votes = 40 WHERE id = 5", "COMMIT") // returns when the vote was undone
		if a := <-voted; a.Response == nil || a.StatusCode != http.StatusFound {
			t.Errorf("the vote: %+v", a)
		}
		mustCount(t, control, 41)
		dbtest.Eventually(t, "the server counts the deadlock", func() bool { return deadlocks(t, control) > before }) // the next try may meet it again
		s.mustBeIdle()
	}}})
}

func deadlocks(t *testing.T, control *pgx.Conn) (n int64) {
	t.Helper()
	if err := control.QueryRow(t.Context(), "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWhileTheCircuitIsOpenThePageSaysSo(t *testing.T) {
	t.Parallel()
	database := nobodyListens(t)
	for _, strategy := range strategies {
		t.Run(strategy.name, func(t *testing.T) {
			s := siteOn(t, database, func(c *config.Config) { setDatabase(c, strategy.set) })
			var a answer
			dbtest.Eventually(t, "the circuit is open", func() bool {
				a = s.get("/polls/", "Accept", "text/html")
				return strings.Contains(a.body, "circuit open")
			})
			mustContain(t, a, 503, "The last attempts to reach the database failed, so this one was not made.", "Please try again in a moment")
			if a.header("Retry-After") != "1" || s.log.Count("level=WARN", `cause="circuit open"`, "request_id="+a.header("X-Request-Id")) != 1 {
				t.Errorf("%v\n%s", a.Header, s.log)
			}
			s.mustBeIdle()
		})
	}
}
