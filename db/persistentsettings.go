package db

import (
	"context"
	"errors"
	"time"
)

// PersistentSettings are the settings of Persistent.
type PersistentSettings struct {
	ConnMaxAge time.Duration `toml:"conn_max_age" allow:"none|0..8760h"` // 0 closes it at the request's end
	Workers    int           `toml:"workers" allow:"0..10000"`           // 0: one for each client connection
	Reap       bool          `toml:"reap"`                               // close the connection of a worker that has left
}

var defaultPersistent = PersistentSettings{ConnMaxAge: 10 * time.Minute}

// gunicornTimeout is how long a request waits for one of a fixed number of workers. Django has no bound here; 30 s is
// gunicorn's default for a worker that does not respond.
const gunicornTimeout = 30 * time.Second

func init() {
	Register(Spec{
		Name:            Persistent,
		Description:     "each worker keeps its connection: with a worker for each client, they add up",
		Size:            func(s Settings) int { return s.Persistent.Workers },
		SizeKey:         "persistent.workers",
		Backends:        func(s Settings) int { return s.Persistent.Workers },
		HoldsForRequest: func(Settings) bool { return true },
		Timeout:         func(Settings) time.Duration { return gunicornTimeout },
		Show: func(s Settings) []Setting {
			p := s.Persistent
			return []Setting{
				{Key: "persistent.workers", Title: "Workers", Help: "A fixed number; 0: one for each client connection.", Value: p.Workers},
				{Key: "persistent.conn_max_age", Title: "Age", Help: "When a worker replaces its connection, as 10s; none: never.", Value: p.ConnMaxAge},
				{Key: "persistent.reap", Title: "Close the connection of a worker that has left", Value: p.Reap},
			}
		},
		Check: func(s Settings) error {
			return errors.Join(atLeast("persistent.workers", s.Persistent.Workers, 0),
				atLeast("persistent.conn_max_age", s.Persistent.ConnMaxAge, Forever))
		},
		New: func(s Settings, c *Connector) (Strategy, error) {
			return &persistent{Connector: c, settings: s.Persistent, idle: map[context.Context][]*kept{}}, nil
		},
	})
}
