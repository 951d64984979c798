package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/app"
	"ddtb/app/fault"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

// ready is the answer of /readyz.
func (s *site) ready() (r app.Ready) {
	s.t.Helper()
	a := s.get("/readyz")
	err := json.Unmarshal([]byte(a.body), &r)
	if err != nil || (a.StatusCode == http.StatusOK) != r.Ready || (a.header("Retry-After") == "") != r.Ready || a.header("Cache-Control") != "no-store" {
		s.t.Errorf("/readyz: %s, %v, %v\n%s", a.Status, a.Header, err, a.body)
	}
	return r
}

// mustBeUnavailable asks for a page with and without JSON, and whether the server is alive and ready.
func (s *site) mustBeUnavailable(cause db.Cause) {
	s.t.Helper()
	page := s.get("/polls/", "Accept", "text/html")
	mustContain(s.t, page, 503, "No database connection: "+string(cause))
	passes := cause != db.LoginRejected
	byItself := passes && cause != db.SlotsExhausted
	if strings.Contains(page.body, "Please try again") != byItself || (page.header("Retry-After") != "") != passes ||
		page.header("Content-Type") != htmlType {
		s.t.Errorf("the page, for a cause that passes (%v): %v\n%s", passes, page.Header, page.body)
	}
	var problem struct{ Cause db.Cause }
	a := s.get("/polls/", "Accept", "application/json")
	err := json.Unmarshal([]byte(a.body), &problem)
	opened := cause == db.ServerUnavailable && problem.Cause == db.CircuitOpen // the first request was its trial
	if err != nil || a.StatusCode != 503 || problem.Cause != cause && !opened {
		s.t.Errorf("/polls/ in JSON: %s, want the cause %q\n%s", a.Status, cause, a.body)
	}
	mustContain(s.t, s.get("/healthz"), 200, "ok")
	if r := s.ready(); r.Ready || r.Cause != cause || r.Detail == "" {
		s.t.Errorf("/readyz: %+v, want the cause %q", r, cause)
	}
	if a := s.get("/", "Accept", "text/html"); a.StatusCode != http.StatusOK {
		s.t.Errorf("the start page: %s\n%s", a.Status, a.body)
	}
}

func (s *site) mustRecover() {
	s.t.Helper()
	dbtest.Eventually(s.t, "the page is there again", func() bool { return s.get("/polls/").StatusCode == http.StatusOK })
	dbtest.Eventually(s.t, "it is ready again", func() bool { return s.ready().Ready })
	s.mustBeIdle()
}

func TestADatabaseThatGoesAndComes(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{})
	cfg := server.Config(t)
	t.Run("down at the start", func(t *testing.T) { downAtTheStart(t, server, cfg) })
	t.Run("restarted", func(t *testing.T) { restarted(t, server, cfg) })
}

func downAtTheStart(t *testing.T, server *dbtest.Server, cfg config.Database) {
	server.Stop(t, dbtest.Fast)
	down := map[string]*site{}
	for _, strategy := range strategies {
		s := siteOn(t, cfg, func(c *config.Config) { setDatabase(c, strategy.set) })
		s.mustBeUnavailable(db.ServerUnavailable)
		down[strategy.name] = s
	}
	server.Start(t)
	for name, s := range down {
		t.Run(name, func(t *testing.T) { s.in(t).mustRecover() })
	}
}

// A kept connection may cost one error, and no more.
func restarted(t *testing.T, server *dbtest.Server, cfg config.Database) {
	for _, strategy := range strategies {
		t.Run(strategy.name, func(t *testing.T) {
			s := siteOn(t, cfg, func(c *config.Config) { setDatabase(c, strategy.set) })
			if a := s.get("/polls/"); a.StatusCode != http.StatusOK {
				t.Fatal(a.Status)
			}
			s.mustBeIdle() // one connection at most is kept
			server.Restart(t, dbtest.Immediate)
			first, second := s.get("/polls/"), s.get("/polls/")
			if first.StatusCode != http.StatusOK {
				mustContain(t, first, 503, "server unavailable")
			}
			if second.StatusCode != http.StatusOK {
				t.Errorf("the second request after the restart: %s\n%s", second.Status, second.body)
			}
			s.mustRecover()
		})
	}
}

