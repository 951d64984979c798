package db_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/db"
	"ddtb/db/dbtest"
)

const (
	counted = `SELECT nextval('ran')::int`
	locked  = `SELECT nextval('ran')::int FROM pg_advisory_xact_lock_shared(7)` // runs until the control connection unlocks it
)

// joinTest has a sequence that counts the statements that ran, and knows the statement sql: it has run once.
func joinTest(t *testing.T, sql string, s db.MultiplexSettings) *muxTest {
	t.Helper()
	m := newMuxTest(t, s)
	m.exec(`CREATE SEQUENCE ran; GRANT ALL ON SEQUENCE ran TO PUBLIC`)
	if got := <-m.ask(t.Context(), sql); got != "1 <nil>" {
		t.Fatal(got)
	}
	return m
}

// patientTest is joinTest without the limit for slow statements: on a busy machine any may take long.
func patientTest(t *testing.T, sql string, s db.MultiplexSettings) *muxTest {
	t.Helper()
	m := joinTest(t, sql, s)
	m.SetPatience(time.Minute)
	return m
}

// ask returns the channel of the answer, which is a number and an error.
func (m *muxTest) ask(ctx context.Context, sql string, args ...any) <-chan string {
	answer := make(chan string, 1)
	go func() {
		n, err := muxNumber(ctx, m.Multiplexer, sql, args...)
		answer <- fmt.Sprint(n, " ", err)
	}()
	return answer
}

// together asks n times, so that all wait together, and lets them go on.
func (m *muxTest) together(ctx context.Context, n int, sql string) (answers []<-chan string) {
	m.Helper()
	release := m.Hold()
	defer release()
	for range n {
		answers = append(answers, m.ask(ctx, sql))
	}
	m.waits(n)
	return answers
}

// waits waits until n callers wait.
func (m *muxTest) waits(n int) {
	m.Helper()
	dbtest.Eventually(m, fmt.Sprint(n, " callers wait"), func() bool { return m.Stat().Waiting == n })
}

// runs waits until n statements wait for the lock.
func (m *muxTest) runs(n int) {
	m.Helper()
	dbtest.Eventually(m, fmt.Sprint(n, " statements run"), func() bool { return m.count(`wait_event = 'advisory'`) == n })
}

// each checks every answer.
func (m *muxTest) each(answers []<-chan string, ok func(string) bool) {
	m.Helper()
	for _, answer := range answers {
		if got := <-answer; !ok(got) {
			m.Errorf("got %s", got)
		}
	}
}

func is(want string) func(string) bool { return func(got string) bool { return got == want } }
func says(want string) func(string) bool {
	return func(got string) bool { return strings.Contains(got, want) }
}

func TestReadsOfTheSameThatWaitTogetherAreSentOnce(t *testing.T) {
	m := patientTest(t, counted, db.MultiplexSettings{})
	m.each(m.together(t.Context(), 100, counted), is("2 <nil>"))
	if s := m.Stat(); s.Joined != 99 || s.Waiting != 0 || m.Offers() != 0 {
		t.Errorf("%+v, %d offers", s, m.Offers())
	}
}

func TestReadsOfOtherArgumentsAreNotJoined(t *testing.T) {
	m := newMuxTest(t, db.MultiplexSettings{})
	otherArgumentsAreNotJoined(t, m)
}

func TestOtherReadsAreNotJoinedThroughAPooler(t *testing.T) {
	cfg := dbtest.Config(t)
	otherArgumentsAreNotJoined(t, newMuxTestOver(t, cfg, throughPgBouncer(t, cfg), db.MultiplexSettings{}))
}

// otherArgumentsAreNotJoined asks two statements with two arguments each, ten times. Through a pooler the statements have
// no names, so that their messages are equal.
func otherArgumentsAreNotJoined(t *testing.T, m *muxTest) {
	t.Helper()
	m.SetPatience(time.Minute)
	texts := []string{`SELECT $1::int`, `SELECT 10 * $1::int`}
	for _, sql := range texts {
		m.each([]<-chan string{m.ask(t.Context(), sql, 0)}, is("0 <nil>"))
	}
	release := m.Hold()
	answers := map[string][]<-chan string{}
	for range 10 {
		for i, sql := range texts {
			for n := range 2 {
				want := fmt.Sprint(n*[]int{1, 10}[i], " <nil>")
				answers[want] = append(answers[want], m.ask(t.Context(), sql, n))
			}
		}
	}
	m.waits(40)
	release()
	for want, list := range answers {
		m.each(list, is(want))
	}
	if s := m.Stat(); s.Joined != 36 {
		t.Errorf("%d answers were shared, want 36 of 40", s.Joined)
	}
}

