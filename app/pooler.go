package app

import (
	"context"
	"log/slog"
	"sync"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
	"ddtb/db/activity"
)

// undeclared detects a pooler that is not in the configuration, once for each server behind it.
type undeclared struct {
	log    *slog.Logger
	mu     sync.Mutex
	cfg    db.Settings // the settings that it was checked for
	known  bool
	advice string
}

// check queries the server over the open monitoring connection, unless the answer is known. It returns the setting that
// an operator should add, or "". It logs a new answer.
func (u *undeclared) check(ctx context.Context, monitor *activity.Observer, cfg db.Settings) (advice string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.known && u.cfg.SameServer(cfg) {
		return u.advice
	}
	address := ""
	if cfg.Pooler == "" {
		err := monitor.Read(ctx, func(conn *pgx.Conn) (err error) {
			address = db.ServerOf(conn)
			advice, _, err = db.UndeclaredPooler(ctx, conn)
			return err
		})
		if err != nil {
			return "" // checked again with the next readiness
		}
	}
	if u.cfg, u.known, u.advice = cfg, true, advice; advice != "" {
		u.log.WarnContext(ctx, advice, "server", address)
	}
	return advice
}
