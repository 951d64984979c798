package activity

import (
	"cmp"
	"fmt"
	"net"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// The commands of steps are for a POSIX shell, and run as they stand.

// endSQL is the superuser's way to end sessions, if their state is unchanged.
func (s Snapshot) endSQL(sessions []Session, cancel bool) string {
	f := "pg_terminate_backend"
	if cancel {
		f = "pg_cancel_backend"
	}
	pid := make([]string, len(sessions))
	for i, x := range sessions {
		pid[i] = fmt.Sprint(x.PID)
	}
	return s.psqlAsSuperuser(fmt.Sprintf("SELECT pid, %s(pid) FROM pg_stat_activity WHERE pid IN (%s) AND state = '%s'",
		f, strings.Join(pid, ", "), sessions[0].State))
}

// console returns the command that runs a statement of PgBouncer's console.
func (s Snapshot) console(sql string) string {
	return cmp.Or(s.Console, "psql -d pgbouncer") + " -c " + ShellQuote(sql)
}

func (s Snapshot) onPrimary(sql string) string { return s.onPrimaryAs(s.Server.Superuser, sql) }

// onPrimaryAs returns the psql command, on the primary if this is a standby. If its address is not known, the command is
// for the primary's machine.
func (s Snapshot) onPrimaryAs(role, sql string) string {
	if s.Server.Standby {
		s.Server.Address = s.Server.Primary
	}
	return s.psql(role, sql)
}

// setSystem returns a setting of this server alone, which takes effect at once. A managed server refuses ALTER SYSTEM: then
// it is a comment.
func (s Snapshot) setSystem(setting string) string {
	if s.Server.Managed {
		return "# where the provider of this server has its parameters: " + setting
	}
	return s.psqlAsSuperuser("ALTER SYSTEM SET "+setting) + " -c 'SELECT pg_reload_conf()'"
}

// command returns a command of ours.
func command(rest string) string { return "ddtb db-connections " + rest }

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

// FirstWords returns the beginning of a query on one line, at most that many characters.
func FirstWords(query string, most int) string {
	text := []rune(strings.Join(strings.Fields(query), " "))
	if len(text) > most {
		return string(text[:most-1]) + "…"
	}
	return string(text)
}

// at returns the options that direct PostgreSQL's programs to this server.
func (s Snapshot) at() string {
	host, port := s.host()
	if host != "" {
		host = " -h " + ShellQuote(host)
	}
	if port != "" {
		port = " -p " + port
	}
	return host + port
}

func (s Snapshot) host() (host, port string) {
	host, port, err := net.SplitHostPort(s.Server.Address)
	if err != nil {
		return s.Server.Address, ""
	}
	return host, port
}

// psql returns the command that runs a statement on this server as that role. Through the socket, PostgreSQL's packages
// authenticate the superuser by its account name; a private server has a file with its passwords.
func (s Snapshot) psql(role, sql string) string {
	host, _ := s.host()
	before := ""
	switch {
	case s.Server.PassFile != "":
		before = "PGPASSFILE=" + ShellQuote(s.Server.PassFile) + " "
	case strings.HasPrefix(host, "/") && role == superuser && s.Role.Name != role && !s.Server.Managed:
		before = "sudo -u postgres "
	}
	return before + "psql" + s.at() + " -U " + ShellQuote(role) + " -d " + ShellQuote(cmp.Or(s.Database, "postgres")) + " -c " + ShellQuote(sql)
}

func (s Snapshot) psqlAsSuperuser(sql string) string { return s.psql(s.Server.Superuser, sql) }

// GrantReadAll returns the command that lets the monitoring role see what other roles' sessions do.
func (s Snapshot) GrantReadAll() string {
	return s.onPrimary("GRANT pg_read_all_stats TO " + quoted(s.Role.Name))
}

// ShellQuote quotes text for a POSIX shell. It leaves plain words unquoted. Characters that can't be printed, such as a
// line break or one that changes the direction of writing, become escapes of printf, so that a terminal shows what a
// person copies.
func ShellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:=,@%+", r)
	}
	switch {
	case s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0:
		return s
	case !utf8.ValidString(s) || strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0:
		return printf(s)
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// printf writes text with escapes for what is not plain ASCII. A shell drops line breaks at the end of $(…): a name that
// ends with one is the only one that can't be written so.
func printf(s string) string {
	var format strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '%':
			format.WriteString("%%")
		case c == '\\' || c == '\'' || c < ' ' || c > '~':
			fmt.Fprintf(&format, `\%03o`, c)
		default:
			format.WriteByte(c)
		}
	}
	return `"$(printf '` + format.String() + `')"`
}
