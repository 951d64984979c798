package activity

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"ddtb/config"
	"ddtb/db"
)

// Deploying is the factor by which a rolling deployment multiplies the replicas: for a while old and new ones run.
const Deploying = 2

// Budget is the fleet's arithmetic: replicas × (pool + 1) × 2 + extras, compared with the usable slots, and by Within with
// the limits of the role and the database. The 1 is the
// monitoring connection of each replica; it is 2 if the replicas also read from a standby, because they compare its
// position with the primary's. The 2 is a rolling deployment. Pools of automatic size need their budget +
// replicas × 2 + extras.
type Budget struct {
	Strategy string `json:"strategy"` // Observed, if it is not that of a configuration
	Replicas int    `json:"replicas"`
	Pool     int    `json:"pool"`   // the most connections of one replica; 0: no bound
	Beside   int    `json:"beside"` // connections of one replica beside its pool
	Extras   int    `json:"extras"` // other users of slots: migrations, cron, other applications, an operator
	Usable   int    `json:"usable"`
	Needed   int    `json:"needed"`    // during a deployment; 0 if nothing bounds it
	Fits     bool   `json:"fits"`      //
	FitsPool int    `json:"fits_pool"` // the largest pool that fits; 0: none does
	Max      int    `json:"max_connections"`
	ToRaise  int    `json:"max_connections_needed"` // for the current pool, or for a pool of 1 if nothing bounds it

	Auto       bool      `json:"auto"`        // the size of the pools is db.Auto
	AutoBudget int       `json:"auto_budget"` // of all processes together, if Auto is or were true
	LimitedBy  *Limit    `json:"limited_by"`  // a limit of the role or the database that the processes exceed; null: none
	Services   []Service `json:"services"`    // that have sessions on the server now
	pooled     bool      // behind PgBouncer
	bouncer    *bouncer  // its limits, which bound the connections to the server; nil: the pools connect to it
}

// Service is a program with all its processes: the sessions of one application_name, apart from any number, process or
// job in it.
type Service struct {
	Name     string `json:"name"`
	Clients  int    `json:"clients"` // addresses that it connects from
	Sessions int    `json:"sessions"`
}

// Services returns the services with client sessions, the largest first. It leaves out monitoring programs.
func (s Snapshot) Services() []Service {
	out := []Service{}
	sessions := s.programs()
	places := groups(sessions, func(x Session) Group { return Group{Name: s.service(x), Address: x.Address} })
	for _, g := range groups(sessions, func(x Session) Group { return Group{Name: s.service(x)} }) {
		elsewhere := func(place Group) bool { return place.Name != g.Name }
		out = append(out, Service{Name: g.Name, Clients: len(slices.DeleteFunc(slices.Clone(places), elsewhere)), Sessions: g.Sessions})
	}
	return out
}

// service returns the session's program name, without the parts that differ from process to process.
func (s Snapshot) service(x Session) string {
	switch begin := stem(x.Application); {
	case belongs(x.Application, s.Application):
		return s.Application
	case len(begin) >= leastStem:
		return begin
	}
	return x.Who()
}

// Observed is the Strategy of a Budget of the current sessions.
const Observed = "observed"

// ObservedBudget computes the budget of a server whose programs' configuration is not known: the current sessions of
// each service, those of the largest service once more for its deployment, and one for an operator.
func ObservedBudget(s Snapshot) Budget {
	b := Budget{
		Strategy: Observed, Extras: 1, Needed: 1, Usable: s.Slots.Usable(), Max: s.Slots.Max, Services: s.Services(), pooled: len(s.Pools) > 0,
	}
	for _, x := range b.Services {
		b.Needed += x.Sessions
		b.Pool = max(b.Pool, x.Sessions)
	}
	b.Needed += b.Pool
	b.Fits, b.ToRaise = b.Needed <= b.Usable, b.Needed+s.Slots.Reserved
	b.FitsPool = max(0, (b.Usable-(b.Needed-Deploying*b.Pool))/Deploying)
	return b
}

