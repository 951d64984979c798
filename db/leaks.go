package db

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// outstanding lists the outstanding leases of a Source, and watches them under every strategy: it reports leases that are
// held too long as leaks, reclaims them if configured, and ends queries that take longer than query_timeout. It also calls
// Source.sweep.
type outstanding struct {
	source *Source
	log    *slog.Logger // names the strategy in each line

	leaked, reclaimed, nested atomic.Int64
	open                      logOnce // source lines that left a transaction open

	mu  sync.Mutex
	out []*Lease // unordered: each lease knows its index

	cancel  context.CancelFunc
	stopped sync.WaitGroup
}

// tracking is the part of a lease that outstanding uses.
type tracking struct {
	index       int32       // in outstanding.out
	leakCounted atomic.Bool // it has been counted as a leak, or must not be any more
	from        callSite
	query       atomic.Int64 // when the running query began, in ticks; 0: none
}

// callSite is the stack of the caller that requests a lease, from its innermost frame. It is resolved only when it is
// shown. Unwinding it is the largest part of the cost of a lease, so it is short, and taken close to the caller.
type callSite [4]uintptr

// caller returns the call site of the method that calls it.
func caller() (from callSite) {
	runtime.Callers(3, from[:])
	return from
}

// Holder describes the holder of a lease: since when, from which line, and which backend serves it.
type Holder struct {
	Since    time.Time
	Where    string // "store.go:42 polls.(*Store).Latest": the first line outside this package, or "unknown"
	Stack    []string
	PID      uint32 // of the backend; 0 while connecting
	Strategy string
}

// add lists the lease. From now on it is visible, even while it is still connecting.
func (k *outstanding) add(l *Lease) {
	k.mu.Lock()
	l.index = int32(len(k.out))
	k.out = append(k.out, l)
	k.mu.Unlock()
}

func (k *outstanding) remove(l *Lease) {
	k.mu.Lock()
	last := int32(len(k.out)) - 1
	k.out[l.index] = k.out[last]
	k.out[l.index].index = l.index
	k.out[last] = nil
	k.out = k.out[:last]
	k.mu.Unlock()
}

// list returns a copy of the list of outstanding leases, oldest first.
func (k *outstanding) list() []*Lease {
	k.mu.Lock()
	defer k.mu.Unlock()
	ls := slices.Clone(k.out)
	slices.SortFunc(ls, func(a, b *Lease) int {
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.PID(), b.PID()))
	})
	return ls
}

// connected returns how many leases have a connection.
func (k *outstanding) connected() (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range k.out {
		if l.state.Load() == out {
			n++
		}
	}
	return n
}

func (k *outstanding) holders() []Holder {
	ls := k.list()
	hs := make([]Holder, len(ls))
	for i, l := range ls {
		stack := l.stack()
		hs[i] = Holder{Since: l.since, Strategy: k.source.settings.Strategy, PID: l.PID(), Stack: stack, Where: stack[0]}
	}
	return hs
}

// start starts the monitoring, at an interval that costs little and reacts soon enough.
func (k *outstanding) start(s *Source) {
	var ctx context.Context
	ctx, k.cancel = context.WithCancel(context.Background())
	k.source, k.log = s, s.options.Log.With("strategy", s.settings.Strategy)
	interval := time.Second
	for _, d := range []time.Duration{s.settings.Pool.LeakAfter, s.settings.Pool.ReclaimAfter, s.settings.QueryTimeout} {
		if d > 0 { // 0: never
			interval = min(interval, max(d/10, 5*time.Millisecond))
		}
	}
	k.stopped.Go(func() { k.run(ctx, interval) })
}

func (k *outstanding) run(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			k.check(now)
			k.source.sweep()
		}
	}
}

