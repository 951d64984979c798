package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"ddtb/app/web"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// member is one fault of a kind. play causes the fault and returns the output. Without it, coveredBy names the test,
// FILE TEST, that causes it and checks wantText.
type member struct {
	fault     string
	wantText  string // is in the output; "": it works as if nothing were wrong
	play      answer
	coveredBy string
}

// kinds are the faults of real servers, clients and people.
var kinds = []struct {
	name    string
	members []member
}{
	{"a server that answered is reported as unreachable", []member{
		{fault: "it refuses TLS", wantText: "can't agree on encryption", play: page(func(c *config.Database) { c.SSLMode = "require" })},
		{fault: "it refuses a setting of the login", wantText: "refuses a setting", play: page(func(c *config.Database) { c.Options = "-c nonsense=1" })},
		{fault: "it refuses a setting's value", wantText: "refuses a setting", play: page(func(c *config.Database) { c.Options = "-c work_mem=much" })},
		{fault: "its pooler is full", wantText: "pooler in front of the database is full", coveredBy: "cmd/ddtb/poolerrefusal_test.go TestEachRefusalOfARealPgBouncerHasItsCauseItsSentenceAndItsHint"},
		{fault: "its pooler takes no statement_timeout", wantText: "the configuration does not say so", coveredBy: "cmd/ddtb/poolerrefusal_test.go TestEachRefusalOfARealPgBouncerHasItsCauseItsSentenceAndItsHint"},
		{fault: "it has another host's certificate", wantText: "db.CertificateRejected", coveredBy: "db/connconfig_test.go TestTLSIsUsedAsSSLModeSays"},
		{fault: "it is a web server", wantText: "not PostgreSQL: an administrator has to check the host and the port", play: greeted("HTTP/1.1 400 Bad Request\r\n\r\n")},
		{fault: "it is a mail server", wantText: "not PostgreSQL: an administrator has to check the host and the port", play: greeted("220 mail.example.org ESMTP\r\n")},
		{fault: "its table of locks is full", wantText: "lacks memory, disk space", play: hurt(dbtest.Options{MaxConnections: 10, Settings: map[string]string{"max_locks_per_transaction": "10"}}, locked)},
		{fault: "its table of locks is full, in the doctor", wantText: "raise max_locks_per_transaction", play: hurt(dbtest.Options{MaxConnections: 10, Settings: map[string]string{"max_locks_per_transaction": "10"}}, lockedForTheDoctor)},
		{fault: "it can't start a process", wantText: "can't start a process", coveredBy: "db/login_linux_test.go TestAServerThatCanNotForkSaysSo"},
	}},
	{"a server that did not answer is reported as something else", []member{
		{fault: "nobody listens", wantText: "does not answer, or is restarting", play: page(func(c *config.Database) { c.Host, c.Port = "127.0.0.1", 1 })},
		{fault: "its name is unknown", wantText: "can't be resolved", play: page(func(c *config.Database) { c.Host = "no-such-host.invalid" })},
		{fault: "its socket is missing", wantText: "does not answer, or is restarting", play: page(func(c *config.Database) { c.Host = "/nonexistent" })},
		{fault: "its socket's path is too long", wantText: "use a shorter directory", play: check(func(c *config.Database) { c.Host = "/" + strings.Repeat("d", 120) })},
		{fault: "it restarts after it refused optional TLS", wantText: "unavailable", coveredBy: "db/faults_test.go TestEveryStrategyOutlivesEveryFault"},
		{fault: "it hangs during a query", wantText: "did not answer in time", play: hurt(dbtest.Options{}, hung)},
		{fault: "of several hosts, some are silent", wantText: "silent ones", coveredBy: "db/replica_test.go TestHostsThatAreNotOneDatabaseAreNamed"},
	}},
	{"a session keeps what changed since it was opened", []member{
		{fault: "a setting, a column's type", coveredBy: "db/reset_test.go TestASessionThatIsOutdatedCostsNoError"},
	}},
	{"growing fails although the pool could serve", []member{
		{fault: "a role limit below pool.max_size", coveredBy: "db/source_test.go TestAPoolThatCanNotGrowServesWithWhatItHas"},
	}},
	{"a secret is read once", []member{
		{fault: "password_file is rotated", coveredBy: "db/login_test.go TestARotatedPasswordFileIsInForceAtTheNextConnection"},
	}},
	{"the driver differs from libpq", []member{
		{fault: "a LATIN1 database", coveredBy: "db/login_test.go TestTextInALATIN1DatabaseIsWhatWasStored"},
		{fault: "a password that SASLprep changes", coveredBy: "db/login_test.go TestAPasswordIsPreparedForSCRAMAlone"},
		{fault: "a service file", wantText: "Logged in", play: serviceFile("[polls]\nhost=%s\nport=%d\nuser=%s\ndbname=%s\npassword=%s\n")},
		{fault: "a service file of Windows", wantText: "Logged in", play: serviceFile("\ufeff[polls]\r\nhost=%s\r\nport=%d\r\nuser=%s\r\ndbname=%s\r\npassword=%s\r\n")},
		{fault: "a service that is not there", wantText: "there is no [polls] in it", play: serviceFile("[poll]\nhost=%s\nport=%d\nuser=%s\ndbname=%s\npassword=%s\n")},
		{fault: "PGPASSFILE with colons and backslashes", wantText: "Logged in", play: passFile(`HOST:PORT:NAME:*:a\:b\\c`+"\n", 0o600)},
		{fault: "PGPASSFILE of Windows", wantText: "Logged in", play: passFile("# of ours\r\n"+`*:*:*:*:a\:b\\c`+"\r\n", 0o600)},
		{fault: "PGPASSFILE that others can read", wantText: "can be read by others (mode 0644): chmod 600", play: passFile(`*:*:*:*:a\:b\\c`, 0o644)},
		{fault: "PGPASSFILE without a line that fits", wantText: "there is none: set password", play: passFile("elsewhere:*:*:*:x\n", 0o600)},
		{fault: "an IPv6 address", wantText: "[::1]:1", play: check(func(c *config.Database) { c.Host, c.Port = "::1", 1 })},
	}},
	{"the configured address is shown, not the connected one", []member{
		{fault: "status, with the first host down", wantText: "THE-SERVER", play: secondHost("status")},
		{fault: "config check, with the first host down", wantText: "THE-SERVER", play: secondHost("config")},
		{fault: "errors and logs, with the first host down", wantText: "when it refuses", coveredBy: "db/server_test.go TestOfSeveralHostsTheOneThatAnsweredIsNamed"},
	}},
	{"the diagnosis contradicts its evidence", []member{
		{fault: "slots of logins that hang", wantText: "logins don't finish", coveredBy: "db/activity/situations_linux_test.go TestTheDoctorIsRightAndItsCommandsHelpInEverySituation"},
		{fault: "commits wait for a standby that is gone", wantText: "IPC/SyncRep", coveredBy: "db/activity/situations_linux_test.go TestTheDoctorIsRightAndItsCommandsHelpInEverySituation"},
		{fault: "a primary that refuses writes", wantText: `"ready":true,"read_only":true`, coveredBy: "app/answers_test.go TestADatabaseThatOnlyReadsShowsItsPagesAndSaysWhyItTakesNoVote"},
	}},
	{"a setting without effect", []member{
		{fault: "statement_timeout behind a pooler", wantText: "statement_timeout (ddtb.toml:4) has no effect", coveredBy: "config/void_test.go TestASettingThatAnotherMakesVoidIsWarnedOf"},
		{fault: "CONN_MAX_AGE = 0 under pool", wantText: `has no effect with strategy = "pool"`, coveredBy: "config/void_test.go TestASettingThatAnotherMakesVoidIsWarnedOf"},
		{fault: "a key that no code reads", coveredBy: "config/unread_test.go TestEveryKeyIsReadBySomeCodeOutsideOfThisPackage"},
	}},
	{"one SQLSTATE has several meanings", []member{
		{fault: "53300 of the role", wantText: "application's role no more connections", play: limited("ALTER ROLE %s CONNECTION LIMIT 0")},
		{fault: "53300 of the database", wantText: "limit of this database is reached", play: limited("ALTER DATABASE %s CONNECTION LIMIT 0")},
		{fault: "53300 of the server", wantText: "no connection slot left: all are taken", play: hurt(dbtest.Options{MaxConnections: 5}, crowded)},
		{fault: "mails of the three", wantText: "ALTER ROLE … CONNECTION LIMIT", coveredBy: "app/report/failure_test.go TestEachLimitOfConnectionsHasItsRemedy"},
	}},
	{"text is trimmed in one place only", []member{
		{fault: "line breaks in PG…", wantText: "Logged in", play: environment(func(c config.Database) []string {
			return []string{
				"PGHOST=" + c.Host + "\n", "PGPORT=" + strconv.Itoa(c.Port) + "\n", "PGUSER=" + c.User + "\r\n", "PGDATABASE=" + c.Name + "\n",
				"PGPASSWORD=" + c.Password.Reveal() + "\r\n",
			}
		})},
		{fault: "a line break in --dsn", wantText: "PostgreSQL", play: func(_ *testing.T, m *machine, c config.Database) string {
			o := m.run("", "db-connections", "status", "--dsn",
				fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s\n", c.Host, c.Port, c.User, c.Password.Reveal(), c.Name))
			return o.out + o.err
		}},
		{fault: "a password file of Windows", wantText: "Logged in", play: passwordFile("%s\r\n")},
		{fault: "a password file with a byte order mark", wantText: "Logged in", play: passwordFile("\ufeff%s\n")},
		{fault: "a password file in UTF-16", wantText: "is not UTF-8 text: save it again", play: passwordFile("\xff\xfe\x00%s")},
	}},
	{"a refusal that is not logged", []member{
		{fault: "a proxy that rewrites Host", wantText: "server.base_url", coveredBy: "app/clients_test.go TestAProxyThatRewritesTheHostIsNamedInTheLogAndBaseURLLetsItsFormsIn"},
		{fault: "a login", wantText: "the password is wrong", coveredBy: "app/auth/hashers_test.go TestTheLogSaysWhyALoginWasRefusedAndThePageDoesNot"},
	}},
	{"a known error of the set-up without the way out", []member{
		{fault: "nobody listens, to migrate", wantText: "What to do: see that the server runs", play: command(func(c *config.Database) { c.Host, c.Port = "127.0.0.1", 1 }, "migrate")},
		{fault: "a role that may not log in, what to do", wantText: "What to do: the server answers: correct the user, the password", play: checkAfter("ALTER ROLE %s NOLOGIN")},
		{fault: "a user who does not exist", wantText: "the user or the password is wrong", play: check(func(c *config.Database) { c.User = "nobody" })},
		{fault: "no slot is left, to loaddemo", wantText: "db-connections doctor", play: after(command(nil, "loaddemo"), "ALTER ROLE $ROLE CONNECTION LIMIT 0")},
		{fault: "a database that does not exist", wantText: "does not exist", play: check(func(c *config.Database) { c.Name = "nothing" })},
		{fault: "the page of such a database", wantText: "has to create it, or to correct its name", play: page(func(c *config.Database) { c.Name = "nothing" })},
		{fault: "a database that was closed", wantText: "accepts no connections at the moment", play: closed},
		{fault: "a database that was dropped under load", wantText: "does not exist: an administrator has to create it", play: dropped},
		{fault: "a wrong password", wantText: "`\\password ROLE` in psql sets it again", play: check(func(c *config.Database) { c.Password = "not the password" })},
		{fault: "no password", wantText: "there is none: set password", play: check(func(c *config.Database) { c.Password = "" })},
		{fault: "a template that takes no connections", wantText: "not currently accepting connections", play: check(func(c *config.Database) { c.Name = "template0" })},
		{fault: "a role that may not log in", wantText: "not permitted to log in", play: checkAfter("ALTER ROLE %s NOLOGIN")},
		{fault: "the page of such a role", wantText: "does not let this application in", play: limited("ALTER ROLE %s NOLOGIN")},
		{fault: "no right in the schema", wantText: "GRANT CREATE ON SCHEMA", coveredBy: "db/migrations/access_test.go TestWhatTheRoleMayNotDoIsSaidAsTheStatementsToType"},
		{fault: "no schema", wantText: `CREATE SCHEMA "public" AUTHORIZATION`, play: after(command(nil, "migrate"), "DROP SCHEMA public CASCADE")},
		{fault: "a search_path to nowhere", wantText: `CREATE SCHEMA "nowhere" AUTHORIZATION`, play: command(func(c *config.Database) { c.Options = "-c search_path=nowhere" }, "migrate")},
		{fault: "a materialized view in place of a table", wantText: `missing, although every migration was applied: "polls_choice"`, play: after(command(nil, "migrate"), inPlace("MATERIALIZED VIEW")...)},
		{fault: "a vote, with such a view", wantText: "run `ddtb migrate`", play: voted(inPlace("MATERIALIZED VIEW")...)},
		{fault: "a view in place of a table", wantText: "Results", play: shown("/polls/1/results/", inPlace("VIEW")...)},
	}},
	{"the database refuses", []member{
		{fault: "a trigger's exception", wantText: "A trigger or a function in the database refused this", play: voted(trigger("RAISE EXCEPTION 'closed for tonight';")...)},
		{fault: "a trigger's rule", wantText: "A rule of the database (in a trigger)", play: voted(trigger("RAISE check_violation;")...)},
		{fault: "a rule of another application", wantText: "A rule of the database (few)", play: voted("ALTER TABLE polls_choice ADD CONSTRAINT few CHECK (votes = 0) NOT VALID", "UPDATE polls_choice SET votes = 0")},
		{fault: "temp_file_limit", wantText: "This needs more than the database", play: voted(trigger("RAISE configuration_limit_exceeded;")...)},
		{fault: "statement_timeout = 1ms at the start", wantText: "took longer than allowed", play: overtime},
		{fault: "statement_timeout = 1ms to the monitor", wantText: `"max_connections": `, play: after(command(nil, "db-connections", "status", "--json"), "ALTER ROLE $ROLE SET statement_timeout = '1ms'")},
	}},
	{"a column or a setting is not as the program made it", []member{
		{fault: "DateStyle is German, to the monitor", wantText: `"max_connections": `, play: after(command(nil, "db-connections", "status", "--json"), "ALTER ROLE $ROLE SET datestyle = 'German'")},
		{fault: "DateStyle is SQL, to /readyz", wantText: `"ready":true`, play: shown("/readyz", "ALTER DATABASE $DB SET datestyle = 'SQL, DMY'")},
		{fault: "standard_conforming_strings is off", wantText: "<title>Results", play: voted("ALTER ROLE $ROLE SET standard_conforming_strings = off")},
		{fault: "votes may be NULL", wantText: "1 vote", play: voted("ALTER TABLE polls_choice ALTER votes DROP NOT NULL", "UPDATE polls_choice SET votes = NULL")},
		{fault: "a page with NULL", wantText: "0 votes", play: shown("/polls/1/results/", "ALTER TABLE polls_choice ALTER votes DROP NOT NULL", "UPDATE polls_choice SET votes = NULL")},
		{fault: "the list with NULL", wantText: "<h1>", play: shown("/polls/", "ALTER TABLE polls_question ALTER question_text DROP NOT NULL", "UPDATE polls_question SET question_text = NULL")},
	}},
	{"text in another encoding", []member{
		{fault: "the demo polls in LATIN1", wantText: "recreate the database with TEMPLATE template0 ENCODING 'UTF8'", play: encoded("LATIN1", command(nil, "loaddemo"))},
		{fault: "a stored text that is none, in SQL_ASCII", wantText: "A text in the database is not in", play: encoded("SQL_ASCII", storedBytes)},
		{fault: "a stored text, in LATIN1", wantText: "café", play: encoded("LATIN1", storedBytes)},
		{fault: "another session's query, seen from SQL_ASCII", wantText: `caf\ufffd`, play: seenFrom("SQL_ASCII")},
		{fault: "another session's query, seen from EUC_JP", wantText: `caf\ufffd`, play: seenFrom("EUC_JP")},
	}},
	{"clocks", []member{
		{fault: "the wall clock jumps", coveredBy: "cmd/ddtb/clock_test.go TestNoDurationIsMeasuredByTheWallClock"},
		{fault: "server and database differ", coveredBy: "app/auth/seen_test.go TestASessionLastsItsAgeThoughTheClocksOfServerAndDatabaseDiffer"},
	}},
	{"two ways to the same name", []member{
		{fault: "no host, a socket, a URL", coveredBy: "db/activity/address_test.go TestEachPlaceHasOneNameHoweverItIsWritten"},
	}},
	{"advice that can't help", []member{
		{fault: "another application's table refers to the row", wantText: "shop &lt;b&gt;order", coveredBy: "cmd/ddtb/foreignkey_test.go TestARowThatAnotherApplicationsTableNeedsIsKeptAndTheTableIsNamed"},
		{fault: "a neighbour with the same role", wantText: "its_own", coveredBy: "db/activity/diagnose_test.go TestALimitHitsTheCulpritAlone"},
		{fault: "peer authentication", wantText: `host = "127.0.0.1"`, coveredBy: "db/peer_test.go TestALoginByTheAccountThatIsRefusedSaysWhatToDoAndThatHelps"},
		{fault: "an operator ended the session", wantText: "An administrator's command ended the session", coveredBy: "app/report/failure_test.go TestASessionThatTheServerEndedIsNotCalledACrash"},
		{fault: "three mails for one restart", coveredBy: "app/restart_test.go TestARestartOfTheServerIsOneMailOneEventAndOneMailOfItsEnd"},
		{fault: "the role's own default_transaction_read_only", wantText: "allow writes again", coveredBy: "db/activity/situations_linux_test.go TestTheDoctorIsRightAndItsCommandsHelpInEverySituation"},
	}},
	{"a database shared with Django", []member{
		{fault: "both orders of migrations", coveredBy: "cmd/ddtb/django_test.go TestADatabaseIsSharedWithARealDjango"},
		{fault: "a renamed column", wantText: "RENAME COLUMN text TO question_text", play: after(command(nil, "migrate"), "ALTER TABLE polls_question RENAME question_text TO text")},
		{fault: "a vote, with a renamed column", wantText: "run `ddtb migrate`", play: voted("ALTER TABLE polls_choice RENAME votes TO n")},
		{fault: "Django rehashes a password", coveredBy: "cmd/ddtb/django_test.go TestALoginAtDjangoEndsNoSessionInSilence"},
	}},
	{"a query string that the admin does not understand", []member{
		{fault: "unknown lookups", wantText: "?e=1", coveredBy: "admin/filter_test.go TestAnAddressThatAListDoesNotUnderstandLeadsToAllRowsWithANotice"},
		{fault: "Django's lookups", coveredBy: "admin/filter_test.go TestAListUnderstandsDjangosLookups"},
	}},
	{"a pooler that was not declared", []member{
		{fault: "at the start", wantText: `pooler = \"pgbouncer\"`, coveredBy: "cmd/ddtb/undeclared_test.go TestAPoolerThatIsNotDeclaredIsSeenAtTheStart"},
		{fault: "at mixed-up statements", wantText: "Its administrator has to set pooler", coveredBy: "cmd/ddtb/undeclared_test.go TestStatementsThatAPoolerHasMixedUpSayWhatToSet"},
	}},
	{"first contact", []member{
		{fault: "a weak password is insisted on", wantText: "Bypass password validation", coveredBy: "cmd/ddtb/users_test.go TestWhoMakesASuperuserMayInsistOnAWeakPassword"},
	}},
	{"a weak diagnosis", []member{
		{fault: "migrate, when a table is missing", wantText: `missing, although every migration was applied: "polls_choice"`, play: withoutChoices("migrate")},
		{fault: "runserver, when a table is missing", wantText: "DELETE FROM ddtb_migrations", play: withoutChoices("runserver", "127.0.0.1:0")},
		{fault: "a page, when a table is missing", wantText: "run `ddtb migrate`", coveredBy: "app/answers_test.go TestATableThatIsDroppedIsNamedToTheOperatorAndComesBackByItself"},
	}},
	{"foreign words", []member{
		{fault: "a server's message to a terminal", coveredBy: "cmd/ddtb/output_test.go TestTheTextOfAForeignServerReachesNoTerminalRaw"},
		{fault: "text in every field of the admin", coveredBy: "admin/injection_test.go TestHostileTextIsTextInEveryField"},
		{fault: "text in a mail", coveredBy: "app/report/sentry_test.go TestNothingThatIsTypedChangesAMail"},
	}},
}

func TestEveryKindOfFaultHasItsSentence(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			for _, x := range k.members {
				t.Run(x.fault, func(t *testing.T) {
					t.Parallel()
					if x.coveredBy != "" {
						x.mustBeTested(t)
						return
					}
					m, cfg := withDatabase(t)
					if got := x.play(t, m, cfg); !strings.Contains(got, x.wantText) {
						t.Errorf("people get %q, want %q", got, x.wantText)
					}
				})
			}
		})
	}
}

