package lab

import (
	"context"
	"sync"

	"ddtb/config"
	"ddtb/db"
)

// Nesting is a request that held a lease and asked for another, with its lines of code.
type Nesting struct {
	First  string `json:"first"`  // got the lease that is held
	Second string `json:"second"` // asks for another
}

// open returns the database of the run: the application's, or a private one that records nested leases.
func (r *sentryRun) open(l *Lab, cfg config.Database) (end func(), err error) {
	if !r.private {
		r.db = l.db
		return func() {}, nil
	}
	var mu sync.Mutex
	heard := func(first, second string) {
		mu.Lock()
		defer mu.Unlock()
		r.answer.Nested = append(r.answer.Nested, Nesting{first, second})
	}
	if r.db, err = db.OpenWith(cfg, db.Options{Log: l.log, OnNested: heard}); err != nil {
		return nil, err
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := r.db.Close(ctx); err != nil {
			l.log.Warn("the private database of an experiment did not close in time", "error", err)
		}
	}, nil
}
