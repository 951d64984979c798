package app_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/app"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
	"ddtb/db/logtest"
	"ddtb/polls"
)

// TestMain runs twice as many tests at once as go test by itself: most of them wait for timeouts.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))); err != nil {
			panic(err)
		}
	}
	dbtest.Run(m)
}

// strategies are all ways to acquire a connection. Those with a limit have at most 5.
var strategies = []struct {
	name string
	set  func(*config.Database)
}{
	{"per-request", perRequest},
	{"persistent", persistent},
	{"persistent with reap", func(c *config.Database) { persistent(c); c.Persistent.Reap = true }},
	{"persistent with workers", func(c *config.Database) { persistent(c); c.Persistent.Workers = 5 }},
	{"pool, for the query", pool},
	{"pool, for the request", func(c *config.Database) { pool(c); c.Pool.Hold = db.HoldRequest }},
}

func perRequest(c *config.Database) { c.Strategy = db.PerRequest }
func persistent(c *config.Database) { c.Strategy = db.Persistent }
func pool(c *config.Database)       { c.Strategy, c.Pool.MaxSize = db.Pool, 5 }

// promise is a statement that must hold for an application under every strategy.
type promise struct {
	sentence string
	test     func(*testing.T, *site)
}

// underEachStrategy tests the promises in order on one application per strategy, in parallel.
func underEachStrategy(t *testing.T, promises []promise) {
	for _, strategy := range strategies {
		t.Run(strategy.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, func(c *config.Config) { setDatabase(c, strategy.set) })
			for _, p := range promises {
				t.Run(p.sentence, func(t *testing.T) { p.test(t, s.in(t)) })
			}
		})
	}
}

func setDatabase(c *config.Config, set func(*config.Database)) {
	d := c.Databases["default"]
	set(&d)
	c.Databases["default"] = d
}

// site is the application behind a real listener, so that each client connection is a worker.
type site struct {
	*app.App
	t      testing.TB
	cfg    *config.Config
	url    string
	client *http.Client // keeps connections alive
	log    *logtest.Log
	stop   func() error // like Ctrl-C; it may be called twice

	expectCut bool // leases are still held at the end
}

// inBin completes a suggested command, for a program that is not on the PATH.
func inBin(command string) string {
	if strings.HasPrefix(command, "ddtb ") {
		return "bin/" + command
	}
	return strings.ReplaceAll(command, "`ddtb ", "`bin/ddtb ")
}

// newSite starts the application on its own database with the demo polls. The test endpoints are enabled.
func newSite(t testing.TB, set func(*config.Config)) *site {
	t.Helper()
	s := siteOn(t, dbtest.Config(t), set)
	s.loadDemo()
	return s
}

func siteOn(t testing.TB, database config.Database, set func(*config.Config)) *site {
	t.Helper()
	cfg := config.Default()
	cfg.Databases = map[string]config.Database{"default": database}
	cfg.Test.Enabled = true
	if set != nil {
		set(&cfg)
	}
	log, level := &logtest.Log{}, slog.LevelDebug
	if _, measures := t.(*testing.B); measures {
		level = slog.LevelInfo // as by default: a line for each request would cost a tenth of its time
	}
	a, err := app.New(t.Context(), &cfg, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level})), app.Options{Complete: inBin})
	if err != nil {
		t.Fatal(err)
	}
	l, err := app.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- a.Serve(ctx, l) }()
	s := &site{App: a, t: t, cfg: &cfg, url: "http://" + l.Addr().String(), client: newClient(), log: log}
	s.stop = sync.OnceValue(func() error { cancel(); return <-served })
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		if err := s.stop(); err != nil && !s.expectCut {
			t.Errorf("the end of the server: %v", err)
		}
		if strings.Contains(log.String(), database.Password.Reveal()) {
			t.Error("the password of the database is in the log")
		}
	})
	return s
}

// in returns the site for a subtest.
func (s *site) in(t *testing.T) *site {
	part := *s
	part.t = t
	return &part
}

// mustAcquire tries until the pool has connected within its timeout, which is short in some tests.
func (s *site) mustAcquire() (l *db.Lease) {
	s.t.Helper()
	dbtest.Eventually(s.t, "the pool has connected in time", func() bool {
		var err error
		l, err = s.DB().Acquire(s.t.Context())
		return err == nil
	})
	return l
}

