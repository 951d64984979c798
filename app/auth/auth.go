// Package auth manages users, passwords, sessions and permissions. It uses Django's tables and password encoding, so
// that a Django application can share them.
//
// What callers can rely on:
//   - A session's secret is only in the cookie; the table ddtb_session has its hash. The secret is new at each login.
//     The session ends with the logout, with its age, when the user is deactivated, and at any change of the password.
//   - No password is hashed while a database lease is held, and only a few are hashed at once.
//   - A wrong name, a wrong password and an account that may not sign in get the same response in the same time. The
//     exception is a staff account whose password Django hashed: the time depends on Django's parameters.
//   - After repeated failures a name is slowed down for the failing address, but never locked. The owner can log in
//     from another address at once, and from the same address after at most five minutes. Behind a proxy that is not
//     trusted, all clients have the proxy's address and are slowed down together.
//
// # The cost of the session cache
//
// The user of a session is cached for 30 seconds, for at most 1,000 sessions, so that most pages need no query for it.
// While no connection is available, a cached entry is used for up to ten minutes, so that staff can use pages that need
// no query, such as the dashboard. UserFrom and UserOnce read the cache. Recheck does not: every change must use it, or
// RecheckThrough. So only reading is affected: a logout, or a change of a password or permission, takes effect at once
// on this process. After a change on another process or by SQL, pages can still be read for 30 seconds, or for ten
// minutes while the database is unavailable. Where a replica serves reads, its lag is added.
//
// # Why not a session library
//
// alexedwards/scs keeps arbitrary data in one blob, loads it at the start of each request, and saves it at the end, in
// a store without a user. Ending a user's sessions, hashing the secret, and avoiding queries during exhaustion would
// each need a workaround. Here a session is one row with its user, and requests do not save it.
//
// The package does not depend on pages, or on the meaning of permissions.
package auth

import (
	"context"
	"time"

	"ddtb/config"
	"ddtb/db"
)

// Runner runs fn in a transaction, perhaps more than once.
type Runner func(ctx context.Context, fn func(context.Context, db.Querier) error) error

// Service manages the users of one database.
type Service struct {
	db      *db.DB
	reserve Runner // for logins; nil: none
	age     time.Duration
	hasher  *hasher
	seen    *seen
	tries   *throttle
	now     func() time.Time
}

// New makes the service without a query. reserve runs fn over a connection that is available when the application can
// get none, so that staff can sign in during an outage. It is used for nothing else. Nil: no reserve.
func New(d *db.DB, cfg config.Admin, reserve Runner) *Service {
	return &Service{db: d, reserve: reserve, age: cfg.SessionAge, hasher: newHasher(), seen: newSeen(), tries: newThrottle(), now: time.Now}
}
