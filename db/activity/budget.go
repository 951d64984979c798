package activity

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"ddtb/config"
	"ddtb/db"
)

// Deploying is by how much a rolling deploy multiplies the replicas: for a while old and new ones run.
const Deploying = 2

// Budget is the fleet's arithmetic: replicas × (pool + 1) × 2 + extras, against the usable slots. The 1 is the
// connection by which each replica watches the server; the 2 is a rolling deploy. Pools of automatic size need their
// budget + replicas × 2 + extras.
type Budget struct {
	Strategy string `json:"strategy"`
	Replicas int    `json:"replicas"`
	Pool     int    `json:"pool"`   // connections at most, a replica; 0: no bound
	Extras   int    `json:"extras"` // what else needs a slot: migrations, cron, other applications, an operator
	Usable   int    `json:"usable"`
	Needed   int    `json:"needed"`    // while deploying; 0 when nothing bounds it
	Fits     bool   `json:"fits"`      //
	FitsPool int    `json:"fits_pool"` // the largest pool that fits; 0: none does
	Max      int    `json:"max_connections"`
	ToRaise  int    `json:"max_connections_needed"` // for the pool as it is, or for a pool of 1 where nothing bounds it

	Auto       bool `json:"auto"`        // the size of the pools is db.Auto
	AutoBudget int  `json:"auto_budget"` // of all processes together, if it is or were
}

// PlanBudget does the arithmetic for cfg's strategy.
func PlanBudget(cfg config.Database, replicas, extras int, s Slots) Budget {
	b := Budget{
		Strategy: cfg.Strategy, Replicas: max(1, replicas), Pool: boundOf(cfg), Extras: extras, Usable: s.Usable(), Max: s.Max,
	}
	b.AutoBudget = cmp.Or(cfg.Budget, db.DefaultBudget(b.Usable, b.Extras+b.Replicas))
	fleet := b.Replicas * Deploying
	b.FitsPool = max(0, (b.Usable-b.Extras)/fleet-1)
	need := fleet*(max(1, b.Pool)+1) + b.Extras
	if spec, ok := db.Lookup(cfg.Strategy); ok && spec.Size(cfg) == db.Auto {
		b.Auto, b.Pool, need = true, max(1, b.AutoBudget/b.Replicas), b.AutoBudget+fleet+b.Extras
	}
	b.ToRaise = need + s.Reserved
	if b.Pool > 0 {
		b.Needed = need
		b.Fits = need <= b.Usable && !b.tooSmall()
	}
	return b
}

// boundOf is how many connections the strategy opens at most in one process; 0: no bound.
func boundOf(cfg config.Database) int {
	spec, ok := db.Lookup(cfg.Strategy)
	if !ok {
		return 0
	}
	return spec.Backends(cfg)
}

// WithPools is t for a server on which cfg's strategy runs in so many processes.
func (t Thresholds) WithPools(cfg config.Database, replicas int) Thresholds {
	t.Own = max(1, replicas) * boundOf(cfg)
	if cfg.Pool.MaxSize == db.Auto {
		t.Own = boundOf(cfg) // of all processes
	}
	return t
}

// sizeKey is the setting that bounds the strategy.
func sizeKey(strategy string) string {
	spec, _ := db.Lookup(strategy)
	return spec.SizeKey
}

// tooSmall reports whether there are fewer connections than processes.
func (b Budget) tooSmall() bool { return b.Auto && b.AutoBudget < b.Replicas }

// Each says what one process gets of the budget when all need more.
func (b Budget) Each() string {
	switch each := b.AutoBudget / b.Replicas; {
	case each == 0:
		return fmt.Sprintf("fewer than the %d processes, which take turns when all need one", b.Replicas)
	case b.Replicas == 1:
		return "all of them for one process"
	default:
		return fmt.Sprintf("%d for each of %d when all need more", each, b.Replicas)
	}
}

// Sum is the arithmetic as people write it.
func (b Budget) Sum() string {
	if b.Auto {
		return fmt.Sprintf("a budget of %d + %d monitoring connections × %d while deploying + %d extras = %d, of %d usable slots",
			b.AutoBudget, b.Replicas, Deploying, b.Extras, b.Needed, b.Usable)
	}
	pool, needed := "no bound", "no bound"
	if b.Pool > 0 {
		pool, needed = fmt.Sprint(b.Pool), fmt.Sprint(b.Needed)
	}
	return fmt.Sprintf("%d × (%s + 1) × %d while deploying + %d extras = %s, of %d usable slots",
		b.Replicas, pool, Deploying, b.Extras, needed, b.Usable)
}

// Advice is what to change; "" when it fits.
func (b Budget) Advice() string {
	if b.Fits {
		return ""
	}
	var do []string
	fitting := b.Usable - b.Extras - b.Replicas*Deploying
	switch {
	case b.tooSmall():
		do = append(do, fmt.Sprintf("set fleet.budget to %d at least: with fewer connections than processes they take turns", b.Replicas))
	case b.Auto && fitting > 0:
		do = append(do, fmt.Sprintf("set fleet.budget to %d at most", fitting))
	case b.Auto:
	case b.FitsPool > 0:
		do = append(do, fmt.Sprintf("set %s to %d at most", sizeKey(b.Strategy), b.FitsPool))
	}
	if b.Pool > 0 && b.Needed > b.Usable {
		do = append(do, fmt.Sprintf("raise max_connections from %d to %d at least (this needs a restart of PostgreSQL)",
			b.Max, b.ToRaise))
	}
	do = append(do, "run fewer replicas, or put PgBouncer in front")
	return strings.Join(do, "; or ")
}

// String is one line for a log.
func (b Budget) String() string {
	if b.Fits {
		return "the connection budget fits: " + b.Sum()
	}
	return "the connection budget does not fit: " + b.Sum() + ": " + b.Advice()
}

// Extras counts what else has a slot on this server: client sessions that don't call themselves
// as the application, and one for a migration or an operator. Our own look is not counted.
func (s Snapshot) Extras() int {
	others := s.clients(func(x Session) bool { return !x.Self && !belongs(x.Application, s.Application) })
	return len(others) + 1
}

// belongs tells whether a session that calls itself name is the application's: its name itself, or with a slash
// and more.
func belongs(name, application string) bool {
	rest, is := strings.CutPrefix(name, application)
	return application != "" && is && (rest == "" || rest[0] == '/')
}

// BudgetError is what a server that is told to be strict about its budget does not start with.
type BudgetError struct{ Budget }

func (e *BudgetError) Error() string { return e.String() }

// CheckBudget does the arithmetic against the server as it is now, for the start of a replica: it fails with
// *BudgetError when the budget does not fit and strict is set, and otherwise only when the server can't be looked at.
func (o *Observer) CheckBudget(ctx context.Context, cfg config.Database, s config.Server) (Budget, error) {
	now, err := o.Snapshot(ctx)
	if err != nil {
		return Budget{}, err
	}
	b := PlanBudget(cfg, s.Replicas, now.Extras(), now.Slots)
	if !b.Fits && s.StrictBudget {
		return b, &BudgetError{b}
	}
	return b, nil
}
