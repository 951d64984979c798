package db

import (
	"errors"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// Hint returns advice for an operator, if err is typical of an undeclared PgBouncer, is one of PgBouncer's own
// refusals, or concerns tables that are missing or that another role owns, peer authentication, or memory, processes or disk
// space that the server lacks; else "".
func Hint(err error) string {
	if _, ok := errors.AsType[*noProcessError](err); ok {
		return "the server's machine lacks memory for another process, or a limit on processes is reached " +
			"(ulimit -u, TasksMax of systemd, pids of a container)"
	}
	pe, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return ""
	}
	_, pooler := ofPooler(pe)
	switch {
	case ofUndeclaredPooler(err):
		return setPooler
	case ByPooler(pe) && pooler != "":
		return pooler
	case pe.Code == pgerrcode.UndefinedTable, pe.Code == pgerrcode.UndefinedColumn, pe.Code == pgerrcode.WrongObjectType:
		return "a table was dropped, renamed or changed: `ddtb migrate` makes it, or says what is missing and what to do"
	case pe.Code == pgerrcode.CharacterNotInRepertoire:
		return "a stored text is not in the database's encoding, which SQL_ASCII does not check: correct the text, " +
			"and recreate the database with TEMPLATE template0 ENCODING 'UTF8'"
	case pe.Code == pgerrcode.UntranslatableCharacter:
		return "the database's encoding lacks this character: recreate the database with TEMPLATE template0 ENCODING 'UTF8'"
	case pe.Code == pgerrcode.OutOfMemory && strings.Contains(pe.Hint, "max_locks_per_transaction"): // a name is not translated
		return "the server's table of locks is full, which is no lack of connection slots: end the program that locks thousands of tables or " +
			"advisory locks at once, or raise max_locks_per_transaction (this needs a restart)"
	case pe.Code == pgerrcode.OutOfMemory:
		return "the server's machine lacks memory: fewer connections, a smaller work_mem, or more memory"
	case pe.Code == pgerrcode.DiskFull:
		return "the disk of the server is full: free some space there, but delete nothing in its data directory"
	case pe.Code == pgerrcode.InvalidPassword: // the server does not say which of the two it is
		return "the user or the password is wrong, or the password was stored with md5 and pg_hba.conf asks for scram-sha-256: `\\password ROLE` in psql sets it again"
	case pe.Code == pgerrcode.InsufficientPrivilege && strings.HasPrefix(pe.Routine, "aclcheck_error"):
		return "the table belongs to another role: `ddtb migrate` says which statement grants it"
	case pe.Code == pgerrcode.InvalidAuthorizationSpecification && pe.Routine == "auth_failed" && strings.Contains(pe.Message, "Peer"):
		// The method peer authenticates the account of the process. Translations keep the word "Peer".
		return `at its socket the server lets in only processes that run as the account of the role's name: set host = "127.0.0.1" to log in ` +
			`by password, or put "local all all scram-sha-256" before pg_hba.conf's first "local" line, and reload the server`
	}
	return ""
}
