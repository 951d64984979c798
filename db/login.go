package db

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// loginReader waits for the server's first message. If it requests SCRAM, loginReader prepares the attempt's password
// before the driver sees the message. pgx has no other hook there, and the methods md5 and password need the unprepared
// password. A first message that PostgreSQL does not send is an error: the driver would take "HTTP/1.1" for the header
// of a message of a gigabyte, and wait for it.
type loginReader struct {
	io.Reader
	attempt *pgconn.Config
	head    [9]byte // type, length and kind of the message
	n       int     // bytes of head received
	login   []byte  // what came before the server was ready
	ready   bool
}

// The kinds of authentication requests that ask for a password.
const (
	authenticationPassword = 3
	authenticationMD5      = 5
	authenticationSASL     = 10
)

func (r *loginReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if r.n < len(r.head) {
		r.n += copy(r.head[r.n:], p[:n])
		if refused := r.check(p[:n]); refused != nil {
			return 0, refused
		}
	}
	if r.endless(p[:n]) {
		return 0, errNotPostgres
	}
	return n, err
}

// longestLogin limits what a server sends before it is ready for queries, in bytes. PostgreSQL and PgBouncer send less
// than a hundredth of it; the driver would keep every setting of an endless stream.
const longestLogin = 256 << 10

// endless adds text to the login, and reports whether that is too long.
func (r *loginReader) endless(text []byte) bool {
	if r.ready {
		return false
	}
	r.login = append(r.login, text...)
	if r.ready = bytes.Contains(r.login, []byte("Z\x00\x00\x00\x05I")); r.ready {
		r.login = nil
	}
	return len(r.login) > longestLogin
}

// errNoPassword means that the server asks for a password. It would refuse an empty one, as if it were wrong.
var errNoPassword = errors.New("the server asks for a password, and there is none: set password, password_file or PGPASSWORD, " +
	"or write a line that matches into ~/.pgpass or PGPASSFILE")

// prepare prepares the password for the kind of authentication.
func (r *loginReader) prepare(kind uint32) error {
	switch kind {
	case authenticationSASL:
		r.attempt.Password = saslprep(r.attempt.Password)
	case authenticationPassword, authenticationMD5:
	default:
		return nil
	}
	if r.attempt.Password == "" {
		return errNoPassword
	}
	return nil
}

// longestFirst is libpq's limit on the length of the first message, in bytes.
const longestFirst = 30000

// errNotPostgres means that something else than PostgreSQL listens at the address.
var errNotPostgres = errors.New("what answers at this address is not PostgreSQL: check the host and the port")

// check prepares the password for the first message, of which text is the last part that came. It returns an error if
// the message is none of PostgreSQL's, or if there is no password. A server that can't start a process for the
// connection sends "E" and a text without a length.
func (r *loginReader) check(text []byte) error {
	switch {
	case r.n > 0 && !strings.ContainsRune("RENv", rune(r.head[0])): // authentication, error, notice, negotiation
		return errNotPostgres
	case r.n == len(r.head) && r.head[0] == 'R':
		return r.prepare(binary.BigEndian.Uint32(r.head[5:]))
	case r.n < 5 || binary.BigEndian.Uint32(r.head[1:]) <= longestFirst:
		return nil
	case r.head[0] == 'E':
		said, _, _ := strings.Cut(string(text), "\x00")
		return &noProcessError{strings.TrimSpace(strings.TrimPrefix(said, "E"))}
	}
	return errNotPostgres
}

// noProcessError is what the server says if it can't start a process for a connection.
type noProcessError struct{ said string }

func (e *noProcessError) Error() string {
	return "the server says: " + strings.ToValidUTF8(e.said, "?")
}