func TestAReadSeesWhatWasWrittenBeforeItBegan(t *testing.T) {
	m := newMuxTest(t, db.MultiplexSettings{})
	m.exec(`CREATE TABLE written (n int NOT NULL); INSERT INTO written VALUES (0); GRANT ALL ON written TO PUBLIC`)
	var wg sync.WaitGroup
	var reads atomic.Int64
	for range 16 {
		wg.Go(func() {
			c, err := pgx.ConnectConfig(t.Context(), muxConfig(t, m.cfg))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close(context.Background()) }()
			for range 50 {
				var wrote int
				if err := c.QueryRow(t.Context(), `UPDATE written SET n = n + 1 RETURNING n`).Scan(&wrote); err != nil {
					t.Error(err)
					return
				}
				read, err := muxNumber(t.Context(), m.Multiplexer, `SELECT n FROM written, pg_sleep(0.002)`)
				if err == nil {
					reads.Add(1)
				}
				if err == nil && read < wrote {
					t.Errorf("read %d after %d was written", read, wrote)
				}
			}
		})
	}
	wg.Wait()
	if m.Stat().Joined == 0 || reads.Load() < 400 {
		t.Errorf("the test proves little: %d of 800 reads, %d shared", reads.Load(), m.Stat().Joined)
	}
}

func TestAnErrorByChanceIsThatOfOneCaller(t *testing.T) {
	failing := `SELECT 1 + 0 / (nextval('ran')::int - 2)` // fails the second time, when it is shared
	m := patientTest(t, failing, db.MultiplexSettings{})
	failed := 0
	m.each(m.together(t.Context(), 50, failing), func(got string) bool {
		if strings.Contains(got, "22012") {
			failed++
			return true
		}
		return got == "1 <nil>"
	})
	if failed != 1 {
		t.Errorf("%d of 50 callers failed", failed)
	}
}

func TestTheOthersKeepTheAnswerOfACallerWhoLeft(t *testing.T) {
	leaves := func(t *testing.T, m *muxTest, first <-chan string, leave func()) {
		t.Helper()
		leave()
		if got := <-first; got != "0 "+context.Canceled.Error() {
			t.Errorf("who left got %s", got)
		}
	}
	t.Run("before it was sent", func(t *testing.T) {
		m := patientTest(t, counted, db.MultiplexSettings{})
		ctx, leave := context.WithCancel(t.Context())
		release := m.Hold()
		first := m.ask(ctx, counted)
		m.waits(1)
		others := []<-chan string{m.ask(t.Context(), counted), m.ask(t.Context(), counted)}
		m.waits(3)
		leaves(t, m, first, leave)
		m.waits(2)
		release()
		m.each(others, is("2 <nil>"))
	})
	t.Run("while it runs", func(t *testing.T) {
		m := joinTest(t, locked, db.MultiplexSettings{})
		m.exec(`SELECT pg_advisory_lock(7)`)
		ctx, leave := context.WithCancel(t.Context())
		release := m.Hold()
		first := m.ask(ctx, locked)
		m.waits(1)
		others := []<-chan string{m.ask(t.Context(), locked), m.ask(t.Context(), locked)}
		m.waits(3)
		release()
		m.runs(1)
		leaves(t, m, first, leave)
		<-time.After(3 * db.MultiplexStuckAfter) // it is slow, but has callers
		m.exec(`SELECT pg_advisory_unlock(7)`)
		m.each(others, is("2 <nil>"))
	})
}

func TestAReadThatEveryCallerHasLeft(t *testing.T) {
	t.Run("is not sent", func(t *testing.T) {
		m := patientTest(t, counted, db.MultiplexSettings{})
		release := m.Hold()
		var answers []<-chan string
		var leave []context.CancelFunc
		for range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			answers, leave = append(answers, m.ask(ctx, counted)), append(leave, cancel)
			m.waits(len(answers))
		}
		for _, i := range []int{1, 0, 2} {
			leave[i]()
		}
		m.each(answers, says(context.Canceled.Error()))
		m.waits(0)
		release()
		if got := <-m.ask(t.Context(), counted); got != "2 <nil>" || m.Offers() != 0 {
			t.Errorf("the next answer is %s; %d offers", got, m.Offers())
		}
	})
	t.Run("is cancelled", func(t *testing.T) {
		m := joinTest(t, locked, db.MultiplexSettings{})
		m.exec(`SELECT pg_advisory_lock(7)`)
		ctx, leave := context.WithCancel(t.Context())
		answers := m.together(ctx, 5, locked)
		m.runs(1)
		leave()
		m.each(answers, says(context.Canceled.Error()))
		m.runs(0)
	})
}

func TestACallerWhoseTimeEndsWhileItWaitsForAnothersReadIsToldSo(t *testing.T) {
	m := patientTest(t, counted, db.MultiplexSettings{})
	release := m.Hold()
	first := m.ask(t.Context(), counted)
	m.waits(1)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := muxNumber(ctx, m.Multiplexer, counted)
	if ce, ok := errors.AsType[*db.ConnError](err); !ok || ce.Cause != db.PoolTimeout || ce.Waiting != 1 || ce.Waited <= 0 {
		t.Errorf("got %v", err)
	}
	release()
	m.each([]<-chan string{first}, is("2 <nil>"))
}

