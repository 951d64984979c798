package auth

import (
	"errors"
	"math"
	"net/netip"
	"sync"
	"time"

	"ddtb/app/fault"
)

// The limits of failed logins.
const (
	freeTries        = 5  // consecutive failures for one name from one address, before delays begin
	freeTriesAddress = 50 // from one address, for all names
	maxDelay         = 5 * time.Minute
	forgetAfter      = time.Hour
	maxTracked       = 10_000 // names and addresses; of more, old ones are evicted, see put
)

// throttle counts failed logins in memory. An attempt counts as failed from its start, so that concurrent attempts
// can't bypass the limit.
type throttle struct {
	mu    sync.Mutex
	tries map[string]tries
	known map[string]time.Time // when a name has last signed in from an address
}

type tries struct {
	failed int
	until  time.Time // no attempt before
	last   time.Time
}

// matters returns the end of the delay, or else the last attempt. The entry for which that is longest ago is evicted.
func (t tries) matters() time.Time {
	if t.until.After(t.last) {
		return t.until
	}
	return t.last
}

func newThrottle() *throttle {
	return &throttle{tries: map[string]tries{}, known: map[string]time.Time{}}
}

// attempt is a login in progress.
type attempt struct {
	t             *throttle
	pair, address string
	now           time.Time // when it began
	// suspicion is the number of recent failed logins from this address; 0 if this name has signed in from there
	// before.
	suspicion int
}

// try runs an attempt to sign in, unless too many have failed: then it returns TooManyTries. An attempt that fails
// for another reason than what was typed does not count.
func (t *throttle) try(
	username, address string, now time.Time, attempt func(suspicion int) (Session, error),
) (Session, error) {
	a, err := t.begin(username, address, now)
	if err != nil {
		return Session{}, err
	}
	session, err := attempt(a.suspicion)
	switch {
	case err == nil || fault.KindOf(err) == fault.Invalid: // the new password is weak; the old one was right
		a.succeeded()
	case !errors.Is(err, ErrWrongLogin) && !errors.Is(err, ErrWrongPassword):
		a.undone()
	}
	return session, err
}

// begin starts a login attempt, or returns TooManyTries.
func (t *throttle) begin(username, address string, now time.Time) (*attempt, error) {
	address = network(address)
	a := &attempt{t: t, pair: address + " " + username, address: address, now: now}
	t.mu.Lock()
	defer t.mu.Unlock()
	wait := max(t.wait(a.pair, now), t.wait(a.address, now))
	if wait > 0 {
		seconds, unit := math.Ceil(wait.Seconds()), "seconds"
		if seconds == 1 {
			unit = "second"
		}
		slow := fault.New(fault.TooManyTries, "Too many failed logins. Try again in %.0f %s.", seconds, unit)
		slow.RetryAfter = wait
		return nil, slow
	}
	t.count(a.pair, freeTries, now)
	t.count(a.address, freeTriesAddress, now)
	if t.known[a.pair].IsZero() {
		a.suspicion = t.tries[a.address].failed
	}
	return a, nil
}

func (t *throttle) wait(key string, now time.Time) time.Duration {
	return t.tries[key].until.Sub(now)
}

func (t *throttle) count(key string, free int, now time.Time) {
	tr := t.tries[key]
	if now.Sub(tr.last) > forgetAfter {
		tr = tries{}
	}
	tr.failed++
	tr.last = now
	if over := tr.failed - free; over >= 0 {
		tr.until = now.Add(min(time.Second<<min(over, 20), maxDelay))
	}
	put(t.tries, maxTracked, key, tr, tries.matters)
}

// succeeded resets the failures of this name from this address. Those of the address remain: the owner of one account
// must not get free attempts at others.
func (a *attempt) succeeded() {
	a.t.mu.Lock()
	defer a.t.mu.Unlock()
	delete(a.t.tries, a.pair)
	a.t.takeBack(a.address)
	put(a.t.known, maxTracked, a.pair, a.now, func(t time.Time) time.Time { return t })
}

// undone reverts an attempt that could not be made for want of a connection.
func (a *attempt) undone() {
	a.t.mu.Lock()
	defer a.t.mu.Unlock()
	a.t.takeBack(a.pair)
	a.t.takeBack(a.address)
}

func (t *throttle) takeBack(key string) {
	if tr, ok := t.tries[key]; ok {
		tr.failed, tr.until = max(tr.failed-1, 0), time.Time{}
		t.tries[key] = tr
	}
}

// network returns the unit that counts as one address: for IPv6 a /64, the size of a customer's network.
func network(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	if ip = ip.Unmap(); ip.Is6() {
		prefix, _ := ip.WithZone("").Prefix(64) // 64 is valid for every IPv6 address
		return prefix.String()
	}
	return ip.String()
}
