package auth

import (
	"context"
	"errors"
	"sync"
	"time"

	"ddtb/db"
)

// How long it is remembered whose session it is; the package comment says what that costs.
const (
	maxSeen  = 1000
	fresh    = 30 * time.Second // the database is not asked again
	grace    = 10 * time.Minute // it serves while the database can't be asked
	patience = time.Second      // how long a request with something to fall back on tries to ask
	pause    = 5 * time.Second  // after that failed, before the next try
)

// seen remembers users by the hash of their session's secret.
type seen struct {
	mu    sync.Mutex
	users *lru[secretHash, sighting]
	epoch int // counts what made answers under way worthless
}

type sighting struct {
	user    *User
	checked time.Time // when the database last said so
	expires time.Time
	retry   time.Time // the database could not be asked: not again before this
}

func newSeen() *seen { return &seen{users: newLRU[secretHash, sighting](maxSeen)} }

// at is what is known of the session at that time, and the epoch for put.
func (c *seen) at(key secretHash, now time.Time) (got sighting, epoch int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	got, _ = c.users.get(key)
	if !now.Before(got.expires) || now.Sub(got.checked) > grace {
		c.users.remove(key)
		got = sighting{}
	}
	return got, c.epoch
}

// put stores what the database said, unless something was forgotten since the epoch: the answer may be from before.
func (c *seen) put(key secretHash, got sighting, epoch int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case got.user == nil:
		c.users.remove(key)
	case epoch == c.epoch:
		c.users.put(key, got)
	}
}

func (c *seen) forget(key secretHash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users.remove(key)
	c.epoch++
}

// Forget makes every session be looked up anew: call it after users, groups or permissions were changed.
func (s *Service) Forget() {
	s.seen.mu.Lock()
	defer s.seen.mu.Unlock()
	s.seen.users.clear()
	s.seen.epoch++
}

func (s *Service) forget(secret string) {
	if key, ok := hashSecret(secret); ok {
		s.seen.forget(key)
	}
}

// user is whose session it is, as far as that is known without asking too often.
func (s *Service) user(ctx context.Context, key secretHash) (*User, error) {
	now := s.now()
	known, epoch := s.seen.at(key, now)
	if known.user != nil && (now.Sub(known.checked) < fresh || now.Before(known.retry)) {
		return known.user, nil
	}
	if known.user == nil {
		return s.ask(ctx, s.db, key, epoch)
	}
	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	u, err := s.ask(soon, s.db, key, epoch)
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

// ask looks the session up in the database, and remembers the answer.
func (s *Service) ask(ctx context.Context, q db.Querier, key secretHash, epoch int) (*User, error) {
	now := s.now() // before asking: the answer is at least as new
	u, expires, err := load(ctx, q, key)
	if _, ended := errors.AsType[*endedError](err); err != nil && !ended {
		return nil, err
	}
	s.seen.put(key, sighting{user: u, checked: now, expires: expires}, epoch)
	return u, err
}
