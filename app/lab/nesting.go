package lab

import (
	"context"
	"log/slog"
	"sync"

	"ddtb/config"
	"ddtb/db"
)

// Nesting is a request that held a lease and asked for another, with its lines of code.
type Nesting struct {
	First  string `json:"first"`  // got the lease that is held
	Second string `json:"second"` // asks for another
}

// open returns the database of the run: the application's, or a private one whose log is recorded.
func (r *sentryRun) open(l *Lab, cfg config.Database) (end func(), err error) {
	if !r.private {
		r.db = l.db
		return func() {}, nil
	}
	log := &overheard{Handler: l.log.Handler(), answer: r.answer}
	if r.db, err = db.OpenWith(cfg, db.Options{Log: slog.New(log)}); err != nil {
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

// overheard is a log that also copies lines about nested leases into the response, as an operator would find them.
type overheard struct {
	slog.Handler
	mu     sync.Mutex
	answer *Sentry
}

// Enabled implements slog.Handler.
func (o *overheard) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (o *overheard) Handle(ctx context.Context, line slog.Record) error {
	var n Nesting
	line.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "first":
			n.First = a.Value.String()
		case "second":
			n.Second = a.Value.String()
		}
		return true
	})
	if n.First != "" && n.Second != "" {
		o.mu.Lock()
		o.answer.Nested = append(o.answer.Nested, n)
		o.mu.Unlock()
	}
	if !o.Handler.Enabled(ctx, line.Level) {
		return nil
	}
	return o.Handler.Handle(ctx, line)
}