func TestWhatEndsASharedReadEndsTheWaitOfAll(t *testing.T) {
	// Each runs while five callers share a statement that waits for the lock.
	for name, c := range map[string]struct {
		end  func(*muxTest)
		want string
	}{
		"a lost connection": {func(m *muxTest) {
			m.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '` + muxName + `'`)
		}, "57P01"},
		"a cancelled statement": {func(m *muxTest) {
			m.exec(`SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'advisory'`)
		}, "57014"},
		"the end of the multiplexer": {func(m *muxTest) {
			ctx, cancel := context.WithCancel(m.Context())
			cancel()
			_ = m.Close(ctx)
		}, db.ErrMultiplexClosed.Error()},
		"query_timeout": {func(m *muxTest) {
			m.SetTimeout(2 * db.MultiplexStuckAfter)
		}, db.ErrQueryTimeout.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			m := joinTest(t, locked, db.MultiplexSettings{})
			m.exec(`SELECT pg_advisory_lock(7)`)
			answers := m.together(t.Context(), 5, locked)
			m.runs(1)
			c.end(m)
			m.each(answers, says(c.want))
			m.exec(`SELECT pg_advisory_unlock(7)`)
		})
	}
	t.Run("a result that is too large", func(t *testing.T) {
		const large = `SELECT 1 FROM generate_series(1, CASE nextval('ran') WHEN 1 THEN 1 ELSE 1000 END)`
		m := patientTest(t, large, db.MultiplexSettings{MaxResult: 4000})
		m.each(m.together(t.Context(), 5, large), says(db.ErrUnsuitable.Error()))
	})
	t.Run("a type that has changed", func(t *testing.T) {
		m := newMuxTest(t, db.MultiplexSettings{})
		m.exec(`CREATE TABLE t (n int NOT NULL); INSERT INTO t VALUES (5); GRANT SELECT ON t TO PUBLIC`)
		m.SetPatience(time.Minute)
		m.each([]<-chan string{m.ask(t.Context(), `SELECT n FROM t`)}, is("5 <nil>"))
		release := m.Hold()
		var answers []<-chan string
		for range 5 {
			answers = append(answers, m.ask(t.Context(), `SELECT n FROM t`))
		}
		m.waits(5)
		m.exec(`ALTER TABLE t ALTER n TYPE bigint`)
		release()
		m.each(answers, is("5 <nil>"))
	})
}

func TestEveryCallerReadsAllOfASharedResult(t *testing.T) {
	const sql = `SELECT n, CASE WHEN n % 2 = 0 THEN repeat('x', n) END, n::numeric / 3 FROM generate_series(1, 100) n`
	m := newMuxTest(t, db.MultiplexSettings{})
	m.SetPatience(time.Minute)
	want, _, err := everything(m.Query(t.Context(), sql))
	if err != nil {
		t.Fatal(err)
	}
	release := m.Hold()
	var wg sync.WaitGroup
	var same atomic.Int64
	for range 50 {
		wg.Go(func() {
			if got, tag, err := everything(m.Query(t.Context(), sql)); err == nil && got == want && tag == "SELECT 100" {
				same.Add(1)
			}
		})
	}
	m.waits(50)
	release()
	wg.Wait()
	if same.Load() != 50 || m.Stat().Joined != 49 {
		t.Errorf("%d callers read all of it, %d shared it", same.Load(), m.Stat().Joined)
	}
}

// A read that waits behind a slow statement is no reason for others to wait, too.
func TestAReadDoesNotJoinOneThatWaitsBehindASlowStatement(t *testing.T) {
	for name, early := range map[string]bool{"the other connection is busy": true, "the other connection is idle": false} {
		t.Run(name, func(t *testing.T) {
			m := patientTest(t, counted, db.MultiplexSettings{Connections: 2})
			for i := range 20 { // until the first read is behind the slow statement
				sleeps := fmt.Sprintf(`SELECT %d FROM pg_sleep($1)`, i) // a text of its own, which is not known to be slow
				<-m.ask(t.Context(), sleeps, 0.0)
				slow, short := m.ask(t.Context(), sleeps, 1.0), m.ask(t.Context(), sleeps, 0.1)
				dbtest.Eventually(t, "both run", func() bool { return m.count(`wait_event = 'PgSleep'`) == 2 || len(slow) > 0 })
				first := m.ask(t.Context(), counted)
				dbtest.Eventually(t, "the read is sent", func() bool { return m.Stat().InFlight == 3 || len(slow) > 0 })
				if !early {
					<-short
				}
				if len(slow) > 0 { // the short one was behind it
					continue
				}
				second := m.ask(t.Context(), counted)
				var served bool
				select {
				case <-second:
					served = true
				case <-slow:
				}
				behind := len(first) == 0 && (served || len(second) == 0)
				if served {
					<-slow
				} else {
					<-second
				}
				<-first
				switch {
				case !behind:
				case served:
					return
				default:
					t.Fatal("it waited for the slow statement")
				}
			}
			t.Error("no read waited behind the slow statement")
		})
	}
}