// check reports leaks, and reclaims leases that are due, concurrently: a dead connection delays no other.
func (k *outstanding) check(now time.Time) {
	var ends sync.WaitGroup
	defer ends.Wait()
	pool, queryTimeout := k.source.settings.Pool, k.source.settings.QueryTimeout
	for _, l := range k.list() {
		age, query := now.Sub(l.since), l.query.Load()
		switch {
		case pool.ReclaimAfter > 0 && age >= pool.ReclaimAfter:
			ends.Go(func() { k.reclaim(l) })
		case queryTimeout > 0 && query > 0 && ticks()-query >= int64(queryTimeout):
			ends.Go(func() { k.endQuery(l) })
		case pool.LeakAfter > 0 && age >= pool.LeakAfter && l.leakCounted.CompareAndSwap(false, true):
			k.leaked.Add(1)
			k.log.Warn("a lease is held for long: is it a leak, a stream, or a slow request? Release it before slow work", k.about(l)...)
		}
	}
}

func (k *outstanding) reclaim(l *Lease) {
	if l.Reclaim() {
		k.reclaimed.Add(1)
		k.log.Error("a lease was taken back: its holder kept it for too long", k.about(l)...)
	}
}

func (k *outstanding) endQuery(l *Lease) {
	if l.seize(overdue) {
		k.log.Error("a query took longer than query_timeout, and was ended", k.about(l)...)
	}
}

// leftOpen logs a transaction that was begun by a statement of its own and not ended, once for each source line.
func (k *outstanding) leftOpen(l *Lease) {
	if stack := l.stack(); k.open.first(stack[0]) {
		k.log.Warn("a transaction was left open when its lease was released, and is rolled back: use InTx",
			"line", stack[0], "stack", strings.Join(stack, " < "))
	}
}

// returned logs the return of a lease that was reported.
func (k *outstanding) returned(l *Lease) {
	if l.leakCounted.Load() {
		k.log.Info("the lease that was held for long was released", "held", time.Since(l.since).Round(time.Millisecond), "backend", l.PID())
	}
}

func (k *outstanding) about(l *Lease) []any {
	return []any{"held", time.Since(l.since).Round(time.Millisecond), "backend", l.PID(), "stack", strings.Join(l.stack(), " < ")}
}

func (k *outstanding) stop() {
	k.cancel()
	k.stopped.Wait()
}

// logOnce keeps a busy line of code from filling the log.
type logOnce struct {
	mu     sync.Mutex
	logged map[string]bool
}

const mostLogged = 100

// first reports whether this is the first time, and within the total limit.
func (o *logOnce) first(what string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.logged[what] || len(o.logged) >= mostLogged {
		return false
	}
	if o.logged == nil {
		o.logged = map[string]bool{}
	}
	o.logged[what] = true
	return true
}

// stack returns the lines that requested the lease.
func (l *Lease) stack() []string { return stackOf(l.from[:]) }

// stackOf returns the lines, innermost first, without this package's own and the runtime's. There is always one.
func stackOf(pcs []uintptr) []string {
	var lines []string
	frames := runtime.CallersFrames(pcs)
	for {
		f, more := frames.Next()
		if f.Function != "" && !ownFrame(f) {
			lines = append(lines, fmt.Sprintf("%s:%d %s", base(f.File), f.Line, base(f.Function)))
		}
		if !more && len(lines) == 0 {
			return []string{"unknown"}
		}
		if !more {
			return lines
		}
	}
}

// ownPackage is this package's path with a dot, wherever it was copied to.
var ownPackage = func() string {
	pc, _, _, _ := runtime.Caller(0)
	name := runtime.FuncForPC(pc).Name() // "ddtb/db.init.func1" or the like
	slash := strings.LastIndexByte(name, '/') + 1
	dot := strings.IndexByte(name[slash:], '.')
	return name[:slash+dot+1]
}()

func ownFrame(f runtime.Frame) bool {
	return strings.HasPrefix(f.Function, "runtime.") ||
		strings.HasPrefix(f.Function, ownPackage) && !strings.HasSuffix(f.File, "_test.go")
}

func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
