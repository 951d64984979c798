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

// member is one fault of a kind. Either got makes it happen and returns what people get, or the test of that name in
// the file by does, and checks the sentence.
type member struct {
	fault string
	says  string // is in what people get; "": it works as if nothing were wrong
	got   func(*testing.T, *machine, config.Database) string
	by    string // "FILE TEST"
}

// kinds are the faults of real servers, clients and people.
var kinds = []struct {
	name    string
	members []member
}{
	{"a server that answered is reported as unreachable", []member{
		{fault: "it refuses TLS", says: "can't agree on encryption", got: page(func(c *config.Database) { c.SSLMode = "require" })},
		{fault: "it refuses a setting of the login", says: "refuses a setting", got: page(func(c *config.Database) { c.Options = "-c nonsense=1" })},
		{fault: "it refuses a setting's value", says: "refuses a setting", got: page(func(c *config.Database) { c.Options = "-c work_mem=much" })},
		{fault: "its pooler is full", says: "pooler in front of the database is full", by: "cmd/ddtb/poolerrefusal_test.go TestEachRefusalOfARealPgBouncerHasItsCauseItsSentenceAndItsHint"},
		{fault: "its pooler takes no statement_timeout", says: "the configuration does not say so", by: "cmd/ddtb/poolerrefusal_test.go TestEachRefusalOfARealPgBouncerHasItsCauseItsSentenceAndItsHint"},
		{fault: "it has another host's certificate", says: "db.CertificateRejected", by: "db/connconfig_test.go TestTLSIsUsedAsSSLModeSays"},
		{fault: "it is a web server", says: "not PostgreSQL: an administrator has to check the host and the port", got: greeted("HTTP/1.1 400 Bad Request\r\n\r\n")},
		{fault: "it is a mail server", says: "not PostgreSQL: an administrator has to check the host and the port", got: greeted("220 mail.example.org ESMTP\r\n")},
		{fault: "its table of locks is full", says: "lacks memory, disk space", got: hurt(dbtest.Options{MaxConnections: 10, Settings: map[string]string{"max_locks_per_transaction": "10"}}, locked)},
		{fault: "its table of locks is full, in the doctor", says: "raise max_locks_per_transaction", got: hurt(dbtest.Options{MaxConnections: 10, Settings: map[string]string{"max_locks_per_transaction": "10"}}, lockedForTheDoctor)},
		{fault: "it can't start a process", says: "can't start a process", by: "db/login_linux_test.go TestAServerThatCanNotForkSaysSo"},
	}},
	{"a server that did not answer is reported as something else", []member{
		{fault: "nobody listens", says: "does not answer, or is restarting", got: page(func(c *config.Database) { c.Host, c.Port = "127.0.0.1", 1 })},
		{fault: "its name is unknown", says: "can't be resolved", got: page(func(c *config.Database) { c.Host = "no-such-host.invalid" })},
		{fault: "its socket is missing", says: "does not answer, or is restarting", got: page(func(c *config.Database) { c.Host = "/nonexistent" })},
		{fault: "its socket's path is too long", says: "use a shorter directory", got: check(func(c *config.Database) { c.Host = "/" + strings.Repeat("d", 120) })},
		{fault: "it restarts after it refused optional TLS", says: "unavailable", by: "db/faults_test.go TestEveryStrategyOutlivesEveryFault"},
		{fault: "it hangs during a query", says: "check first whether it was made", got: hurt(dbtest.Options{}, hung)},
		{fault: "of several hosts, some are silent", says: "silent ones", by: "db/replica_test.go TestHostsThatAreNotOneDatabaseAreNamed"},
	}},
	{"a session keeps what changed since it was opened", []member{
		{fault: "a setting, a column's type", by: "db/reset_test.go TestASessionThatIsOutdatedCostsNoError"},
	}},
	{"growing fails although the pool could serve", []member{
		{fault: "a role limit below pool.max_size", by: "db/source_test.go TestAPoolThatCanNotGrowServesWithWhatItHas"},
	}},
	{"a secret is read once", []member{
		{fault: "password_file is rotated", by: "db/login_test.go TestARotatedPasswordFileIsInForceAtTheNextConnection"},
	}},
	{"the driver differs from libpq", []member{
		{fault: "a LATIN1 database", by: "db/login_test.go TestTextInALATIN1DatabaseIsWhatWasStored"},
		{fault: "a password that SASLprep changes", by: "db/login_test.go TestAPasswordIsPreparedForSCRAMAlone"},
		{fault: "a service file", says: "Logged in", got: serviceFile("[polls]\nhost=%s\nport=%d\nuser=%s\ndbname=%s\npassword=%s\n")},
		{fault: "a service file of Windows", says: "Logged in", got: serviceFile("\ufeff[polls]\r\nhost=%s\r\nport=%d\r\nuser=%s\r\ndbname=%s\r\npassword=%s\r\n")},
		{fault: "a service that is not there", says: "there is no [polls] in it", got: serviceFile("[poll]\nhost=%s\nport=%d\nuser=%s\ndbname=%s\npassword=%s\n")},
		{fault: "PGPASSFILE with colons and backslashes", says: "Logged in", got: passFile(`HOST:PORT:NAME:*:a\:b\\c`+"\n", 0o600)},
		{fault: "PGPASSFILE of Windows", says: "Logged in", got: passFile("# of ours\r\n"+`*:*:*:*:a\:b\\c`+"\r\n", 0o600)},
		{fault: "PGPASSFILE that others can read", says: "can be read by others (mode 0644): chmod 600", got: passFile(`*:*:*:*:a\:b\\c`, 0o644)},
		{fault: "PGPASSFILE without a line that fits", says: "there is none: set password", got: passFile("elsewhere:*:*:*:x\n", 0o600)},
		{fault: "an IPv6 address", says: "[::1]:1", got: check(func(c *config.Database) { c.Host, c.Port = "::1", 1 })},
	}},
	{"the configured address is shown, not the connected one", []member{
		{fault: "status, with the first host down", says: "THE-SERVER", got: secondHost("status")},
		{fault: "config check, with the first host down", says: "THE-SERVER", got: secondHost("config")},
		{fault: "errors and logs, with the first host down", says: "when it refuses", by: "db/server_test.go TestOfSeveralHostsTheOneThatAnsweredIsNamed"},
	}},
	{"the diagnosis contradicts its evidence", []member{
		{fault: "slots of logins that hang", says: "logins don't finish", by: "db/activity/situations_linux_test.go TestTheDoctorIsRightAndItsCommandsHelpInEverySituation"},
		{fault: "commits wait for a standby that is gone", says: "IPC/SyncRep", by: "db/activity/situations_linux_test.go TestTheDoctorIsRightAndItsCommandsHelpInEverySituation"},
		{fault: "a primary that refuses writes", says: `"ready":true,"read_only":true`, by: "app/answers_test.go TestADatabaseThatOnlyReadsShowsItsPagesAndSaysWhyItTakesNoVote"},
	}},
	{"a setting without effect", []member{
		{fault: "statement_timeout behind a pooler", says: "statement_timeout (ddtb.toml:4) has no effect", by: "config/void_test.go TestASettingThatAnotherMakesVoidIsWarnedOf"},
		{fault: "CONN_MAX_AGE = 0 under pool", says: `has no effect with strategy = "pool"`, by: "config/void_test.go TestASettingThatAnotherMakesVoidIsWarnedOf"},
		{fault: "a key that no code reads", by: "config/unread_test.go TestEveryKeyIsReadBySomeCodeOutsideOfThisPackage"},
	}},
	{"one SQLSTATE has several meanings", []member{
		{fault: "53300 of the role", says: "application's role no more connections", got: limited("ALTER ROLE %s CONNECTION LIMIT 0")},
		{fault: "53300 of the database", says: "limit of this database is reached", got: limited("ALTER DATABASE %s CONNECTION LIMIT 0")},
		{fault: "53300 of the server", says: "no connection slot left: all are taken", got: hurt(dbtest.Options{MaxConnections: 5}, crowded)},
		{fault: "mails of the three", says: "ALTER ROLE … CONNECTION LIMIT", by: "app/report/failure_test.go TestEachLimitOfConnectionsHasItsRemedy"},
	}},
	{"text is trimmed in one place only", []member{
		{fault: "line breaks in PG…", says: "Logged in", got: environment(func(c config.Database) []string {
			return []string{
				"PGHOST=" + c.Host + "\n", "PGPORT=" + strconv.Itoa(c.Port) + "\n", "PGUSER=" + c.User + "\r\n", "PGDATABASE=" + c.Name + "\n",
				"PGPASSWORD=" + c.Password.Reveal() + "\r\n",
			}
		})},
		{fault: "a line break in --dsn", says: "PostgreSQL", got: func(_ *testing.T, m *machine, c config.Database) string {
			o := m.run("", "db-connections", "status", "--dsn",
				fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s\n", c.Host, c.Port, c.User, c.Password.Reveal(), c.Name))
			return o.out + o.err
		}},
		{fault: "a password file of Windows", says: "Logged in", got: passwordFile("%s\r\n")},
		{fault: "a password file with a byte order mark", says: "Logged in", got: passwordFile("\ufeff%s\n")},
		{fault: "a password file in UTF-16", says: "is not UTF-8 text: save it again", got: passwordFile("\xff\xfe\x00%s")},
	}},
	{"a refusal that is not logged", []member{
		{fault: "a proxy that rewrites Host", says: "server.base_url", by: "app/clients_test.go TestAProxyThatRewritesTheHostIsNamedInTheLogAndBaseURLLetsItsFormsIn"},
		{fault: "a login", says: "the password is wrong", by: "app/auth/hashers_test.go TestTheLogSaysWhyALoginWasRefusedAndThePersonIsNotTold"},
	}},
	{"a known error of the set-up without the way out", []member{
		{fault: "nobody listens, to migrate", says: "What to do: see that the server runs", got: command(func(c *config.Database) { c.Host, c.Port = "127.0.0.1", 1 }, "migrate")},
		{fault: "a wrong password, what to do", says: "What to do: the server answers: correct the user, the password", got: check(func(c *config.Database) { c.Password = "not the password" })},
		{fault: "no slot is left, to loaddemo", says: "db-connections doctor", got: after(command(nil, "loaddemo"), "ALTER ROLE $ROLE CONNECTION LIMIT 0")},
		{fault: "a database that does not exist", says: "does not exist", got: check(func(c *config.Database) { c.Name = "nothing" })},
		{fault: "the page of such a database", says: "has to create it, or to correct its name", got: page(func(c *config.Database) { c.Name = "nothing" })},
		{fault: "a database that was closed", says: "accepts no connections at the moment", got: closed},
		{fault: "a database that was dropped under load", says: "does not exist: an administrator has to create it", got: dropped},
		{fault: "a wrong password", says: "`\\password ROLE` in psql sets it again", got: check(func(c *config.Database) { c.Password = "not the password" })},
		{fault: "no password", says: "there is none: set password", got: check(func(c *config.Database) { c.Password = "" })},
		{fault: "a template that takes no connections", says: "not currently accepting connections", got: check(func(c *config.Database) { c.Name = "template0" })},
		{fault: "a role that may not log in", says: "not permitted to log in", got: checkAfter("ALTER ROLE %s NOLOGIN")},
		{fault: "the page of such a role", says: "does not let this application in", got: limited("ALTER ROLE %s NOLOGIN")},
		{fault: "no right in the schema", says: "GRANT CREATE ON SCHEMA", by: "db/migrations/access_test.go TestWhatTheRoleMayNotDoIsSaidAsTheStatementsToType"},
		{fault: "no schema", says: `CREATE SCHEMA "public" AUTHORIZATION`, got: after(command(nil, "migrate"), "DROP SCHEMA public CASCADE")},
		{fault: "a search_path to nowhere", says: `CREATE SCHEMA "nowhere" AUTHORIZATION`, got: command(func(c *config.Database) { c.Options = "-c search_path=nowhere" }, "migrate")},
		{fault: "a materialized view in place of a table", says: `missing, although every migration was applied: "polls_choice"`, got: after(command(nil, "migrate"), inPlace("MATERIALIZED VIEW")...)},
		{fault: "a vote, with such a view", says: "run `ddtb migrate`", got: voted(inPlace("MATERIALIZED VIEW")...)},
		{fault: "a view in place of a table", says: "Results", got: shown("/polls/1/results/", inPlace("VIEW")...)},
	}},
	{"the database refuses", []member{
		{fault: "a trigger's exception", says: "A trigger or a function in the database refused this", got: voted(trigger("RAISE EXCEPTION 'closed for tonight';")...)},
		{fault: "a trigger's rule", says: "A rule of the database (in a trigger)", got: voted(trigger("RAISE check_violation;")...)},
		{fault: "a rule of another application", says: "A rule of the database (few)", got: voted("ALTER TABLE polls_choice ADD CONSTRAINT few CHECK (votes = 0) NOT VALID", "UPDATE polls_choice SET votes = 0")},
		{fault: "temp_file_limit", says: "This needs more than the database", got: voted(trigger("RAISE configuration_limit_exceeded;")...)},
		{fault: "statement_timeout = 1ms at the start", says: "took longer than allowed", got: overtime},
		{fault: "statement_timeout = 1ms to the monitor", says: `"max_connections": `, got: after(command(nil, "db-connections", "status", "--json"), "ALTER ROLE $ROLE SET statement_timeout = '1ms'")},
	}},
	{"a column or a setting is not as the program made it", []member{
		{fault: "DateStyle is German, to the monitor", says: `"max_connections": `, got: after(command(nil, "db-connections", "status", "--json"), "ALTER ROLE $ROLE SET datestyle = 'German'")},
		{fault: "DateStyle is SQL, to /readyz", says: `"ready":true`, got: shown("/readyz", "ALTER DATABASE $DB SET datestyle = 'SQL, DMY'")},
		{fault: "standard_conforming_strings is off", says: "<title>Results", got: voted("ALTER ROLE $ROLE SET standard_conforming_strings = off")},
		{fault: "votes may be NULL", says: "1 vote", got: voted("ALTER TABLE polls_choice ALTER votes DROP NOT NULL", "UPDATE polls_choice SET votes = NULL")},
		{fault: "a page with NULL", says: "0 votes", got: shown("/polls/1/results/", "ALTER TABLE polls_choice ALTER votes DROP NOT NULL", "UPDATE polls_choice SET votes = NULL")},
		{fault: "the list with NULL", says: "<h1>", got: shown("/polls/", "ALTER TABLE polls_question ALTER question_text DROP NOT NULL", "UPDATE polls_question SET question_text = NULL")},
	}},
	{"text in another encoding", []member{
		{fault: "the demo polls in LATIN1", says: "recreate the database with TEMPLATE template0 ENCODING 'UTF8'", got: encoded("LATIN1", command(nil, "loaddemo"))},
		{fault: "a stored text that is none, in SQL_ASCII", says: "A text in the database is not in", got: encoded("SQL_ASCII", storedBytes)},
		{fault: "a stored text, in LATIN1", says: "café", got: encoded("LATIN1", storedBytes)},
		{fault: "another session's query, seen from SQL_ASCII", says: `caf\ufffd`, got: seenFrom("SQL_ASCII")},
		{fault: "another session's query, seen from EUC_JP", says: `caf\ufffd`, got: seenFrom("EUC_JP")},
	}},
	{"clocks", []member{
		{fault: "the wall clock jumps", by: "cmd/ddtb/clock_test.go TestNoDurationIsMeasuredByTheWallClock"},
		{fault: "server and database differ", by: "app/auth/seen_test.go TestASessionLastsItsAgeThoughTheClocksOfServerAndDatabaseDiffer"},
	}},
	{"two ways to the same name", []member{
		{fault: "no host, a socket, a URL", by: "db/activity/address_test.go TestEachPlaceHasOneNameHoweverItIsWritten"},
	}},
	{"advice that can't help", []member{
		{fault: "another application's table refers to the row", says: "shop &lt;b&gt;order", by: "cmd/ddtb/foreignkey_test.go TestARowThatAnotherApplicationsTableNeedsIsKeptAndTheTableIsNamed"},
		{fault: "a neighbour with the same role", says: "its_own", by: "db/activity/diagnose_test.go TestALimitHitsTheCulpritAlone"},
		{fault: "peer authentication", says: `host = "127.0.0.1"`, by: "db/peer_test.go TestALoginByTheAccountThatIsRefusedSaysWhatToDoAndThatHelps"},
		{fault: "an operator ended the session", says: "An administrator's command ended the session", by: "app/report/failure_test.go TestASessionThatTheServerEndedIsNotCalledACrash"},
		{fault: "three mails for one restart", by: "app/restart_test.go TestARestartOfTheServerIsOneMailOneEventAndOneMailOfItsEnd"},
		{fault: "the role's own default_transaction_read_only", says: "allow writes again", by: "db/activity/situations_linux_test.go TestTheDoctorIsRightAndItsCommandsHelpInEverySituation"},
	}},
	{"a database shared with Django", []member{
		{fault: "both orders of migrations", by: "cmd/ddtb/django_test.go TestADatabaseIsSharedWithARealDjango"},
		{fault: "a renamed column", says: "RENAME COLUMN text TO question_text", got: after(command(nil, "migrate"), "ALTER TABLE polls_question RENAME question_text TO text")},
		{fault: "a vote, with a renamed column", says: "run `ddtb migrate`", got: voted("ALTER TABLE polls_choice RENAME votes TO n")},
		{fault: "Django rehashes a password", by: "cmd/ddtb/django_test.go TestALoginAtDjangoEndsNoSessionInSilence"},
	}},
	{"a query string that the admin does not understand", []member{
		{fault: "unknown lookups", says: "?e=1", by: "admin/filter_test.go TestAnAddressThatAListDoesNotUnderstandLeadsToAllRowsWithANotice"},
		{fault: "Django's lookups", by: "admin/filter_test.go TestAListUnderstandsDjangosLookups"},
	}},
	{"a pooler that was not declared", []member{
		{fault: "at the start", says: `pooler = \"pgbouncer\"`, by: "cmd/ddtb/undeclared_test.go TestAPoolerThatIsNotDeclaredIsSeenAtTheStart"},
		{fault: "at mixed-up statements", says: "Its administrator has to set pooler", by: "cmd/ddtb/undeclared_test.go TestStatementsThatAPoolerHasMixedUpSayWhatToSet"},
	}},
	{"first contact", []member{
		{fault: "a weak password is insisted on", says: "Bypass password validation", by: "cmd/ddtb/users_test.go TestWhoMakesASuperuserMayInsistOnAWeakPassword"},
	}},
	{"a weak diagnosis", []member{
		{fault: "migrate, when a table is missing", says: `missing, although every migration was applied: "polls_choice"`, got: withoutChoices("migrate")},
		{fault: "runserver, when a table is missing", says: "DELETE FROM ddtb_migrations", got: withoutChoices("runserver", "127.0.0.1:0")},
		{fault: "a page, when a table is missing", says: "run `ddtb migrate`", by: "app/answers_test.go TestATableThatIsDroppedIsNamedToTheOperatorAndComesBackByItself"},
	}},
	{"foreign words", []member{
		{fault: "a server's message to a terminal", by: "cmd/ddtb/output_test.go TestTheTextOfAForeignServerReachesNoTerminalRaw"},
		{fault: "text in every field of the admin", by: "admin/injection_test.go TestHostileTextIsTextInEveryField"},
		{fault: "text in a mail", by: "app/report/sentry_test.go TestNothingThatIsTypedChangesAMail"},
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
					if x.by != "" {
						x.mustBeTested(t)
						return
					}
					m, cfg := withDatabase(t)
					if got := x.got(t, m, cfg); !strings.Contains(got, x.says) {
						t.Errorf("people get %q, want %q", got, x.says)
					}
				})
			}
		})
	}
}

// mustBeTested looks for the sentence and the test in the file.
func (x member) mustBeTested(t *testing.T) {
	t.Helper()
	file, test, _ := strings.Cut(x.by, " ")
	text, err := os.ReadFile(filepath.Join("..", "..", file))
	if err != nil || !strings.Contains(string(text), "func "+test+"(") || !strings.Contains(string(text), x.says) {
		t.Errorf("%s does not check %q: %v", x.by, x.says, err)
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
