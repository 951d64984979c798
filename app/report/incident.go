package report

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/db"
)

// InternalError is the cause of whatever has no other: a bug, or an error nobody expected.
const InternalError = "internal error"

// Incident is one failed request. Only Err is needed. Nothing in it is kept but strings, cut to a bound, so that
// an incident pins no memory of its request.
type Incident struct {
	Err      error
	Cause    string    // "": CauseOf(Err)
	Stack    []uintptr // the first traceback: Callers, where the error came up; nil: Err's StackTrace(), if it has one
	Origin   string    // the line of code to blame, "store.go:42 polls.(*Store).Latest"; "": found in Stack
	Strategy string    // "": that of the ConnError in Err
	Request  Request

	// What was known of the database without asking it.
	Slots   string   // "97 of 97 usable slots are taken"
	Waiters string   // "14 requests waited"; "": what the ConnError in Err says
	Holders []string // "12.3 s  store.go:42 polls.(*Store).Latest", oldest first

	At time.Time // zero: now
}

// Request is what may be told of a request: no header but the user agent, no value of a form, and of the query
// only what can't be a secret.
type Request struct {
	Method    string
	Route     string // the pattern, "/polls/:id/": requests to one route are one kind of failure
	Path      string
	Query     string // as SafeQuery gives it
	ClientIP  string
	ID        string
	UserAgent string
}

// RequestOf takes from r what may be told. route, clientIP and id are the framework's to know.
func RequestOf(r *http.Request, route, clientIP, id string) Request {
	return Request{
		Method: r.Method, Route: route, Path: r.URL.Path, Query: SafeQuery(r.URL.RawQuery),
		ClientIP: clientIP, ID: id, UserAgent: r.UserAgent(),
	}
}

var (
	harmless  = regexp.MustCompile(`^[0-9]{1,6}$`)
	sensitive = regexp.MustCompile(`(?i)pass|pwd|pin|code|otp|secret|token|key|csrf|sess|sid|auth|card`)
)

// SafeQuery keeps every name of a query string, and those values that are short numbers, as "page=2", unless
// their name says that they are secret.
func SafeQuery(raw string) string {
	if raw == "" {
		return ""
	}
	values, err := url.ParseQuery(cut(raw, maxText))
	if err != nil {
		return "[unreadable]"
	}
	var parts []string
	for name, all := range values {
		for _, v := range all {
			if !harmless.MatchString(v) || sensitive.MatchString(name) {
				v = "…"
			}
			parts = append(parts, line(name)+"="+v)
		}
	}
	slices.Sort(parts)
	return cut(strings.Join(parts, "&"), maxLine)
}

// Callers is the stack of the calling goroutine for Incident.Stack, without skip callers: 0 begins with the
// caller of Callers. In a deferred function that recovers, it is the stack of the panic.
func Callers(skip int) []uintptr {
	pcs := make([]uintptr, 64)
	return pcs[:runtime.Callers(skip+2, pcs)]
}

// WithStack is err with the stack of its caller, for what is told of it: a bug's error has no other.
func WithStack(err error) error { return withStack{err, Callers(1)} }

type withStack struct {
	error
	stack []uintptr
}

func (w withStack) Unwrap() error         { return w.error }
func (w withStack) StackTrace() []uintptr { return w.stack }

// Causes that are neither bugs nor the want of a connection: what the server tells, and a deadline that passed without
// anything being told.
const (
	statementTimeout  = "statement timeout"
	lockTimeout       = "lock timeout"
	readOnly          = "read-only database"
	diskFull          = "disk full"
	outOfMemory       = "out of memory"
	deadlineExceeded  = "deadline exceeded"
	roleLimit         = "role limit"
	databaseLimit     = "database limit"
	preparedStatement = "prepared statement"
)

var causes = map[string]string{
	pgerrcode.DuplicatePreparedStatement: preparedStatement, pgerrcode.InvalidSQLStatementName: preparedStatement,
	pgerrcode.QueryCanceled: statementTimeout, pgerrcode.LockNotAvailable: lockTimeout,
	pgerrcode.ReadOnlySQLTransaction: readOnly, pgerrcode.DiskFull: diskFull, pgerrcode.OutOfMemory: outOfMemory,
}

// CauseOf is why a request failed with err: a cause of package db, what the server's SQLSTATE says, a deadline, or
// InternalError. It is one of Causes.
func CauseOf(err error) string {
	if ce, ok := errors.AsType[*db.ConnError](err); ok {
		if limit := ce.Limit(); limit == db.RoleLimit || limit == db.DatabaseLimit {
			return limit + " limit" // roleLimit or databaseLimit: the same SQLSTATE, with another remedy
		}
		return string(ce.Cause)
	}
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok && causes[pe.Code] != "" {
		return causes[pe.Code]
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return deadlineExceeded
	}
	return InternalError
}