// mustBeTested checks that the file has the test and the text.
func (x member) mustBeTested(t *testing.T) {
	t.Helper()
	file, test, _ := strings.Cut(x.coveredBy, " ")
	text, err := os.ReadFile(filepath.Join("..", "..", file))
	if err != nil || !strings.Contains(string(text), "func "+test+"(") || !strings.Contains(string(text), x.wantText) {
		t.Errorf("%s does not check %q: %v", x.coveredBy, x.wantText, err)
	}
}

type answer = func(*testing.T, *machine, config.Database) string

// page is what a visitor reads after a change of the settings, and what an operator reads in the log.
func page(change func(*config.Database)) answer {
	return func(t *testing.T, _ *machine, cfg config.Database) string {
		change(&cfg)
		err := asked(t, cfg)
		return web.ProblemOf(err).Detail + "\n" + fmt.Sprint(err)
	}
}

// limited is page after a statement about the role or the database, which have the same name here.
func limited(sql string) answer {
	return func(t *testing.T, _ *machine, cfg config.Database) string {
		run(t, dbtest.Control(t, cfg), fmt.Sprintf(sql, pgx.Identifier{cfg.Name}.Sanitize()))
		return web.ProblemOf(asked(t, cfg)).Detail
	}
}

// check is the answer of `config check --connect` after a change of the settings.
func check(change func(*config.Database)) answer {
	return func(_ *testing.T, m *machine, cfg config.Database) string {
		change(&cfg)
		m.configure(cfg)
		o := m.run("", "config", "check", "--connect")
		return o.out + o.err
	}
}

