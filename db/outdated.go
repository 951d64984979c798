package db

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
)

// Keys of a connection's custom data.
const (
	opened   = "db.opened"   // int64, in ticks
	wasReset = "db.wasReset" // bool
)

// outdated reports whether the statement failed because of state from when the session was opened: the server has
// become a standby or read-only, or a table, a type or a prepared statement has changed. A new connection may succeed.
// The server rolled the statement back, so it had no effect. A connection that was opened for this lease can't be
// outdated, except by a table that changed after the statement was prepared on it: that is worth another run.
func (l *Lease) outdated(err error) bool {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	data, futile := l.conn.PgConn().CustomData(), &l.source.futile
	switch pe.Code {
	case pgerrcode.ReadOnlySQLTransaction, pgerrcode.InvalidSQLStatementName, pgerrcode.DuplicatePreparedStatement,
		"57P05": // idle_session_timeout: the session ended before this statement began
	case pgerrcode.FeatureNotSupported:
		if pe.Routine != "RevalidateCachedQuery" { // "cached plan must not change result type", in any language
			return false
		}
	case pgerrcode.InternalError:
		if !strings.HasPrefix(pe.Message, "cache lookup failed for type ") { // an internal error is never translated
			return false
		}
	case pgerrcode.InsufficientPrivilege:
		futile = &l.source.denied
		if data[wasReset] == nil { // no reset took the privilege
			futile.Store(ticks() + int64(futileFor))
			return false
		}
	default:
		return false
	}
	l.opened, _ = data[opened].(int64)
	fresh := l.opened >= l.since
	if pe.Code == pgerrcode.FeatureNotSupported {
		return !fresh || !l.final
	}
	if fresh {
		futile.Store(ticks() + int64(futileFor))
		return false
	}
	return ticks() > futile.Load()
}

// futileFor is how long no session is replaced after a new one failed in the same way: a new session would not help.
const futileFor = 5 * time.Second

// refreshEvery is the least time between two refreshes: where every new session is soon outdated too, replacing them all
// would be the next problem.
const refreshEvery = 100 * time.Millisecond

// refresh closes all sessions that were opened before now: idle ones at once, the others at their release. Reads that share
// connections are sent again. It does nothing if that was done after the given session was opened. Within refreshEvery of the
// last time it does nothing either, unless it must: then it waits for the rest of that time first.
func (s *Source) refresh(ctx context.Context, opened int64, must bool) {
	s.refreshes.Lock()
	defer s.refreshes.Unlock()
	if opened < s.refreshed {
		return
	}
	if soon := refreshEvery - time.Duration(ticks()-s.refreshed); soon > 0 {
		if !must {
			return
		}
		select {
		case <-time.After(soon):
		case <-ctx.Done():
			return
		}
	}
	s.refreshed = ticks()
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	s.strategy.Refresh(within)
}
