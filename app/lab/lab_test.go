package lab_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ddtb/app/lab"
	"ddtb/app/web"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/activity"
	"ddtb/db/dbtest"
)

func TestMain(m *testing.M) { dbtest.Run(m) }

// site is the test endpoints over HTTP, on a database of their own. By default the strategy is a pool of 3 whose
// timeout is a second: even under load, connecting ends within.
type site struct {
	*testing.T
	lab     *lab.Lab
	db      *db.DB
	control *pgx.Conn
	url     string
}

var limits = config.Test{Enabled: true, MaxThreads: 20, MaxHold: time.Minute}

func newSite(t *testing.T, set func(*config.Database)) *site {
	t.Helper()
	return siteOn(t, dbtest.Config(t), set)
}

func siteOn(t *testing.T, cfg config.Database, set func(*config.Database)) *site {
	t.Helper()
	cfg.ApplicationName = cfg.Name // it is what is counted by, over all databases of the server
	cfg.Pool.MaxSize, cfg.Pool.Timeout = 3, time.Second
	if set != nil {
		set(&cfg)
	}
	d, err := db.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	server, err := activity.NewObserver(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l := lab.New(d, server, limits, config.Sentry{}, slog.New(slog.DiscardHandler))
	e := echo.New()
	e.HTTPErrorHandler = web.HandleErrors(slog.New(slog.DiscardHandler), nil)
	for path, handler := range l.Routes(unguarded) {
		e.GET(path, handler)
	}
	srv := httptest.NewServer(e)
	s := &site{t, l, d, dbtest.Control(t, cfg), srv.URL}
	t.Cleanup(func() {
		srv.Close()
		l.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := d.Close(ctx); err != nil {
			t.Errorf("the database does not close: %v", err)
		}
		server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

// backends counts those of a strategy, on a private instance or not.
func (s *site) backends(private bool, strategy string) int {
	s.Helper()
	name := s.db.Config().ApplicationName
	if private {
		name += "-stress"
	}
	return dbtest.Backends(s.T, s.control, name+"/"+strategy)
}

// unguarded adds nothing to the endpoints' own guard.
func unguarded(next echo.HandlerFunc) echo.HandlerFunc { return next }

func persistent(c *config.Database) { c.Strategy = db.Persistent }
func perRequest(c *config.Database) { c.Strategy = db.PerRequest }

// in is the site for a part of its test.
func (s *site) in(t *testing.T) *site {
	part := *s
	part.T = t
	return &part
}

// send may run in any goroutine.
func (s *site) send(ctx context.Context, path string, header ...string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return 0, "", err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

func (s *site) get(path string, header ...string) (status int, body string) {
	s.Helper()
	status, body, err := s.send(s.Context(), path, header...)
	if err != nil {
		s.Fatal(err)
	}
	return status, body
}

// answer is a get that must succeed with JSON of the type, and with no field that the type lacks.
func answer[T any](s *site, path string) (v T) {
	s.Helper()
	status, body := s.get(path)
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&v); err != nil || status != http.StatusOK {
		s.Fatalf("%s: %d, %v\n%s", path, status, err, body)
	}
	return v
}

// mustSay is a get that must fail so, with the words in its page.
func (s *site) mustSay(want int, path string, words ...string) {
	s.Helper()
	status, body := s.get(path, "Accept", "application/json")
	var p struct{ Detail string }
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		s.Fatalf("%s: %v\n%s", path, err, body)
	}
	for _, w := range words {
		if status != want || !strings.Contains(p.Detail, w) {
			s.Errorf("%s: %d, without %q: %s", path, status, w, p.Detail)
		}
	}
}

func (s *site) mustBeIdle() {
	s.Helper()
	dbtest.Eventually(s.T, "no lease is out and no request waits", func() bool {
		st := s.db.Stat()
		return st.Leases == 0 && st.Waiting == 0
	})
}

// background sends the request in a goroutine, which ends at the latest when leave closes the client.
func (s *site) background(path string) (leave func(), done <-chan int) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.Context()))
	answered := make(chan int, 1)
	go func() {
		status, _, _ := s.send(ctx, path)
		answered <- status
	}()
	s.Cleanup(cancel)
	return cancel, answered
}

func TestTheEndpointsAreOffUnlessTheConfigurationTurnsThemOn(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	off := limits
	off.Enabled = false
	s.lab.Configure(off)
	for path := range s.lab.Routes(unguarded) {
		s.mustSay(404, path, "The test endpoints are off.", "enabled = true under [test] in the configuration file")
	}
	s.lab.Configure(limits)
	if status, _ := s.get("/test/"); status != http.StatusOK {
		t.Errorf("turned on again: %d", status)
	}
	if st := s.db.Stat(); st.Acquired != 0 {
		t.Errorf("%+v", st)
	}
}

func TestAPageOfAnotherSiteStartsNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for path := range s.lab.Routes(unguarded) {
		if status, body := s.get(path, "Sec-Fetch-Site", "cross-site"); status != 403 || !strings.Contains(body, "another site") {
			t.Errorf("%s: %d\n%s", path, status, body)
		}
	}
	for _, from := range []string{"none", "same-origin", ""} {
		if status, _ := s.get("/test/", "Sec-Fetch-Site", from); status != http.StatusOK {
			t.Errorf("from %q: %d", from, status)
		}
	}
	if st := s.db.Stat(); st.Acquired != 0 {
		t.Errorf("%+v", st)
	}
}

func TestTheIndexListsEveryParameterThatIsRead(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	var index struct {
		Strategy  string
		Endpoints []lab.Endpoint
		Limits    struct {
			MaxThreads int    `json:"max_threads"`
			MaxHold    string `json:"max_hold"`
		}
	}
	_, body := s.get("/test/")
	if err := json.Unmarshal([]byte(body), &index); err != nil {
		t.Fatal(err)
	}
	if index.Strategy != "pool" || index.Limits.MaxThreads != 20 || index.Limits.MaxHold != "1m0s" {
		t.Errorf("%s", body)
	}
	for _, e := range index.Endpoints {
		if e.Path == "/error/" { // which has none
			continue
		}
		var names []string
		for _, p := range e.Parameters {
			names = append(names, strings.Split(p.Name, ", ")...)
		}
		if len(names) == 0 || len(e.Examples) == 0 {
			t.Errorf("%s has no parameters or no examples", e.Path)
		}
		_, body := s.get(e.Path+"?nonsense=1", "Accept", "application/json")
		_, known, _ := strings.Cut(body, "There are ")
		known, _, _ = strings.Cut(known, ".")
		for name := range strings.SplitSeq(known, ", ") {
			if !strings.Contains(","+strings.Join(names, ",")+",", ","+name+",") {
				t.Errorf("the index does not list that %s reads %q", e.Path, name)
			}
		}
	}
	_, page := s.get("/test/", "Accept", "text/html")
	for _, e := range index.Endpoints {
		if !strings.Contains(page, e.Path) {
			t.Errorf("the page lacks %s", e.Path)
		}
	}
}

func TestAParameterThatCanNotBeReadIsNamedWithItsBounds(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for query, words := range map[string][]string{
		"threads=0":                    {`threads="0"`, "from 1 to 20"},
		"threads=21":                   {`threads="21"`, "from 1 to 20"},
		"threads=many":                 {`threads="many"`, "from 1 to 20"},
		"threads=1e1":                  {`threads="1e1"`},
		"threads=99999999999999999999": {`threads="99999999999999999999"`},
		"hold=61s":                     {`hold="61s"`, "from 0s to 1m0s"},
		"hold=-1s":                     {`hold="-1s"`, "from 0s to 1m0s"},
		"hold=NaN":                     {`hold="NaN"`},
		"hold=1e300":                   {`hold="1e300"`},
		"hold=soon":                    {`hold="soon"`, "such as 500ms or 10s"},
		"timeout=0":                    {`timeout="0"`, "from 1ms to 1m0s"},
		"strategy=both":                {`strategy="both"`, "multiplex, per-request, persistent, pool"},
		"strategy=pool&max_size=0":     {`max_size="0"`, "from 1 to 20"},
		"max_size=3&min_size=4":        {"min_size=4 is more than max_size=3"},
		"max_waiting=-1":               {`max_waiting="-1"`, "from 0 to 200"},
		"thread=5":                     {`There is no parameter "thread"`, "threads"},
		"Threads=5":                    {`There is no parameter "Threads"`},
		"threads=5&threads=6":          {"threads is there 2 times", "give it once"},
		"threads=5;hold=1s":            {"name=value, with & between them"},
		"threads=5%":                   {"The address can't be read"},
		"strategy=" + strings.Repeat("x", 10_000): {`strategy="` + strings.Repeat("x", 40) + "…"},
	} {
		s.mustSay(400, "/test/pool-stress?"+query, words...)
	}
	for query, words := range map[string][]string{
		"count=0":     {`count="0"`, "from 1 to 20"},
		"count=21":    {`count="21"`, "from 1 to 20"},
		"reclaim=0":   {`reclaim="0"`, "from 1ms to 1m0s"},
		"reclaim=2m":  {`reclaim="2m"`},
		"timeout=2m":  {`timeout="2m"`},
		"threads=5":   {`There is no parameter "threads"`, "count, reclaim, timeout"},
		"count=%3Cb>": {"count=", "from 1 to 20"},
	} {
		s.mustSay(400, "/test/connection-leak?"+query, words...)
	}
	if st := s.db.Stat(); st.Acquired != 0 {
		t.Errorf("something ran: %+v", st)
	}
}
