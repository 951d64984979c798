package db

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// leases lists the outstanding leases of a Source.
type leases struct {
	mu  sync.Mutex
	out []*Lease // unordered: each lease knows its index
}

// callSite is the stack of the caller that requests a lease, from its innermost frame. It is resolved only when it is
// shown. Unwinding it is the largest part of the cost of a lease, so it is short, and taken close to the caller.
type callSite [4]uintptr

// caller returns so many frames of the call site of the method that calls it.
func caller(frames int) (from callSite) {
	runtime.Callers(3, from[:frames])
	return from
}

// allFrames are the frames of a call site whose lease may be held for long.
const allFrames = len(callSite{})

// Holder describes the holder of a lease: since when, from which line, and which backend serves it.
type Holder struct {
	Since    time.Time
	Where    string // "store.go:42 polls.(*Store).Latest": the first line outside this package, or "unknown"
	Stack    []string
	PID      uint32 // of the backend; 0 while connecting
	Strategy string
}

// add lists the lease. From now on it is visible, even while it is still connecting.
func (k *leases) add(l *Lease) {
	k.mu.Lock()
	l.index = int32(len(k.out))
	k.out = append(k.out, l)
	k.mu.Unlock()
}

func (k *leases) remove(l *Lease) {
	k.mu.Lock()
	last := int32(len(k.out)) - 1
	k.out[l.index] = k.out[last]
	k.out[l.index].index = l.index
	k.out[last] = nil
	k.out = k.out[:last]
	k.mu.Unlock()
}

// list returns a copy of the list of outstanding leases, oldest first.
func (k *leases) list() []*Lease {
	k.mu.Lock()
	defer k.mu.Unlock()
	ls := slices.Clone(k.out)
	slices.SortFunc(ls, func(a, b *Lease) int {
		return cmp.Or(cmp.Compare(a.since, b.since), cmp.Compare(a.PID(), b.PID()))
	})
	return ls
}

// connected returns how many leases have a connection.
func (k *leases) connected() (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range k.out {
		if l.state.Load() == out {
			n++
		}
	}
	return n
}

func (k *leases) holders() []Holder {
	ls := k.list()
	hs := make([]Holder, len(ls))
	for i, l := range ls {
		stack := l.stack()
		hs[i] = Holder{Since: timeOf(l.since), Strategy: l.source.settings.Strategy, PID: l.PID(), Stack: stack, Where: stack[0]}
	}
	return hs
}

// stack returns the lines that requested the lease.
func (l *Lease) stack() []string { return stackOf(l.from[:]) }

// stackOf returns the lines, innermost first, without this package's own and the runtime's. There is always one.
func stackOf(pcs []uintptr) []string {
	var lines []string
	frames := runtime.CallersFrames(pcs)
	for more := true; more; {
		var f runtime.Frame
		if f, more = frames.Next(); f.Function != "" && !ownFrame(f) {
			lines = append(lines, fmt.Sprintf("%s:%d %s", base(f.File), f.Line, base(f.Function)))
		}
	}
	if len(lines) == 0 {
		return []string{"unknown"}
	}
	return lines
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