// loadDemo bypasses the application, so that its figures don't change.
func (s *site) loadDemo() {
	s.t.Helper()
	cfg := s.cfg.Databases["default"]
	perRequest(&cfg)
	d, err := db.Open(s.t.Context(), cfg)
	if err == nil {
		_, err = polls.NewStore(d).LoadDemo(s.t.Context(), time.Now())
		err = errors.Join(err, d.Close(s.t.Context()))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// reconfigure applies different settings.
func (s *site) reconfigure(set func(*config.Database)) {
	s.t.Helper()
	cfg := *s.cfg
	cfg.Databases = maps.Clone(s.cfg.Databases)
	setDatabase(&cfg, set)
	if _, err := s.Reconfigure(s.t.Context(), &cfg); err != nil {
		s.t.Fatal(err)
	}
}

// application returns the application_name of the strategy's backends.
func (s *site) application() string {
	c := s.DB().Config()
	return c.ApplicationName + "/" + c.Strategy
}

// backends counts the strategy's backends on the server.
func (s *site) backends(control *pgx.Conn) int {
	s.t.Helper()
	return dbtest.Backends(s.t, control, s.application())
}

// fresh opens a connection for each request, like ab.
var fresh = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: stay}

func newClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 50, ExpectContinueTimeout: time.Minute},
		CheckRedirect: stay,
	}
}

func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// answer is a response that was read to its end.
type answer struct {
	*http.Response
	body string
}

func (a answer) header(name string) string { return a.Header.Get(name) }

// send sends a request, with header names and values, and reads the response. It may run in any goroutine.
func (s *site) send(ctx context.Context, c *http.Client, method, path string, body io.Reader, header ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, body)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	text, err := io.ReadAll(resp.Body)
	a := answer{resp, string(text)}
	return a, errors.Join(err, resp.Body.Close(), s.mustHold(method+" "+path, a))
}

// securityHeaders are in every response.
var securityHeaders = map[string]string{
	"Content-Security-Policy":    "frame-ancestors 'none'", // the admin's own is stricter
	"X-Content-Type-Options":     "nosniff",
	"Referrer-Policy":            "same-origin",
	"Cross-Origin-Opener-Policy": "same-origin",
	"X-Request-Id":               "",
}

// mustHold checks what holds for every response.
func (s *site) mustHold(request string, a answer) (err error) {
	for name, want := range securityHeaders {
		if got := a.header(name); got == "" || !strings.Contains(got, want) || strings.Contains(got, "unsafe") {
			err = errors.Join(err, fmt.Errorf("%s: %s: header %s is %q", request, a.Status, name, got))
		}
	}
	if strings.Contains(a.body, s.cfg.Databases["default"].Password.Reveal()) {
		err = errors.Join(err, fmt.Errorf("%s: the password of the database is in the answer", request))
	}
	if strings.Contains(a.body, "<script>alert") {
		err = errors.Join(err, fmt.Errorf("%s: what came with the request or from the database was not escaped", request))
	}
	return err
}

func (s *site) do(method, path string, body io.Reader, header ...string) answer {
	s.t.Helper()
	a, err := s.send(s.t.Context(), s.client, method, path, body, header...)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

func (s *site) get(path string, header ...string) answer {
	s.t.Helper()
	return s.do(http.MethodGet, path, nil, header...)
}

// post sends a form.
func (s *site) post(path string, form url.Values, header ...string) answer {
	s.t.Helper()
	return s.do(http.MethodPost, path, strings.NewReader(form.Encode()), append(header, "Content-Type", urlencoded)...)
}

const urlencoded = "application/x-www-form-urlencoded"

// mustBeIdle waits until no request holds or waits for a lease: a response may arrive before its lease is released.
func (s *site) mustBeIdle() {
	s.t.Helper()
	dbtest.Eventually(s.t, "no lease is out and nobody waits", func() bool {
		st := s.DB().Stat()
		return st.Leases == 0 && st.Waiting == 0
	})
}

// mustWarn waits until the log has n refusals: the first of a second as a line, the others as a number.
func (s *site) mustWarn(title string, n int) {
	s.t.Helper()
	dbtest.Eventually(s.t, fmt.Sprintf("the log reports %d: %s", n, title), func() bool { return s.warned(title) == n })
}

func (s *site) warned(title string) (n int) {
	for _, line := range s.log.Lines("level=WARN", title) {
		count := 1
		if _, after, is := strings.Cut(line, " count="); is {
			count, _ = strconv.Atoi(strings.TrimSpace(after))
		}
		n += count
	}
	return n
}

func mustContain(t testing.TB, a answer, status int, words ...string) {
	t.Helper()
	for _, w := range words {
		if a.StatusCode != status || !strings.Contains(a.body, w) {
			t.Errorf("%s: %s, without %q\n%s", a.Request.URL, a.Status, w, a.body)
		}
	}
}
