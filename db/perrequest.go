package db

import (
	"context"
	"time"
)

// PerRequest is the name of the strategy that connects at the first query of a request and closes at its end, as Django
// does with CONN_MAX_AGE = 0. No connections accumulate. But each request pays for a new backend and a login. If
// MaxSize does not bound them, as many simultaneous requests as there are slots still use all slots.
const PerRequest = "per-request"

// PerRequestSettings are the settings of PerRequest.
type PerRequestSettings struct {
	MaxSize int           `toml:"max_size" allow:"0..10000"` // 0: no bound
	Timeout time.Duration `toml:"timeout" allow:"1ms..10m"`  // how long a request waits for its turn, with MaxSize
}

var defaultPerRequest = PerRequestSettings{Timeout: 10 * time.Second}

func init() {
	Register(Spec{
		Name:            PerRequest,
		Description:     "a new connection for each request, closed at its end",
		Size:            func(s Settings) int { return s.PerRequest.MaxSize },
		SizeKey:         "per_request.max_size",
		Backends:        func(s Settings) int { return s.PerRequest.MaxSize },
		Timeout:         func(s Settings) time.Duration { return s.PerRequest.Timeout },
		HoldsForRequest: func(Settings) bool { return true },
		Show: func(s Settings) []Setting {
			return []Setting{
				{Key: "per_request.max_size", Title: "Size", Help: "At most so many connections; 0: no bound.", Value: s.PerRequest.MaxSize},
				{Key: "per_request.timeout", Title: "Timeout", Help: "How long a request waits for its turn, as 10s; only with a size.", Value: s.PerRequest.Timeout},
			}
		},
		Check: func(s Settings) error {
			if s.PerRequest.MaxSize > 0 {
				return atLeast("per_request.timeout", s.PerRequest.Timeout, time.Millisecond)
			}
			return atLeast("per_request.max_size", s.PerRequest.MaxSize, 0)
		},
		New: func(_ Settings, c *Connector) (Strategy, error) { return perRequest{c}, nil },
	})
}

type perRequest struct{ *Connector }

func (p perRequest) Acquire(ctx context.Context, l *Lease) error {
	conn, err := p.Connect(ctx)
	if err != nil {
		return err
	}
	l.Attach(conn, nil)
	return nil
}

func (p perRequest) Release(l *Lease)      { p.CloseConn(l.conn) }
func (perRequest) Forget(*Lease)           {}
func (perRequest) Idle() int               { return 0 }
func (perRequest) Refresh(context.Context) {}
func (perRequest) Retire(context.Context)  {}
func (perRequest) Close()                  {}
