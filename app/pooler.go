package app

import (
	"context"
	"log/slog"
	"sync"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
	"ddtb/db/activity"
)

// undeclared finds a pooler that the configuration does not name, once for each server that it leads to.
type undeclared struct {
	log    *slog.Logger
	mu     sync.Mutex
	cfg    db.Settings // for which it is known
	known  bool
	advice string
}

// look asks the server over the connection that is open anyway, unless its answer is known, and returns what an operator
// should set; "" for nothing. It logs an answer that is new.
func (u *undeclared) look(ctx context.Context, server *activity.Observer, cfg db.Settings) (advice string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.known && u.cfg.SameServer(cfg) {
		return u.advice
	}
	mode := db.NoPooler
	if cfg.Pooler == "" {
		err := server.Do(ctx, func(conn *pgx.Conn) (err error) {
			mode, err = db.PoolerOf(ctx, conn)
			return err
		})
		if err != nil {
			return "" // it is asked again
		}
	}
	if u.cfg, u.known, u.advice = cfg, true, mode.Advice(); u.advice != "" {
		u.log.WarnContext(ctx, u.advice, "host", cfg.Host, "port", cfg.Port)
	}
	return u.advice
}
