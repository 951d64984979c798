// Package fault defines the kinds of failure of a request, apart from those of the database. app/web turns each into a
// response. The package depends on no HTTP framework, database or template, so that a store can return "no such poll"
// without importing any of them.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Kind is the kind of a failure, as far as the response depends on it: the status that app/web gives it.
type Kind int

// The kinds.
const (
	Invalid      Kind = 400 // a parameter or a form is malformed
	Forbidden    Kind = 403 // the user is known, and not allowed
	NotFound     Kind = 404
	Conflict     Kind = 409 // someone else changed the row, or a constraint forbids it
	TooLarge     Kind = 413 // the body exceeds its limit
	TooManyTries Kind = 429 // rate limited
	Internal     Kind = 500 // a bug, or anything else
	Busy         Kind = 503 // a deliberate limit on concurrent use; nothing is wrong
)

// Error carries two messages: Public for the user, Err for the log.
type Error struct {
	Kind   Kind
	Public string // one sentence without secrets: what happened, and what to do
	Err    error  // the private cause, or nil

	RetryAfter time.Duration // after it the same may succeed; 0: not said
}

// New returns an error of the kind with a public message.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Public: fmt.Sprintf(format, args...)}
}

// Wrap returns an error of the kind around a private cause.
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

// KindOf returns the kind of the first Error in err's chain, or Internal.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}
