package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"ddtb/app/fault"
)

func TestHashesThatAskForTooMuchOrMakeNoSenseAreNotVerified(t *testing.T) {
	key := base64.RawStdEncoding.EncodeToString(make([]byte, keySize))
	for _, encoded := range []string{
		"", "!", "plain", "argon2$", "argon2$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$" + "short",
		"argon2$argon2id$v=19$m=99999999,t=2,p=1$c2FsdA$" + key, "argon2$argon2id$v=19$m=19456,t=0,p=1$c2FsdA$" + key,
		"argon2$argon2id$v=19$m=19456,t=2,p=0$c2FsdA$" + key, "argon2$argon2id$v=19$m=19456,t=2,p=300$c2FsdA$" + key,
		"argon2$argon2i$v=19$m=19456,t=2,p=1$c2FsdA$" + key, "argon2$argon2id$v=16$m=19456,t=2,p=1$c2FsdA$" + key,
		"argon2$argon2id$v=19$m=19456,t=-2,p=1$c2FsdA$" + key, "pbkdf2_sha256$99999999999$salt$" + key,
		"pbkdf2_sha256$0$salt$" + key, "pbkdf2_sha256$x$salt$" + key, "pbkdf2_sha256$1$salt$", "bcrypt$x",
	} {
		if derive, _ := parse(encoded); derive != nil {
			t.Errorf("%q is taken", encoded)
		}
	}
}

func FuzzParseNeverTakesAHashBeyondTheBounds(f *testing.F) {
	f.Add("argon2$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$c2FsdA")
	f.Add("pbkdf2_sha256$1000$salt$c2FsdA==")
	f.Fuzz(func(t *testing.T, encoded string) {
		derive, key := parse(encoded)
		if derive != nil && len(key) < saltSize {
			t.Errorf("%q: a key of %d bytes", encoded, len(key))
		}
	})
}