// PlanBudget computes the budget of cfg's strategy. standby is whether the processes also read from one.
func PlanBudget(cfg config.Database, standby bool, replicas, extras int, s Slots) Budget {
	b := Budget{
		Strategy: cfg.Strategy, Replicas: max(1, replicas), Pool: boundOf(cfg), Beside: 1, Extras: extras, Usable: s.Usable(), Max: s.Max,
	}
	if standby {
		b.Beside = 2
	}
	b.AutoBudget = cmp.Or(cfg.Budget, db.DefaultBudget(b.Usable, b.Extras+b.Replicas))
	if spec, ok := db.Lookup(cfg.Strategy); ok && spec.Size(cfg) == db.Auto {
		b.Auto, b.Pool = true, max(1, b.AutoBudget/b.Replicas)
	}
	fleet := b.Replicas * Deploying
	b.FitsPool = max(0, (b.Usable-b.Extras)/fleet-b.Beside)
	need := fleet*(max(1, b.Pool)+b.Beside) + b.Extras
	if b.Auto {
		need = b.AutoBudget + fleet*b.Beside + b.Extras
	}
	b.ToRaise = need + b.Max - b.Usable
	if b.Pool > 0 {
		b.Needed, b.Fits = need, need <= b.Usable && !b.tooSmall()
	}
	return b
}

// Within returns b under the limits that s has for cfg's role and database. Behind a pooler it is b: the sessions are the
// pooler's.
func (b Budget) Within(s Snapshot, cfg config.Database) Budget {
	for _, l := range s.Limits {
		user := cmp.Or(cfg.User, s.Role.Name)
		exempt := s.Role.Superuser && s.Role.Name == user // a database's limit does not hold for a superuser
		role := l.Of == "role" && l.Name == user
		database := l.Of == "database" && l.Name == cmp.Or(cfg.Name, s.Database) && !exempt
		if !role && !database || cfg.Pooler != "" {
			continue
		}
		b.FitsPool = min(b.FitsPool, max(0, l.Max/(b.Replicas*Deploying)-b.Beside))
		if b.own() > l.Max && (b.LimitedBy == nil || l.Max < b.LimitedBy.Max) {
			b.Fits, b.LimitedBy = false, &l
		}
	}
	return b
}

// own returns how many connections the processes need during a deployment.
func (b Budget) own() int { return b.Needed - b.Extras }

// Through returns b behind the PgBouncer whose pools s has: the server sees PgBouncer's connections instead of the
// pools', and the pools are its clients. Without a PgBouncer it is b.
func (b Budget) Through(s Snapshot) Budget {
	if s.bouncer == nil || b.Strategy == Observed || b.Auto {
		return b
	}
	b.pooled, b.bouncer, b.LimitedBy = true, s.bouncer, nil
	b.Needed = b.bouncer.servers() + b.Replicas*Deploying + b.Extras
	b.ToRaise = b.Needed + s.Slots.Reserved
	b.FitsPool = b.bouncer.clients / (b.Replicas * Deploying)
	b.Fits = b.Needed <= b.Usable && b.Pool > 0 && b.clients() <= b.bouncer.clients
	return b
}

// BehindPooler reports whether PgBouncer's limits bound the connections to the server.
func (b Budget) BehindPooler() bool { return b.bouncer != nil }

// clients returns how many clients PgBouncer has during a deployment.
func (b Budget) clients() int { return b.Replicas * b.Pool * Deploying }

func (b Budget) sumOfBouncer() string {
	return fmt.Sprintf("PgBouncer's %d connections (default_pool_size %d, max_db_connections %d) + %d monitoring connections × %d while deploying "+
		"+ %d extras = %d, of %d usable slots; its clients are %d × %d × %d = %d, of max_client_conn %d",
		b.bouncer.servers(), b.bouncer.poolSize, b.bouncer.perDatabase, b.Replicas, Deploying, b.Extras, b.Needed, b.Usable,
		b.Replicas, b.Pool, Deploying, b.clients(), b.bouncer.clients)
}