func checkAfter(sql string) answer {
	return func(t *testing.T, m *machine, cfg config.Database) string {
		run(t, dbtest.Control(t, cfg), fmt.Sprintf(sql, pgx.Identifier{cfg.User}.Sanitize()))
		return check(func(*config.Database) {})(t, m, cfg)
	}
}

// environment is check without a file.
func environment(variables func(config.Database) []string) answer {
	return func(t *testing.T, m *machine, cfg config.Database) string {
		if err := os.Remove(m.file); err != nil {
			t.Fatal(err)
		}
		o := m.runWith(variables(cfg), "", "config", "check", "--connect")
		return o.out + o.err
	}
}

// passwordFile is check with the password in a file of that form.
func passwordFile(form string) answer {
	return func(t *testing.T, m *machine, cfg config.Database) string {
		path := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(path, fmt.Appendf(nil, form, cfg.Password.Reveal()), 0o600); err != nil {
			t.Fatal(err)
		}
		lines := slices.DeleteFunc(strings.Split(wayTo(cfg), "\n"), func(l string) bool { return strings.HasPrefix(l, "password") })
		m.write(strings.Join(lines, "\n") + fmt.Sprintf("password_file = %q\n", path))
		o := m.run("", "config", "check", "--connect")
		return o.out + o.err
	}
}

// secondHost is a command's answer with a host before the server's that nobody listens on. The server's address is
// replaced by THE-SERVER.
func secondHost(command string) answer {
	return func(_ *testing.T, m *machine, cfg config.Database) string {
		server := net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port))
		cfg.Hosts = db.Hosts("127.0.0.1:1," + server)
		text := strings.ReplaceAll(wayTo(cfg), fmt.Sprintf("host = %q\nport = %d\n", cfg.Host, cfg.Port), fmt.Sprintf("hosts = %q\n", cfg.Hosts.List()))
		m.write(strings.ReplaceAll(text, `" "`, `", "`))
		args := []string{"db-connections", "status"}
		if command == "config" {
			args = []string{"config", "check", "--connect"}
		}
		o := m.run("", args...)
		return strings.ReplaceAll(o.out+o.err, server, "THE-SERVER")
	}
}

// withoutChoices is a command's answer when a table was dropped by hand.
func withoutChoices(args ...string) answer {
	return func(t *testing.T, m *machine, cfg config.Database) string {
		run(t, dbtest.Control(t, cfg), "DROP TABLE polls_choice")
		o := m.run("", args...)
		return o.out + o.err
	}
}