// busyHasher is one whose turns are all taken.
func busyHasher(t *testing.T) *hasher {
	t.Helper()
	h := newHasher()
	for range h.free {
		if err := h.enter(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// wait adds a waiting login.
func (h *hasher) wait(t *testing.T, suspicion int) *hashTurn {
	t.Helper()
	turn := h.line(suspicion)
	if turn == nil {
		t.Fatal("there was a turn free")
	}
	return turn
}

func TestOfTooManyWaitersTheMostSuspectIsSentAway(t *testing.T) {
	h := busyHasher(t)
	for range maxWaiting {
		h.wait(t, 1)
	}
	equal := h.wait(t, 1)
	if err := <-equal.answer; fault.KindOf(err) != fault.TooManyTries {
		t.Errorf("the last of equals: %v", err)
	}
	first := h.wait(t, 0) // has signed in from there before
	h.leave()
	if err := <-first.answer; err != nil {
		t.Errorf("who is not suspect: %v", err)
	}
	if len(h.waiting) != maxWaiting-1 {
		t.Errorf("%d wait", len(h.waiting))
	}
}

func TestWhoGivesUpWaitingLeavesTheQueue(t *testing.T) {
	h := busyHasher(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.hash(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if len(h.waiting) != 0 {
		t.Error("who gave up still waits")
	}
	h.leave()
	if _, err := h.hash(t.Context(), "x"); err != nil {
		t.Errorf("the next: %v", err)
	}
}

func TestACrowdFromManyAddressesDoesNotKeepOutWhoSignedInFromTheirsBefore(t *testing.T) {
	th, now := newThrottle(), time.Unix(0, 0)
	try := func(name, address string) *attempt {
		t.Helper()
		a, err := th.begin(name, address, now)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	try("ada", "198.51.100.7").succeeded()
	for i := range 50 {
		for range 3 {
			try("ada", fmt.Sprintf("192.0.2.%d", i))
		}
	}
	if a := try("ada", "198.51.100.7"); a.suspicion != 0 {
		t.Errorf("the right one from the known address: %d", a.suspicion)
	}
	right, crowd := try("ada", "203.0.113.9"), try("ada", "192.0.2.1")
	if right.suspicion >= crowd.suspicion {
		t.Errorf("the right one from a new address: %d, one of the crowd: %d", right.suspicion, crowd.suspicion)
	}
}

func TestTheDelayGrowsIsBoundedAndEnds(t *testing.T) {
	th, now := newThrottle(), time.Unix(0, 0)
	wait := func() time.Duration {
		_, err := th.begin("ada", "192.0.2.1", now)
		if slow, ok := errors.AsType[*fault.Error](err); ok {
			return slow.RetryAfter
		}
		return 0
	}
	for range freeTries {
		if wait() != 0 {
			t.Fatal("a delay before the fifth failure")
		}
	}
	var delays []time.Duration
	for range 12 {
		delay := wait()
		delays = append(delays, delay)
		now = now.Add(delay)
		if wait() != 0 {
			t.Fatal("still delayed after the delay")
		}
	}
	if delays[0] != time.Second || delays[3] != 8*time.Second || delays[11] != maxDelay {
		t.Errorf("got %v", delays)
	}
	now = now.Add(2 * forgetAfter)
	for range freeTries {
		if wait() != 0 {
			t.Error("failures are not forgotten")
		}
	}
}

func TestManyAttemptsAtOnceDontSlipThrough(t *testing.T) {
	th, now, through := newThrottle(), time.Unix(0, 0), 0
	for range 100 { // none of them has finished
		if _, err := th.begin("ada", "192.0.2.1", now); err == nil {
			through++
		}
	}
	if through != freeTries {
		t.Errorf("%d attempts", through)
	}
}

func TestSuccessForgetsTheNameAndNotTheAddress(t *testing.T) {
	th, now := newThrottle(), time.Unix(0, 0)
	for i := range freeTriesAddress {
		if _, err := th.begin(fmt.Sprint("user", i), "192.0.2.1", now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := th.begin("another", "192.0.2.1", now); err == nil {
		t.Error("one address may try any number of names")
	}
	now = now.Add(time.Minute)
	mine, err := th.begin("own", "192.0.2.1", now)
	if err != nil {
		t.Fatal(err)
	}
	mine.succeeded()
	if tr := th.tries["192.0.2.1"]; tr.failed != freeTriesAddress {
		t.Errorf("the address has %d failures after a success", tr.failed)
	}
	if _, ok := th.tries["192.0.2.1 own"]; ok {
		t.Error("the name is remembered after its success")
	}
}

func TestAnAttemptThatCouldNotBeMadeDoesNotCount(t *testing.T) {
	th, now := newThrottle(), time.Unix(0, 0)
	for range 3 * freeTries {
		a, err := th.begin("ada", "192.0.2.1", now)
		if err != nil {
			t.Fatal(err)
		}
		a.undone()
	}
}

func TestMemoryIsBounded(t *testing.T) {
	th := newThrottle()
	for i := range 3 * maxTracked {
		_, _ = th.begin(fmt.Sprint(i), fmt.Sprintf("2001:db8:%x::1", i%60000), time.Unix(0, 0))
	}
	if n := len(th.tries); n > maxTracked {
		t.Errorf("%d entries", n)
	}
	c := newSeen()
	for i := range 3 * maxSeen {
		c.put(secretHash{byte(i), byte(i >> 8)}, sighting{user: &User{}}, 0)
	}
	if n := len(c.users); n > maxSeen {
		t.Errorf("%d users", n)
	}
}

func TestOneCustomersIPv6IsOneAddress(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::/64",
		"2001:db8::ffff:1": "2001:db8::/64", "fe80::1%eth0": "fe80::/64", "nonsense": "nonsense",
	} {
		if got := network(in); got != want {
			t.Errorf("%s: got %s", in, got)
		}
	}
}

func TestAnAnswerFromBeforeARevocationIsNotRemembered(t *testing.T) {
	c, key := newSeen(), secretHash{1}
	_, epoch := c.at(key, time.Now())
	c.forget(key, time.Now()) // a logout, while the answer was under way
	c.put(key, sighting{user: &User{}, checked: time.Now(), expires: time.Now().Add(time.Hour)}, epoch)
	if got, _ := c.at(key, time.Now()); got.user != nil {
		t.Error("it is")
	}
}

func TestEmailsAreCheckedLoosely(t *testing.T) {
	for email, want := range map[string]bool{
		"": true, "a@example.org": true, "a.b+c@sub.example.org": true, "ü@exämple.org": true,
		"a": false, "@example.org": false, "a@": false, "a@b": false, "a b@example.org": false, "a@b@example.org": false,
		"a@example.org\n": false, "a\x00@example.org": false, strings.Repeat("a", 250) + "@example.org": false,
	} {
		if ValidEmail(email) != want {
			t.Errorf("%q: got %v", email, !want)
		}
	}
}