func (b Budget) adviceForBouncer() string {
	var do []string
	if most := (b.Usable - b.Extras - b.Replicas*Deploying) / b.bouncer.pools; b.Needed > b.Usable && most > 0 {
		do = append(do, fmt.Sprintf("set PgBouncer's default_pool_size to %d at most, or bound it with max_db_connections", most))
	}
	if b.Needed > b.Usable {
		do = append(do, b.raise())
	}
	if b.clients() > b.bouncer.clients {
		do = append(do, fmt.Sprintf("raise PgBouncer's max_client_conn to %d at least, or set %s to %d at most", b.clients(), sizeKey(b.Strategy), b.FitsPool))
	}
	if b.Pool == 0 {
		do = append(do, "bound the strategy: set "+sizeKey(b.Strategy))
	}
	return strings.Join(do, "; or ")
}

// boundOf returns the most connections that the strategy opens in one process; 0: no bound.
func boundOf(cfg config.Database) int {
	spec, ok := db.Lookup(cfg.Strategy)
	if !ok {
		return 0
	}
	return spec.Backends(cfg)
}

// WithPools returns t for a server on which that many processes run cfg's strategy. standby is whether they also read
// from one.
func (t Thresholds) WithPools(cfg config.Database, standby bool, replicas int) Thresholds {
	t.Own, t.Replica = max(1, replicas)*boundOf(cfg), standby
	if spec, ok := db.Lookup(cfg.Strategy); ok && spec.Size(cfg) == db.Auto {
		t.Own, t.Budget = boundOf(cfg), cfg.Budget // of all processes
	}
	return t
}

// sizeKey returns the setting that bounds the strategy.
func sizeKey(strategy string) string {
	spec, _ := db.Lookup(strategy)
	return spec.SizeKey
}

// tooSmall reports whether there are fewer connections than processes.
func (b Budget) tooSmall() bool { return b.Auto && b.AutoBudget < b.Replicas }

// Each returns one process's part of the budget if all need more.
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

// Sum returns the arithmetic as a formula.
func (b Budget) Sum() string {
	pool, needed := "no bound", "no bound"
	switch {
	case b.Strategy == Observed:
		return b.sumOfServices()
	case b.bouncer != nil:
		return b.sumOfBouncer()
	case b.Auto:
		return fmt.Sprintf("a budget of %d + %d monitoring connections × %d while deploying + %d extras = %d, of %d usable slots",
			b.AutoBudget, b.Replicas*b.Beside, Deploying, b.Extras, b.Needed, b.Usable)
	case b.Pool > 0:
		pool, needed = fmt.Sprint(b.Pool), fmt.Sprint(b.Needed)
	}
	return fmt.Sprintf("%d × (%s + %d) × %d while deploying + %d extras = %s, of %d usable slots",
		b.Replicas, pool, b.Beside, Deploying, b.Extras, needed, b.Usable)
}

// sumOfServices returns the arithmetic of an observed budget. Small services are combined.
func (b Budget) sumOfServices() string {
	terms, rest := []string{}, 0
	for i, x := range b.Services {
		if i < mostTerms {
			terms = append(terms, fmt.Sprintf("%s %d", x.Name, x.Sessions))
		} else {
			rest += x.Sessions
		}
	}
	if rest > 0 {
		terms = append(terms, fmt.Sprintf("others %d", rest))
	}
	if len(b.Services) > 0 {
		terms = append(terms, fmt.Sprintf("%s again while it is deployed %d", b.Services[0].Name, b.Pool))
	}
	return strings.Join(append(terms, "an operator 1"), " + ") + fmt.Sprintf(" = %d, of %d usable slots", b.Needed, b.Usable)
}

// mostTerms is the most services that a sum names.
const mostTerms = 5