// Causes are all that CauseOf tells.
func Causes() []string {
	all := slices.Compact(slices.Sorted(maps.Values(causes)))
	for _, cause := range db.Causes {
		all = append(all, string(cause))
	}
	return append(all, roleLimit, databaseLimit, deadlineExceeded, InternalError)
}

// fingerprint is the kind of a failure. Failures of one kind are told together.
type fingerprint struct {
	Cause  string `json:"cause"`
	Route  string `json:"route,omitempty"`
	Origin string `json:"origin,omitempty"`
}

// others counts what is one kind too many: more than maxKinds at once are no longer told apart.
var others = fingerprint{Cause: "failures of many kinds"}

func (f fingerprint) key() string { return f.Cause + "\n" + f.Route + "\n" + f.Origin }

// complete fills in what can be derived.
func (in *Incident) complete() {
	if in.At.IsZero() {
		in.At = time.Now()
	}
	if in.Cause == "" {
		in.Cause = CauseOf(in.Err)
	}
	if len(in.Stack) == 0 {
		in.Stack = stackOf(in.Err)
	}
	if in.Origin == "" {
		in.Origin = originOf(in.Stack)
	}
}

// stackOf is the traceback that an error in err's chain carries, in the way that Sentry's library knows too.
func stackOf(err error) []uintptr {
	if traced, ok := errors.AsType[interface {
		error
		StackTrace() []uintptr
	}](err); ok {
		return traced.StackTrace()
	}
	return nil
}

func (in *Incident) fingerprint() fingerprint {
	return fingerprint{Cause: line(in.Cause), Route: line(in.Request.Route), Origin: line(in.Origin)}
}

// frames resolves a stack, innermost first, from the line that panicked on if one did.
func frames(pcs []uintptr) []runtime.Frame {
	if len(pcs) == 0 {
		return nil
	}
	var all []runtime.Frame
	next := runtime.CallersFrames(pcs)
	for more := true; more; {
		var f runtime.Frame
		f, more = next.Next()
		if f.Function == "runtime.gopanic" {
			all = all[:0]
		}
		if !strings.HasPrefix(f.Function, "runtime.") && f.Function != "" {
			all = append(all, f)
		}
	}
	return all
}

// originOf is the first line outside the libraries, and outside those packages that only pass errors on.
func originOf(pcs []uintptr) string {
	all := frames(pcs)
	for _, f := range all {
		if ours(f) {
			return place(f)
		}
	}
	if len(all) > 0 {
		return place(all[0])
	}
	return ""
}

func ours(f runtime.Frame) bool {
	if strings.HasSuffix(f.File, "_test.go") {
		return true
	}
	for _, passing := range []string{"ddtb/db.", "ddtb/app/web.", "ddtb/app/report."} {
		if strings.HasPrefix(f.Function, passing) {
			return false
		}
	}
	return strings.HasPrefix(f.Function, "ddtb/") || strings.HasPrefix(f.Function, "main.")
}

func place(f runtime.Frame) string {
	return fmt.Sprintf("%s:%d %s", last(f.File, 1), f.Line, last(f.Function, 1))
}

// last keeps the last n elements of a path.
func last(path string, n int) string {
	i := len(path)
	for ; n > 0 && i >= 0; n-- {
		i = strings.LastIndexByte(path[:i], '/')
	}
	return path[i+1:]
}

// Bounds on what is kept of an incident.
const (
	maxLine    = 300  // bytes of anything on one line
	maxText    = 2000 // bytes of an error
	maxHolders = 20
)

// line makes s fit for one line of a log, a subject or a header: without control characters, and short.
func line(s string) string {
	s = cut(s, maxLine) // first, since an error's text may be long
	if strings.IndexFunc(s, unprintable) < 0 {
		return s
	}
	return strings.Map(toSpace, s)
}

// unprintable is what JSON would change as well: a kind of failure must be the same after it was stored.
func unprintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

func toSpace(r rune) rune {
	if unprintable(r) {
		return ' '
	}
	return r
}

// inLines is toSpace for a text of several lines.
func inLines(r rune) rune {
	if r == '\n' || r == '\t' {
		return r
	}
	return toSpace(r)
}

// cut shortens s to at most n bytes, and says so. It takes a whole word off, if that is short: of a secret that is
// cut in two, the first half would not be found.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	s = s[:n-len("…")]
	tail := max(0, len(s)-200)
	if i := strings.LastIndexAny(s[tail:], " \t\n"); i >= 0 {
		return s[:tail+i+1] + "…"
	}
	for range utf8.UTFMax - 1 { // of a letter that is cut in two
		if r, size := utf8.DecodeLastRuneInString(s); r == utf8.RuneError && size == 1 {
			s = s[:len(s)-1]
		}
	}
	return s + "…"
}
