package db_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
)

// joinedTest has one connection for one statement at a time, and a sequence that counts the statements that ran.
func joinedTest(t *testing.T) *muxTest {
	t.Helper()
	m := newMuxTest(t, db.MultiplexSettings{Connections: 1, MaxInFlight: 1})
	m.exec(`CREATE SEQUENCE ran; GRANT ALL ON SEQUENCE ran TO PUBLIC`)
	return m
}

const countedRead = `SELECT nextval('ran')::int`

// held runs f while a statement of a moment occupies the connection, so that what f asks has to wait.
func (m *muxTest) held(f func()) {
	m.Helper()
	if _, err := muxNumber(m.Context(), m.Multiplexer, countedRead); err != nil { // describes the statement
		m.Fatal(err)
	}
	slow := make(chan error, 1)
	go func() {
		_, err := muxNumber(m.Context(), m.Multiplexer, `SELECT 1 FROM pg_sleep(0.05)`)
		slow <- err
	}()
	for m.running(`SELECT 1 FROM pg_sleep(0.05)`) == 0 {
		time.Sleep(time.Millisecond)
	}
	f()
	if err := <-slow; err != nil {
		m.Error(err)
	}
}

func TestReadsOfTheSameThatWaitTogetherAreSentOnce(t *testing.T) {
	m := joinedTest(t)
	var answers sync.Map
	var wg sync.WaitGroup
	m.held(func() {
		for i := range 100 {
			wg.Go(func() {
				n, err := muxNumber(t.Context(), m.Multiplexer, countedRead)
				if err != nil {
					t.Error(err)
				}
				answers.Store(i, n)
			})
		}
		wg.Wait()
	})
	answers.Range(func(_, n any) bool {
		if n != 2 { // the first described the statement
			t.Errorf("a caller got the answer of statement %d", n)
		}
		return true
	})
}

func TestReadsOfOtherArgumentsAreNotJoined(t *testing.T) {
	m := joinedTest(t)
	m.echo(0)
	var wg sync.WaitGroup
	m.held(func() {
		for i := range 100 {
			wg.Go(func() { m.echo(i) })
		}
	})
	wg.Wait()
}

func TestAReadSeesWhatWasWrittenBeforeItBegan(t *testing.T) {
	m := newMuxTest(t, db.MultiplexSettings{})
	m.exec(`CREATE TABLE written (n int NOT NULL); INSERT INTO written VALUES (0); CREATE SEQUENCE ran; GRANT ALL ON written, ran TO PUBLIC`)
	const writers, rounds = 16, 50
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			c, err := pgx.ConnectConfig(t.Context(), muxConfig(t, m.cfg))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close(context.Background()) }()
			for range rounds {
				var wrote int
				if err := c.QueryRow(t.Context(), `UPDATE written SET n = n + 1 RETURNING n`).Scan(&wrote); err != nil {
					t.Error(err)
					return
				}
				read, err := muxNumber(t.Context(), m.Multiplexer, `SELECT n FROM written, nextval('ran'), pg_sleep(0.002)`)
				if err != nil && !errors.Is(err, db.ErrUnsuitable) || err == nil && read < wrote {
					t.Errorf("read %d after %d was written: %v", read, wrote, err)
				}
			}
		})
	}
	wg.Wait()
	ran, err := muxNumber(t.Context(), m.Multiplexer, `SELECT last_value::int FROM ran`)
	if err != nil || ran >= writers*rounds {
		t.Errorf("no answer was shared: %d statements for %d reads, %v", ran, writers*rounds, err)
	}
}

func TestAnErrorByChanceIsThatOfOneCaller(t *testing.T) {
	m := joinedTest(t)
	failing := `SELECT 1 / (nextval('ran')::int - 3)` // the third statement, the first that is shared
	if _, err := muxNumber(t.Context(), m.Multiplexer, failing); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make(chan error, 50)
	m.held(func() {
		for range 50 {
			wg.Go(func() {
				_, err := muxNumber(t.Context(), m.Multiplexer, failing)
				errs <- err
			})
		}
		wg.Wait()
	})
	failed := 0
	for range 50 {
		if err := <-errs; err != nil {
			failed++
			if muxCode(err) != "22012" {
				t.Error(err)
			}
		}
	}
	if failed != 1 {
		t.Errorf("%d of 50 callers failed", failed)
	}
}

func TestTheOthersKeepTheAnswerOfACallerWhoLeft(t *testing.T) {
	m := joinedTest(t)
	m.held(func() {
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, err := muxNumber(ctx, m.Multiplexer, countedRead)
			left <- err
		}()
		for m.Stat().Waiting == 0 {
			time.Sleep(time.Millisecond)
		}
		answers := make(chan string, 10)
		for range 10 {
			go func() {
				n, err := muxNumber(t.Context(), m.Multiplexer, countedRead)
				answers <- fmt.Sprint(n, err)
			}()
		}
		impatient, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := muxNumber(impatient, m.Multiplexer, countedRead); db.CauseOf(err) != db.PoolTimeout {
			t.Errorf("a caller who waited for another's answer: %v", err)
		}
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		for range 10 {
			if got := <-answers; got != "2 <nil>" {
				t.Errorf("got %s", got)
			}
		}
	})
}
