// Package fault names the ways in which a request can go wrong by its own doing or by a rule of the
// application, apart from the database: app/web turns each into one response. It knows no HTTP framework,
// no database and no template, so that a store can say "no such poll" without importing any of them.
package fault

import (
	"errors"
	"fmt"
)

// Kind is what went wrong, as far as an answer depends on it.
type Kind int

// The kinds, and the status with which app/web answers each.
const (
	Internal     Kind = iota // 500: a bug, or anything not told apart
	Invalid                  // 400: a parameter or a form can't be read
	Forbidden                // 403: known, and not allowed
	NotFound                 // 404
	Conflict                 // 409: someone else changed it, or a constraint says no
	TooLarge                 // 413: the body is over its limit
	TooManyTries             // 429: slowed down
	Busy                     // 503: as many do this as may, on purpose; nothing is wrong
)

// Error carries two messages: Public for the person, Err for the log.
type Error struct {
	Kind   Kind
	Public string // one sentence without secrets: what happened and what to do
	Err    error  // the private cause, or nil
}

// New makes an error of the kind with a public message.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Public: fmt.Sprintf(format, args...)}
}

// Wrap makes an error of the kind around a private cause.
func Wrap(kind Kind, err error, public string) *Error {
	return &Error{Kind: kind, Public: public, Err: err}
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Public + ": " + e.Err.Error()
	}
	return e.Public
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf is the kind of the first Error in err's chain, else Internal.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}