func TestAFailoverThatIsExpectedDoesNotMakeTheProcessUnready(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{})
	cfg := server.Config(t)
	cfg.Hosts = db.Hosts(fmt.Sprintf("127.0.0.1:%d,127.0.0.1:1", cfg.Port))
	s := siteOn(t, cfg, nil)
	if !s.ready().Ready {
		t.Fatal("it is not ready")
	}
	server.Stop(t, dbtest.Immediate)
	lost := time.Now()
	dbtest.Eventually(t, "it is unready in the end", func() bool { return !s.ready().Ready })
	if took := time.Since(lost); took < 2*time.Second {
		t.Errorf("after %v", took)
	}
	server.Start(t)
	s.mustRecover()
}

func TestAWrongPasswordHasItsOwnSentence(t *testing.T) {
	t.Parallel()
	cfg := dbtest.Config(t)
	cfg.Password = "not the password"
	for _, strategy := range strategies {
		t.Run(strategy.name, func(t *testing.T) {
			s := siteOn(t, cfg, func(c *config.Config) { setDatabase(c, strategy.set) })
			s.mustBeUnavailable(db.LoginRejected)
			mustContain(t, s.get("/polls/"), 503, "does not let this application in")
			if s.log.Count("level=ERROR", `cause="login rejected"`, "sqlstate=28P01") == 0 {
				t.Errorf("the log does not tell:\n%s", s.log)
			}
		})
	}
}

func TestADatabaseWithoutTablesIsNotReadyAndSaysWhatToDo(t *testing.T) {
	t.Parallel()
	cfg := dbtest.Config(t)
	if _, err := dbtest.Control(t, cfg).Exec(t.Context(), "DROP TABLE ddtb_migrations, polls_choice, polls_question CASCADE"); err != nil {
		t.Fatal(err)
	}
	s := siteOn(t, cfg, nil)
	if r := s.ready(); r.Ready || !strings.Contains(r.Detail, "`bin/ddtb migrate`") {
		t.Errorf("/readyz: %+v", r)
	}
	a := s.get("/polls/")
	mustContain(t, a, 503, "The database is incomplete")
	if strings.Contains(a.body, "polls_question") {
		t.Errorf("the page tells what only the log should:\n%s", a.body)
	}
	if s.log.Count("level=ERROR", "path=/polls/", "42P01", "request_id="+a.header("X-Request-Id")) != 1 {
		t.Errorf("the log does not tell:\n%s", s.log)
	}
	s.mustBeIdle()
}

func TestAClientThatHangsUpInTheQueueIsNoFailure(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *config.Config) {
		setDatabase(c, func(d *config.Database) { pool(d); d.Pool.MaxSize = 1 })
	})
	lease, err := s.DB().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.send(ctx, fresh, http.MethodGet, "/polls/", nil)
		done <- err
	}()
	dbtest.Eventually(t, "the request waits", func() bool { return s.DB().Stat().Waiting == 1 })
	leave()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	dbtest.Eventually(t, "nobody waits any more", func() bool { return s.DB().Stat().Waiting == 0 })
	dbtest.Eventually(t, "the log has it, for those who look", func() bool { return s.log.Count("level=DEBUG", "the client went away", "status=499") == 1 })
	if warned := append(s.log.Lines("level=WARN"), s.log.Lines("level=ERROR")...); len(warned) > 0 {
		t.Errorf("the log makes a failure of it:\n%s", warned)
	}
	lease.Release()
	if a := s.get("/polls/"); a.StatusCode != http.StatusOK {
		t.Errorf("the next one: %s", a.Status)
	}
}

func TestARequestThatWaitedTooLongOrFoundTheQueueFullGetsThatReason(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *config.Config) {
		setDatabase(c, func(d *config.Database) {
			pool(d)
			d.Pool.MaxSize, d.Pool.MaxWaiting, d.Pool.Timeout = 1, 1, 300*time.Millisecond
		})
	})
	defer s.mustAcquire().Release()
	mustContain(t, s.get("/polls/"), 503, "All database connections of this application (1) were busy for 0.30 seconds.")
	if s.log.Count("level=WARN", `cause="pool timeout"`, "waited=300ms", "leases=1", "size=1", "waiting=0") != 1 {
		t.Errorf("the log does not tell:\n%s", s.log)
	}
	s.reconfigure(func(d *config.Database) {
		pool(d)
		d.Pool.MaxSize, d.Pool.MaxWaiting, d.Pool.Timeout = 1, 1, time.Minute
	})
	other, err := s.DB().Acquire(t.Context()) // the first is of the strategy before
	if err != nil {
		t.Fatal(err)
	}
	defer other.Release()
	answers := s.atOnce(1)
	dbtest.Eventually(t, "the queue is full", func() bool { return s.DB().Stat().Waiting == 1 })
	mustContain(t, s.get("/polls/"), 503, "are busy, and so many requests wait for one that this one would have waited too long.")
	other.Release()
	if a := <-answers; a.StatusCode != http.StatusOK {
		t.Errorf("the one that waited: %s", a.Status)
	}
}

