package db

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// changesSession tells whether the statement may leave something in the session for the next borrower: a
// setting, a temporary table, a prepared statement, an advisory lock, a LISTEN. Then the session is reset
// when the lease comes back, at a cost of two round trips; for all others that would be a third of the time
// of a request to /polls/. It goes by what is known to be harmless: statements that read and write rows, and call
// none but everyday functions. Everything else is reset after, any function of one's own included. What it can't
// see is such a function behind a trigger, a rule, a policy, a default, a cast, a view or an operator, or one that is
// called as a word of SQL is: use Lease.Conn there, which is always reset after.
func changesSession(sql string) bool {
	s := strings.TrimLeft(sql, space+"(")
	word := s
	if i := strings.IndexFunc(s, func(r rune) bool { return r < 'A' || r > 'z' }); i >= 0 {
		word = s[:i]
	}
	switch {
	case !listed(keepsSession, word):
		return true
	case strings.IndexByte(strings.TrimRight(s, space+";"), ';') >= 0, strings.Contains(s, "--"), strings.Contains(s, "/*"):
		return true // several statements, or a comment, or a literal that looks so: the reset is right for all
	}
	return containsFold(s, "temp") || callsUnknown(s)
}

// space is what PostgreSQL takes for it.
const space = " \t\r\n\f\v"

var keepsSession = set(`select insert update delete merge with values table explain
	begin start commit rollback savepoint release`)

// callsUnknown tells whether something stands before a parenthesis that is neither a word of SQL nor a function
// known to leave the session alone. The list of columns after INSERT INTO looks like a call, and is none.
func callsUnknown(s string) bool {
	for from := 0; ; from++ {
		i := strings.IndexByte(s[from:], '(')
		if i < 0 {
			return false
		}
		from += i
		before := strings.TrimRight(s[:from], space)
		name := lastName(before)
		if name == "" || listed(harmless, name) {
			continue
		}
		before = strings.TrimRight(before[:len(before)-len(name)], space)
		if !strings.EqualFold(lastName(before), "into") {
			return true
		}
	}
}

// lastName is the name at the end of s, quoted and with its schema if so written; empty if s ends in none.
func lastName(s string) string {
	i := len(s)
	for quoted := false; i > 0; i-- {
		if c := s[i-1]; c == '"' {
			quoted = !quoted
		} else if !quoted && !inName(c) {
			break
		}
	}
	return s[i:]
}

func inName(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c == '.' || c >= 0x80
}

// harmless may stand before a parenthesis.
var harmless = set(`select from where and or not in exists any some all array row as over filter within on using by
	values with case when then else like ilike between is distinct limit offset union intersect except having returning
	conflict explain materialized to key interval numeric varchar char
	count sum avg min max bool_and bool_or array_agg string_agg json_agg jsonb_agg json_object_agg jsonb_object_agg
	coalesce nullif greatest least abs ceil floor round random mod sign power sqrt
	lower upper initcap length char_length octet_length trim btrim ltrim rtrim left right substr substring position strpos replace
	split_part concat concat_ws format repeat reverse translate md5 sha256 encode decode convert_to regexp_replace quote_literal quote_ident
	now clock_timestamp statement_timestamp date_trunc date_part extract age make_interval to_char to_date to_timestamp to_number
	array_length cardinality unnest generate_series array_position row_number rank dense_rank lag lead first_value last_value ntile
	to_json to_jsonb jsonb_build_object json_build_object jsonb_array_elements row_to_json gen_random_uuid
	pg_sleep pg_backend_pid current_setting version pg_column_size pg_relation_size to_regclass`)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

// listed tells whether the word, in whatever case, is in the set.
func listed(set map[string]bool, word string) bool {
	if set[word] {
		return true
	}
	var lower [24]byte // no word of a set is longer
	if len(word) > len(lower) {
		return false
	}
	for i := range len(word) {
		lower[i] = word[i]
		if word[i] >= 'A' && word[i] <= 'Z' {
			lower[i] |= 0x20
		}
	}
	return set[string(lower[:len(word)])]
}

// containsFold is strings.Contains without regard to the case of ASCII letters, and without an allocation.
func containsFold(s, lower string) bool {
	for i := 0; i+len(lower) <= len(s); i++ {
		if s[i]|0x20 == lower[0] && strings.EqualFold(s[i:i+len(lower)], lower) {
			return true
		}
	}
	return false
}

// hangUpTimeout bounds the wait for the server's side of a closed connection.
const hangUpTimeout = time.Second

// hangUp closes the connection and waits until the server's process is gone, that is, until its slot is free:
// the socket's end comes from the kernel after the backend gave up its place. pgx, as libpq, does not wait for
// that, and whoever connects the moment after has one backend more than they think.
func hangUp(conn *pgx.Conn) {
	pc := conn.PgConn()
	if pc.IsClosed() {
		select {
		case <-pc.CleanupDone():
		case <-time.After(hangUpTimeout):
			_ = pc.Conn().Close() // the driver itself would wait for 15 s
		}
		return
	}
	sayGoodbye(conn)
	_ = pc.Conn().Close()
	_ = conn.Close(context.Background()) // the socket is closed: this marks the driver's side
}

// cutOff ends a connection that somebody may be using: it touches its socket alone. The query under way is cancelled,
// else it would go on without its client; the end of our side, as EOF, ends the server's process, and the end of its
// side tells that this is gone. Both together take no longer than hangUpTimeout.
func cutOff(conn *pgx.Conn) {
	socket := conn.PgConn().Conn()
	ctx, cancel := context.WithTimeout(context.Background(), hangUpTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = socket.Close() })() // no deadline: the driver may take it away
	_ = conn.PgConn().CancelRequest(ctx)
	if half, ok := socket.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, socket)
	}
	_ = socket.Close()
}

// sayGoodbye is hangUp up to the end of the server's side; pgxpool's hook BeforeClose is the other caller.
func sayGoodbye(conn *pgx.Conn) {
	pc := conn.PgConn()
	if pc.IsClosed() {
		return
	}
	if pc.IsBusy() { // a result nobody read to its end: the server would go on with it
		ctx, cancel := context.WithTimeout(context.Background(), hangUpTimeout)
		_ = pc.CancelRequest(ctx)
		cancel()
	}
	_ = pc.Conn().SetDeadline(time.Now().Add(hangUpTimeout))
	bye, err := (&pgproto3.Terminate{}).Encode(nil)
	if err != nil {
		return
	}
	_, _ = pc.Conn().Write(bye) // fails after cutOff, whose wait for the backend must not be cut short
	_, _ = io.Copy(io.Discard, pc.Conn())
}
