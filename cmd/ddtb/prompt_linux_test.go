package main

import (
	"strings"
	"testing"
	"time"

	"ddtb/db/dbtest"
)

// asking is a command at a terminal that asks for a password.
type asking struct {
	screen interface{ String() string }
	typed  func(keys string)
	ended  chan int
}

func askedForAPassword(m *machine) *asking {
	m.Helper()
	screen, keys, tty := dbtest.Terminal(m.T, 24, terminalWidth)
	a := &asking{screen: screen, ended: make(chan int, 1)}
	a.typed = func(text string) {
		m.Helper()
		_, err := keys.WriteString(text)
		must(m.T, err)
	}
	c := &cli{in: tty, out: tty, err: tty, environ: m.environ()}
	go func() {
		a.ended <- c.run(m.Context(), []string{"createsuperuser", "--username", "ada", "--email", "ada@example.org"})
	}()
	a.shows(m, "Password: ")
	return a
}

func (a *asking) shows(m *machine, text string) {
	m.Helper()
	dbtest.Eventually(m.T, "the terminal shows "+text, func() bool { return strings.Contains(a.screen.String(), text) })
}

func (a *asking) ends(m *machine, want int) {
	m.Helper()
	select {
	case code := <-a.ended:
		if code != want {
			m.Errorf("exit code %d, want %d:\n%s", code, want, a.screen)
		}
	case <-time.After(30 * time.Second):
		m.Fatalf("it goes on:\n%s", a.screen)
	}
}

func TestAPasswordIsTypedUnseen(t *testing.T) {
	t.Parallel()
	m, _ := withDatabase(t)
	a := askedForAPassword(m)
	a.typed("short\rshort\r") // the second answer ahead of its question
	a.shows(m, "[y/N]")
	a.typed("n\n")
	a.shows(m, "[y/N]: n\r\nPassword: ")
	a.typed(goodPassword + "x\x7f\r" + goodPassword + "\r") // with a backspace
	a.ends(m, exitFine)
	a.shows(m, "Superuser ada was made.")
	if strings.Contains(a.screen.String(), goodPassword) {
		t.Errorf("the password is shown:\n%s", a.screen)
	}
	a.typed("seen")
	a.shows(m, "seen")
}

func TestCtrlDAndCtrlCAtAPasswordEndTheCommand(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{"Ctrl-D": "\x04", "Ctrl-C": "\x03", "Ctrl-C after some letters": "abc\x03"} {
		t.Run(name, func(t *testing.T) {
			m, _ := withDatabase(t)
			a := askedForAPassword(m)
			a.typed(key)
			a.ends(m, exitFailed)
			a.shows(m, "no password was typed: nothing was changed")
		})
	}
}

func TestWhoDoesNotConfirmGetsNoAdviceAboutTheServer(t *testing.T) {
	for name, key := range map[string]string{"no": "n\n", "Ctrl-D": "\x04"} {
		t.Run(name, func(t *testing.T) {
			o := newOperator(t)
			o.session("shop")
			screen, keys, tty := dbtest.Terminal(t, 24, terminalWidth)
			ended := make(chan int, 1)
			go func() {
				c := &cli{in: tty, out: tty, err: tty, environ: o.environ()}
				ended <- c.runWith(t.Context(), []string{"close-idle", "--older-than=0", "--application=shop"})
			}()
			dbtest.Eventually(t, "it asks", func() bool { return strings.Contains(screen.String(), "[y/N]") })
			_, err := keys.WriteString(key)
			o.must(err)
			if code := <-ended; code != exitFailed || strings.Contains(screen.String(), "What to do") {
				t.Errorf("exit code %d\n%s", code, screen)
			}
			o.has("shop", 1)
		})
	}
}