// panics are handlers that query and then panic, in one way each.
var panics = map[string]func(*site, echo.Context){
	"/panic/after-a-query": func(s *site, c echo.Context) {
		_, _ = s.DB().Exec(c.Request().Context(), "SELECT 1")
		panic("on purpose")
	},
	"/panic/in-a-transaction": func(s *site, c echo.Context) {
		_ = s.DB().InTx(c.Request().Context(), func(q db.Querier) error {
			_, _ = q.Exec(c.Request().Context(), "UPDATE polls_choice SET votes = 0")
			panic(errors.New("on purpose"))
		})
	},
	"/panic/with-an-error-that-has-an-answer": func(*site, echo.Context) {
		panic(fault.New(fault.NotFound, "on purpose"))
	},
	"/panic/of-the-runtime": func(*site, echo.Context) {
		var nothing map[string]int
		nothing["x"]++ //nolint:staticcheck // the panic is the point
	},
}

func TestAPanicIsAPageAndALineInTheLogAndLeavesNoLease(t *testing.T) {
	underEachStrategy(t, []promise{{"each panic", func(t *testing.T, s *site) {
		for path, handler := range panics {
			s.AddPage(path, func(c echo.Context) error { handler(s, c); return nil })
		}
		for path := range panics {
			a := s.get(path)
			mustContain(t, a, 500, "Something went wrong on our side", "has been logged")
			if strings.Contains(a.body, "on purpose") || strings.Contains(a.body, "goroutine") {
				t.Errorf("%s: the page tells what only the log should:\n%s", path, a.body)
			}
			lines := s.log.Lines("level=ERROR", "path="+path, "request_id="+a.header("X-Request-Id"), "failure_test.go")
			if len(lines) != 1 {
				t.Errorf("%s: no line with the stack:\n%s", path, s.log)
			}
			s.mustBeIdle()
		}
		mustContain(t, s.get("/polls/1/results/"), 200, "41 votes") // the transaction was rolled back
	}}})
}

func TestAPanicAfterTheResponseHasBegunCutsIt(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.AddPage("/panic/half-way", func(c echo.Context) error {
		c.Response().Header().Set("Content-Length", "1000")
		_, _ = c.Response().Write([]byte("half"))
		c.Response().Flush()
		panic("on purpose")
	})
	if _, err := s.send(t.Context(), fresh, http.MethodGet, "/panic/half-way", nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the client thinks that it has all: %v", err)
	}
	if s.log.Count("level=ERROR", "the response had begun, and was cut") != 1 {
		t.Errorf("the log does not tell:\n%s", s.log)
	}
}

func TestALeakIsLoggedWithItsLineOfCode(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *config.Config) {
		setDatabase(c, func(d *config.Database) { pool(d); d.Pool.LeakAfter = 100 * time.Millisecond })
	})
	s.get("/test/connection-leak?count=1")
	dbtest.Eventually(t, "the log reports the leak", func() bool {
		return s.log.Count("level=WARN", "a lease is held for long", "leak.go:") == 1
	})
}

func TestCloseTakesBackWhatIsStillOut(t *testing.T) {
	dbtest.NoLeaks(t)
	s := newSite(t, func(c *config.Config) {
		setDatabase(c, func(d *config.Database) { pool(d); d.Pool.MaxSize = 3 })
		c.Server.ShutdownTimeout = 4 * time.Second // a seventh of it is for closing by force
	})
	control := dbtest.Control(t, s.cfg.Databases["default"])
	mustContain(t, s.get("/test/connection-leak?count=2&reclaim=50s"), 200, "leaked a connection")
	lease, err := s.DB().Acquire(t.Context()) // leaked elsewhere
	if err != nil {
		t.Fatal(err)
	}
	s.expectCut = true
	err = s.stop()
	if err == nil || !strings.Contains(err.Error(), "not all connections came back in time") {
		t.Errorf("the end of the server: %v", err)
	}
	dbtest.Eventually(t, "no backend is left", func() bool { return s.backends(control) == 0 })
	dbtest.Eventually(t, "the monitoring connection is closed", func() bool { return dbtest.Backends(t, control, "ddtb/monitor") == 0 })
	lease.Release()
}
