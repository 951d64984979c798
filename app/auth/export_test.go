package auth

import (
	"context"
	"runtime"
	"time"
)

// OccupyHasher takes every turn to hash. entered is closed when a login waits for one.
func OccupyHasher(s *Service) (entered <-chan struct{}, leave func()) {
	q := s.hasher
	q.mu.Lock()
	taken := q.free
	q.free = 0
	q.mu.Unlock()
	waits := make(chan struct{})
	go func() {
		for q.length() == 0 {
			runtime.Gosched()
		}
		close(waits)
	}()
	return waits, func() {
		for range taken {
			q.leave()
		}
	}
}

func (h *hasher) length() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.waiting)
}

// SetClock makes now the service's time.
func SetClock(s *Service, now func() time.Time) { s.now = now }

// WithSecret is a request's context with that session.
func WithSecret(ctx context.Context, s *Service, secret string) context.Context {
	return s.withSecret(ctx, secret)
}
