package report

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"ddtb/db"
)

// InternalError is the cause of any other failure: a bug, or an unexpected error.
const InternalError = "internal error"

// Incident is one failed request. Only Err is needed. Its strings are copied and cut, so that it keeps no memory of
// the request alive.
type Incident struct {
	Err     error
	Request Request

	// The state of the database, as far as known without a query.
	Slots   string   // of the server: "0.8 s before the failure, 97 of 97 usable used (100 %)"
	Holders []string // "12.3 s  store.go:42 polls.(*Store).Latest", oldest first; 20 are kept
}

// Request is the part of a request that may be sent: no header except the user agent, no form value, and only query
// values that can't be secrets.
type Request struct{ Method, Route, Path, Query, ClientIP, ID, UserAgent string }

// RequestOf returns the part of r that may be sent. route is the pattern, such as "/polls/:id/": it groups failures.
// The framework supplies route, clientIP and id.
func RequestOf(r *http.Request, route, clientIP, id string) Request {
	return Request{
		Method: r.Method, Route: route, Path: r.URL.Path, Query: safeQuery(r.URL.RawQuery),
		ClientIP: clientIP, ID: id, UserAgent: r.UserAgent(),
	}
}

func (r Request) cut() Request {
	return Request{line(r.Method), line(r.Route), line(r.Path), line(r.Query), line(r.ClientIP), line(r.ID), line(r.UserAgent)}
}

var harmless = regexp.MustCompile(`^[0-9]{1,6}$`)

// safeQuery keeps the names of a query string, and the values that are short numbers, as "page=2", unless the name
// says that it is a secret.
func safeQuery(raw string) string {
	values, err := url.ParseQuery(cut(raw, maxText))
	if err != nil {
		return "[unreadable]"
	}
	var parts []string
	for name, all := range values {
		for _, v := range all {
			if !harmless.MatchString(v) || secretName.MatchString(name) {
				v = "…"
			}
			parts = append(parts, line(name)+"="+v)
		}
	}
	slices.Sort(parts)
	return cut(strings.Join(parts, "&"), maxLine)
}

// deadlineExceeded is the cause of a request whose time was up.
const deadlineExceeded = "deadline exceeded"

// CauseOf returns why a request failed with err: a cause of package db, a deadline, or InternalError. It is one of
// Causes.
func CauseOf(err error) string {
	if cause := db.CauseOf(err); cause != "" {
		return string(cause)
	}
	if f, ok := db.QueryFailureOf(err); ok && f.Cause != "" {
		return f.Cause
	}
	if errors.Is(err, db.ErrQueryTimeout) || errors.Is(err, context.DeadlineExceeded) {
		return deadlineExceeded
	}
	return InternalError
}

// Causes returns all values of CauseOf.
func Causes() []string {
	all := []string{deadlineExceeded, InternalError}
	for _, f := range db.QueryFailures {
		if f.Cause != "" && !slices.Contains(all, f.Cause) {
			all = append(all, f.Cause)
		}
	}
	for _, c := range db.Causes {
		all = append(all, string(c.Cause))
	}
	return all
}

// failure is the bounded copy of an incident that notices are made from.
type failure struct {
	Request
	At                time.Time
	Cause             string
	Opened            string // of "circuit open": the cause of the last attempt, if known
	NoConn            bool   // there was no connection: it belongs to the outage
	Text, Type        string
	SQLState          string
	Server            string // HOST:PORT
	Limit             string // which limit of connections was reached: see db.ConnError.Limit
	Strategy, Waiting string
	Slots             string
	Holders           []string
	Origin            string // the line of code to blame: found when it is counted, since that takes time

	stack []uintptr // where the error came up, innermost first
}

func newFailure(in Incident) *failure {
	f := &failure{
		Request: in.Request.cut(), At: time.Now(), Cause: CauseOf(in.Err), NoConn: db.CauseOf(in.Err) != "", Slots: line(in.Slots),
	}
	for _, h := range in.Holders[:min(len(in.Holders), 20)] {
		f.Holders = append(f.Holders, line(h))
	}
	if in.Err != nil {
		f.Text, f.Type = cut(in.Err.Error(), maxText), fmt.Sprintf("%T", innermost(in.Err))
	}
	if traced, ok := errors.AsType[interface {
		error
		StackTrace() []uintptr
	}](in.Err); ok {
		f.stack = traced.StackTrace()
	}
	if pe, ok := errors.AsType[*pgconn.PgError](in.Err); ok {
		f.SQLState = line(pe.Code)
	}
	if ce, ok := errors.AsType[*db.ConnError](in.Err); ok {
		f.Opened, f.Strategy, f.Server, f.Limit = string(ce.Opened), ce.Strategy, line(ce.Server), ce.Limit()
		if ce.Leases > 0 || ce.Waiting > 0 || ce.Waited > 0 {
			f.Waiting = fmt.Sprintf("it waited %.2f s; %s were out, and %s waited", ce.Waited.Seconds(), leases(ce), count(ce.Waiting, "other request"))
		}
	}
	return f
}

func leases(ce *db.ConnError) string {
	if ce.Size == 0 {
		return fmt.Sprintf("%d leases", ce.Leases)
	}
	return fmt.Sprintf("%d of %d leases", ce.Leases, ce.Size)
}

// count is "1 request" or "2 requests".
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// Lines are the error and its stack, for a mail.
func (f *failure) Lines() []string {
	all := strings.Split(f.Text, "\n")
	for _, frame := range f.frames() {
		all = append(all, "  "+place(frame))
	}
	return all
}

// innermost returns the error at the end of err's chain, whose type is the most specific.
func innermost(err error) error {
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	return err
}

// WithStack is err with the stack of its caller. In a deferred function that recovers, it is that of the panic.
func WithStack(err error) error {
	stack := make([]uintptr, 64)
	return withStack{err, stack[:runtime.Callers(2, stack)]}
}

type withStack struct {
	error
	stack []uintptr
}

func (w withStack) Unwrap() error         { return w.error }
func (w withStack) StackTrace() []uintptr { return w.stack }

// frames resolves the stack, innermost first, from the line that panicked if one did.
func (f *failure) frames() (all []runtime.Frame) {
	if len(f.stack) == 0 {
		return nil
	}
	next := runtime.CallersFrames(f.stack)
	for more := true; more; {
		var frame runtime.Frame
		frame, more = next.Next()
		if frame.Function == "runtime.gopanic" {
			all = all[:0]
		}
		if !strings.HasPrefix(frame.Function, "runtime.") && frame.Function != "" {
			all = append(all, frame)
		}
	}
	return all
}

// origin is the first line of code outside the libraries and outside the packages that only pass errors on.
func (f *failure) origin() string {
	all := f.frames()
	if len(all) == 0 {
		return ""
	}
	return place(all[max(0, slices.IndexFunc(all, ours))])
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

// place is "store.go:42 polls.(*Store).Latest".
func place(f runtime.Frame) string {
	return line(fmt.Sprintf("%s:%d %s", base(f.File), f.Line, base(f.Function)))
}

func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
