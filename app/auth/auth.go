// Package auth knows who someone is and what they may do: users, passwords, sessions, permissions. They live in
// Django's tables with Django's password encoding, so that a Django application can share them.
//
// It promises:
//   - A session's secret is only in the cookie; the table ddtb_session has its hash. The secret is new at each login,
//     and ends with logout, with its age, when the user is deactivated, and when the password changes, whoever
//     changes it.
//   - No password is hashed while a lease of the database is held, and only a few are hashed at once.
//   - A wrong name, a wrong password and an account that may not sign in get the same answer, and take the same time,
//     but for accounts of staff whose password Django hashed: their hash takes as long as Django made it take.
//   - After repeated failures a name is slowed down for the address that failed, never locked: the owner comes in
//     from elsewhere at once, and from there in five minutes at most. Behind a proxy that is not among the trusted
//     ones everybody has the proxy's address, and is slowed down together.
//
// # What the cache of sessions costs
//
// Who a session belongs to is remembered for 30 seconds, for at most 1,000 sessions, so that most pages ask the
// database nothing for it. While no connection can be had, what is known serves for up to ten minutes, so that
// staff get at the pages which need no query, such as the dashboard, when they need them most. UserFrom reads it;
// Recheck does not, and whatever changes something must use it, or RecheckThrough. So the cost is in reading alone:
// a logout, a password or a permission changed on this process counts at once; changed on another process, or by
// SQL, pages may still be read for 30 seconds, or for ten minutes while the database can't be asked.
//
// # Why not a library's sessions
//
// alexedwards/scs keeps arbitrary data in one blob, loads it at the start of each request and saves it at the end,
// through a store without a user: ending a user's sessions, hashing the secret and asking nothing under exhaustion
// would each have to be built around it. Here a session is one row that says who, and nothing is saved on the way.
//
// It must not know pages, or what the permissions are about.
package auth

import (
	"context"
	"time"

	"ddtb/config"
	"ddtb/db"
)

// Runner runs fn in a transaction, perhaps more than once.
type Runner func(ctx context.Context, fn func(context.Context, db.Querier) error) error

// Service is the users of one database.
type Service struct {
	// Reserve, if any, runs fn in a transaction over a connection that is there when the application can get none, so
	// that staff can sign in who come to see why: nothing else is asked over it. It is set before the first request.
	Reserve Runner

	db     *db.DB
	age    time.Duration
	hasher *hasher
	seen   *seen
	tries  *throttle
	now    func() time.Time
}

// New makes the service; it asks the database nothing yet.
func New(d *db.DB, cfg config.Admin) *Service {
	return &Service{db: d, age: cfg.SessionAge, hasher: newHasher(), seen: newSeen(), tries: newThrottle(), now: time.Now}
}