// Advice returns what to change; "" if it fits.
func (b Budget) Advice() string {
	var do []string
	most := b.Usable - b.Extras
	if b.LimitedBy != nil {
		most = min(most, b.LimitedBy.Max)
		do = append(do, fmt.Sprintf("raise the limit of %s %s from %d to %d at least", b.LimitedBy.Of, b.LimitedBy.Name, b.LimitedBy.Max, b.own()))
	}
	switch fitting := most - b.Replicas*b.Beside*Deploying; {
	case b.Fits:
		return ""
	case b.Strategy == Observed:
		return b.adviceForServices()
	case b.bouncer != nil:
		return b.adviceForBouncer()
	case b.tooSmall():
		do = append(do, fmt.Sprintf("set fleet.budget to %d at least: with fewer connections than processes they take turns", b.Replicas))
	case b.Auto && fitting > 0:
		do = append(do, fmt.Sprintf("set fleet.budget to %d at most", fitting))
	case !b.Auto && b.FitsPool > 0:
		do = append(do, fmt.Sprintf("set %s to %d at most", sizeKey(b.Strategy), b.FitsPool))
	}
	if b.Pool > 0 && b.Needed > b.Usable {
		do = append(do, b.raise())
	}
	do = append(do, "run fewer replicas, or put PgBouncer in front")
	return strings.Join(do, "; or ")
}

func (b Budget) raise() string {
	return fmt.Sprintf("raise max_connections from %d to %d at least (this needs a restart of PostgreSQL)", b.Max, b.ToRaise)
}

// adviceForServices names no key of our configuration: these are other programs.
func (b Budget) adviceForServices() string {
	do := []string{b.raise()}
	if b.FitsPool > 0 {
		do = slices.Insert(do, 0, fmt.Sprintf("bound the pools of %s to %d in all, %s", b.Services[0].Name, b.FitsPool, inItsOwn))
	}
	if !b.pooled {
		do = append(do, "put PgBouncer in front")
	}
	return strings.Join(do, "; or ")
}

// inItsOwn says where another program's pool is bounded.
const inItsOwn = "in its own configuration (psycopg_pool max_size, HikariCP maximumPoolSize, node-postgres max, " +
	"SQLAlchemy pool_size + max_overflow)"

// String returns one line for a log.
func (b Budget) String() string {
	if b.Fits {
		return "the connection budget fits: " + b.Sum()
	}
	return "the connection budget does not fit: " + b.Sum() + ": " + b.Advice()
}

// Extras counts other users of slots on this server: client sessions of other applications, and one for a migration or
// an operator. The monitoring session is not counted.
func (s Snapshot) Extras() int {
	others := s.clients(func(x Session) bool { return !x.Self && !x.LogsIn() && !belongs(x.Application, s.Application) })
	return len(others) + 1
}

// belongs reports whether a session with this application_name is the application's: the name itself, or the name
// followed by a slash and more.
func belongs(name, application string) bool {
	rest, is := strings.CutPrefix(name, application)
	return application != "" && is && (rest == "" || rest[0] == '/')
}

// BudgetError is the error with which a server that is strict about its budget refuses to start.
type BudgetError struct{ Budget }

func (e *BudgetError) Error() string { return e.String() }

// CheckBudget checks the budget against the server's current state, for the start of a replica. It fails with
// *BudgetError if the budget does not fit and strict is set, and otherwise only if the server can't be polled.
func (o *Observer) CheckBudget(ctx context.Context, c *config.Config) (Budget, error) {
	now, err := o.Snapshot(ctx)
	if err != nil {
		return Budget{}, err
	}
	_, standby := c.Databases["replica"]
	b := PlanBudget(c.Databases["default"], standby, c.Server.Replicas, now.Extras(), now.Slots).Within(now, c.Databases["default"])
	if !b.Fits && c.Server.StrictBudget {
		return b, &BudgetError{b}
	}
	return b, nil
}
