package auth

import (
	"context"
	"runtime"
	"time"
)

// OccupyHasher takes every turn to hash. entered is closed when a login waits for one.
func OccupyHasher(s *Service) (entered <-chan struct{}, leave func()) {
	h := s.hasher
	for range cap(h.turns) {
		h.turns <- struct{}{}
		h.places <- struct{}{}
	}
	waits := make(chan struct{})
	go func() {
		for WaitingForHasher(s) == 0 {
			runtime.Gosched()
		}
		close(waits)
	}()
	return waits, func() {
		for range cap(h.turns) {
			h.leave()
		}
	}
}

// WaitingForHasher returns how many logins wait while every turn is taken.
func WaitingForHasher(s *Service) int { return len(s.hasher.places) - cap(s.hasher.turns) }

// SetClock makes now the service's time.
func SetClock(s *Service, now func() time.Time) { s.now = now }

// WithSecret is a request's context with that session.
func WithSecret(ctx context.Context, s *Service, secret string) context.Context {
	v := &visit{service: s, secret: secret}
	v.key, v.valid = hashSecret(secret)
	return context.WithValue(ctx, visitKey{}, v)
}
