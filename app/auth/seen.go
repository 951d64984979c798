package auth

import (
	"context"
	"errors"
	"sync"
	"time"

	"ddtb/db"
)

// How long a session's user is cached; the package comment describes the cost.
const (
	maxSeen = 1000
	fresh   = 30 * time.Second // no query within it
	grace   = 10 * time.Minute // used while the database is unavailable
	tryFor  = time.Second      // how long a request with a fallback tries to query
	pause   = 5 * time.Second  // after a failed query, before the next
)

// seen caches users by the hash of their session's secret.
type seen struct {
	mu        sync.Mutex
	users     map[secretHash]sighting
	epoch     int       // incremented to invalidate results of running queries
	forgotten time.Time // when it was last incremented
}

type sighting struct {
	user    *User
	checked time.Time // when the database last confirmed it
	expires time.Time
	retry   time.Time // the database was unavailable: no query before this
}

func newSeen() *seen { return &seen{users: map[secretHash]sighting{}} }

// sampled is how many entries compete for eviction.
const sampled = 16

// put stores an entry. When the map is full, it evicts the oldest of some arbitrary others, as age says.
func put[K comparable, V any](m map[K]V, size int, key K, value V, age func(V) time.Time) {
	if _, known := m[key]; !known && len(m) >= size {
		var oldest K
		n := 0
		for other, v := range m {
			if n == 0 || age(v).Before(age(m[oldest])) {
				oldest = other
			}
			if n++; n == sampled {
				break
			}
		}
		delete(m, oldest)
	}
	m[key] = value
}

// at returns the cached user of the session at that time, and the epoch for put.
func (c *seen) at(key secretHash, now time.Time) (got sighting, epoch int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	got = c.users[key]
	if !now.Before(got.expires) || now.Sub(got.checked) > grace {
		delete(c.users, key)
		got = sighting{}
	}
	return got, c.epoch
}

// put caches a result of the database, unless Forget was called since the epoch: the result may be outdated.
func (c *seen) put(key secretHash, got sighting, epoch int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case got.user == nil:
		delete(c.users, key)
	case epoch == c.epoch:
		put(c.users, maxSeen, key, got, func(s sighting) time.Time { return s.checked })
	}
}

func (c *seen) forget(key secretHash, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.users, key)
	c.invalidate(now)
}

func (c *seen) forgetAll(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.users)
	c.invalidate(now)
}

func (c *seen) invalidate(now time.Time) {
	c.epoch++
	c.forgotten = now
}

// forgot reports whether a session was invalidated within the time before now.
func (c *seen) forgot(within time.Duration, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Sub(c.forgotten) < within
}

// Forget invalidates all cached sessions: call it after users, groups or permissions were changed. Sessions are then
// looked up on the primary until every replica in service has replayed the change.
func (s *Service) Forget() { s.seen.forgetAll(s.now()) }

func (s *Service) forget(secret string) {
	if key, ok := hashSecret(secret); ok {
		s.seen.forget(key, s.now())
	}
}

// reads returns the Querier for declared reads of sessions, or the primary's if a replica may lack a change that was made
// here. once means that a failed read is not retried.
func (s *Service) reads(now time.Time, once bool) db.Querier {
	switch lag := s.db.MaxLag(); {
	case lag > 0 && s.seen.forgot(max(time.Minute, 2*lag), now): // after it every replica in service has replayed it
		return s.db
	case once:
		return s.db.ReadOnce()
	}
	return s.db.Read()
}

// user returns the session's user, from the cache or with a limited number of queries. A query is sent once if there is
// another way to answer: a cached user, or that of the caller.
func (s *Service) user(ctx context.Context, key secretHash, once bool) (*User, error) {
	now := s.now()
	known, epoch := s.seen.at(key, now)
	if known.user != nil && (now.Sub(known.checked) < fresh || now.Before(known.retry)) {
		return known.user, nil
	}
	q := s.reads(now, once || known.user != nil)
	if known.user == nil {
		return s.ask(ctx, q, key, epoch)
	}
	soon, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	u, err := s.ask(soon, q, key, epoch)
	if err == nil || ctx.Err() != nil || !cannotAsk(err) {
		return u, err
	}
	known.retry = now.Add(pause)
	s.seen.put(key, known, epoch)
	return known.user, nil
}

func cannotAsk(err error) bool {
	return db.CauseOf(err) != "" || errors.Is(err, context.DeadlineExceeded)
}

// ask looks up the session in the database, and caches the result.
func (s *Service) ask(ctx context.Context, q db.Querier, key secretHash, epoch int) (*User, error) {
	now := s.now() // before the query: the result is at least this new
	u, left, _, err := load(ctx, q, key)
	if err != nil {
		return nil, err
	}
	s.seen.put(key, sighting{user: u, checked: now, expires: now.Add(left)}, epoch)
	return u, nil
}
