package db

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Strategy is the rule by which a lease gets its connection. An implementation only keeps connections. Source, which
// calls it, decides how many leases there may be, which requests wait, how long a lease is held, and what a failure
// means. All methods are safe for concurrent use. For one lease they are called one after another.
type Strategy interface {
	// Acquire gives l a connection, with l.Attach. It returns within the strategy's connect timeout, or when ctx ends.
	Acquire(ctx context.Context, l *Lease) error
	// Release takes the connection of l back. The strategy keeps it only if l.Reusable() and if it still needs the
	// connection. Otherwise it closes the connection, which may take a second.
	Release(l *Lease)
	// Forget drops the connection of l. The caller closes it.
	Forget(l *Lease)
	// Idle returns the number of idle connections.
	Idle() int
	// Refresh closes the idle connections. Connections in use are closed at their release. No connection made before
	// Refresh is used again.
	Refresh(ctx context.Context)
	// Retire is Refresh, and from then on no connection is kept for long. It returns when the server has freed the
	// slots, or ctx ends.
	Retire(ctx context.Context)
	// Close stops what New started. No lease is outstanding.
	Close()
}

// Spec describes a strategy to the code that lists strategies: configuration, metrics, dashboard, experiments. A new
// strategy is one file that registers its Spec.
type Spec struct {
	Name        string
	Description string // one line
	// Size is the most leases at once; 0: no bound; Auto: the size that the budget allows. Timeout is how long a
	// request waits for a lease.
	Size    func(Settings) int
	Timeout func(Settings) time.Duration
	// SizeKey and TimeoutKey are the settings of Size and Timeout, relative to the database's section; "": there is none.
	SizeKey, TimeoutKey string
	// Backends is the most backends that the strategy has; 0: no bound, or a budget that is not known in advance.
	Backends func(Settings) int
	// HoldsForRequest reports whether a request keeps its lease from its first query to its end.
	HoldsForRequest func(Settings) bool
	// Show lists the settings that matter to a reader, in order.
	Show func(Settings) []Setting
	// Check returns an error that names the field that is out of bounds. Nil: nothing to check.
	Check func(Settings) error
	New   func(Settings, *Connector) (Strategy, error)
}

// Setting is a key of the configuration, relative to the database's section, with its value: an int, a bool, a string
// or a time.Duration.
type Setting struct {
	Key, Title, Help string
	Value            any
	Choices          []string // of a string
	Auto             bool     // "auto" is allowed as well as a number
}

// Text returns the value as written in the configuration file, without quotes.
func (s Setting) Text() string {
	if s.Value == Forever {
		return "none"
	}
	return fmt.Sprint(s.Value)
}

var specs []Spec

// Register adds a strategy. It is for init functions, and panics if the name is taken.
func Register(s Spec) {
	if _, taken := Lookup(s.Name); taken {
		panic("db: two strategies are named " + s.Name)
	}
	specs = append(specs, s)
	slices.SortFunc(specs, func(a, b Spec) int { return strings.Compare(a.Name, b.Name) })
}

// Strategies lists the registered strategies by name.
func Strategies() []Spec { return slices.Clone(specs) }

// Names lists the names of the registered strategies, sorted.
func Names() []string {
	names := make([]string, len(specs))
	for i, s := range specs {
		names[i] = s.Name
	}
	return names
}

// Lookup finds a strategy by its name.
func Lookup(name string) (Spec, bool) {
	for _, s := range specs {
		if s.Name == name {
			return s, true
		}
	}
	return Spec{}, false
}

// StrategyIn returns the strategy whose connections have that application_name; "" if it is no strategy's.
func StrategyIn(application string) string {
	spec, _ := Lookup(application[strings.LastIndexByte(application, '/')+1:])
	return spec.Name
}

// SpecOf returns the strategy that the settings name, after checking the settings.
func SpecOf(s Settings) (Spec, error) {
	spec, ok := Lookup(s.Strategy)
	if !ok {
		return Spec{}, fmt.Errorf("unknown strategy %q: use one of %s", s.Strategy, strings.Join(Names(), ", "))
	}
	err := errors.Join(
		atLeast("connect_timeout", s.ConnectTimeout, time.Millisecond), atLeast("query_timeout", s.QueryTimeout, 0),
		within("statement_timeout", s.StatementTimeout, 0, 24*time.Hour),
		atLeast("pool.leak_after", s.Pool.LeakAfter, 0), atLeast("pool.reclaim_after", s.Pool.ReclaimAfter, 0),
		atLeast("pool.max_waiting", s.Pool.MaxWaiting, 0),
		oneOf("reset", s.Reset, ResetAuto, ResetAlways),
		oneOf("pooler", s.Pooler, PgBouncer))
	if spec.Check != nil {
		err = errors.Join(spec.Check(s), err)
	}
	if err != nil {
		return Spec{}, fmt.Errorf("strategy %s: %w", s.Strategy, err)
	}
	return spec, nil
}

// atLeast returns an error unless low <= n.
func atLeast[T int | time.Duration | Bytes](key string, n, low T) error {
	if n < low {
		return fmt.Errorf("%s is %v, and must be at least %v", key, n, low)
	}
	return nil
}

// within returns an error unless low <= n <= high.
func within[T int | time.Duration | Bytes](key string, n, low, high T) error {
	if n > high {
		return fmt.Errorf("%s is %v, and must be at most %v", key, n, high)
	}
	return atLeast(key, n, low)
}

// oneOf returns an error unless the value is empty or one of those that are allowed.
func oneOf(key, value string, allowed ...string) error {
	if value != "" && !slices.Contains(allowed, value) {
		return fmt.Errorf("%s is %q: use %s", key, value, strings.Join(allowed, " or "))
	}
	return nil
}
