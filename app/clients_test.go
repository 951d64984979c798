package app_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/config"
	"ddtb/db/dbtest"
)

// raw sends the text over a connection of its own, closes the sending side if half, and reads the answer. Its status
// is 0 when there is none.
func (s *site) raw(text string, half bool) (status int, body string) {
	s.t.Helper()
	c, err := (&net.Dialer{}).DialContext(s.t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, text); err != nil {
		s.t.Fatal(err)
	}
	if half {
		_ = c.(*net.TCPConn).CloseWrite() // the server may have answered and closed already
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

func TestAClientThatClosesItsSendingSideGetsItsAnswer(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for range 50 {
		if status, body := s.raw("GET /polls/ HTTP/1.1\r\nHost: localhost\r\n\r\n", true); status != 200 || !strings.Contains(body, "<h1>") {
			t.Fatalf("a page: %d\n%s", status, body)
		}
	}
	const vote = "POST /polls/1/vote/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 8\r\n\r\nchoice=5"
	for range 50 {
		if status, body := s.raw(vote, true); status != 302 {
			t.Fatalf("a vote: %d\n%s", status, body)
		}
	}
	mustCount(t, dbtest.Control(t, s.cfg.Databases["default"]), 50)
}

func TestWhatIsNotAnsweredInTimeToAHalfClosedClientIsNoSuccess(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.AddPage("/waits", func(c echo.Context) error {
		<-c.Request().Context().Done()
		return c.Request().Context().Err()
	})
	s.AddPage("/forgets", func(c echo.Context) error {
		<-c.Request().Context().Done()
		return nil
	})
	for _, path := range []string{"/waits", "/forgets"} {
		if status, body := s.raw("GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n", true); status != 499 || body == "" {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	if lines := append(s.log.Lines("level=WARN"), s.log.Lines("level=ERROR")...); len(lines) > 0 {
		t.Errorf("it is logged as a failure: %q", lines)
	}
}

func TestAHandlerWithoutAnAnswerIsAFailure(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.AddPage("/forgets", func(echo.Context) error { return nil })
	mustContain(t, s.get("/forgets", "Accept", "text/html"), 500, "Something went wrong")
}

// brokenBodies are requests whose body is the client's fault.
var brokenBodies = map[string]string{
	"a chunk without a length":   "Transfer-Encoding: chunked\r\n\r\nZZ\r\nchoice=5\r\n0\r\n\r\n",
	"a chunk that is too short":  "Transfer-Encoding: chunked\r\n\r\n20\r\nchoice=5",
	"chunks without an end":      "Transfer-Encoding: chunked\r\n\r\n8\r\nchoice=5\r\n",
	"an endless chunk extension": "Transfer-Encoding: chunked\r\n\r\n8;" + strings.Repeat("x", 9000) + "\r\nchoice=5\r\n0\r\n\r\n",
	"less than was promised":     "Content-Length: 100\r\n\r\nchoice=5",
}

func TestABodyThatIsBrokenOffIsTheClientsFault(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for name, broken := range brokenBodies {
		for _, path := range []string{"/polls/1/vote/", "/admin/login/", "/admin/polls/question/add/", "/admin/connections/"} {
			t.Run(name+" to "+path, func(t *testing.T) {
				head := "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + urlencoded + "\r\n"
				if status, body := s.raw(head+broken, true); status < 200 || status >= 500 {
					t.Errorf("%d\n%s", status, body)
				}
			})
		}
	}
	if status, body := s.raw("POST /polls/1/vote/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: "+urlencoded+"\r\n"+brokenBodies["less than was promised"], true); status != 400 ||
		!strings.Contains(body, "did not arrive whole") {
		t.Errorf("%d\n%s", status, body)
	}
	if lines := append(s.log.Lines("level=WARN"), s.log.Lines("level=ERROR")...); len(lines) > 0 {
		t.Errorf("it is logged as a failure: %q", lines)
	}
	mustCount(t, dbtest.Control(t, s.cfg.Databases["default"]), 0)
}

func TestAVoteThatTheColumnCanNotCountIsAConflict(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	control := dbtest.Control(t, s.cfg.Databases["default"])
	execute(t, control, "ALTER TABLE polls_choice ALTER votes TYPE integer", "UPDATE polls_choice SET votes = 2147483647 WHERE id = 5")
	a := s.post("/polls/1/vote/", url.Values{"choice": {"5"}}, "Accept", "text/html")
	mustContain(t, a, 409, "larger than the database can store")
	if lines := s.log.Lines("level=ERROR"); len(lines) > 0 {
		t.Errorf("%q", lines)
	}
}

func TestClientsThatHangUpOnTheMetricsAreNoFailure(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	var clients sync.WaitGroup
	for range 100 {
		clients.Go(func() {
			c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		})
	}
	clients.Wait()
	mustContain(t, s.get("/metrics"), 200, "ddtb_build_info")
	if lines := append(s.log.Lines("level=WARN"), s.log.Lines("level=ERROR")...); len(lines) > 0 {
		t.Errorf("it is logged as a failure: %q", lines)
	}
}

func TestScrapesOfACrowdDoNotKeepOutPrometheus(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	var crowd sync.WaitGroup
	for range 30 {
		crowd.Go(func() {
			for range 10 {
				a, err := s.send(t.Context(), s.client, http.MethodGet, "/metrics", nil)
				if err != nil || a.StatusCode != http.StatusOK {
					t.Error(a, err)
				}
			}
		})
	}
	crowd.Wait()
}

func TestARequestIDOfAStrangerIsTakenOverOnlyWhenItIsShortAndPlain(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	if id := s.get("/healthz", "X-Request-Id", "abc-123").header("X-Request-Id"); id != "abc-123" {
		t.Errorf("%q", id)
	}
	for _, id := range []string{strings.Repeat("x", 60_000), "<script>", "a b", `a"b`} {
		if got := s.get("/healthz", "X-Request-Id", id).header("X-Request-Id"); got == id || got == "" || len(got) > 64 {
			t.Errorf("%.80q", got)
		}
	}
}

func TestATestEndpointIsStartedByThePersonAtTheBrowserAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *config.Config) {
		c.Server.BaseURL, c.Server.AllowedHosts = "https://Polls.example.org", []string{"ddtb.test"}
	})
	at := func(host, fetchSite string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/test/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("Sec-Fetch-Site", fetchSite)
		resp, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		return resp.StatusCode
	}
	for _, c := range []struct {
		host, fetchSite string
		want            int
	}{
		{"127.0.0.1:8000", "", 200},
		{"localhost", "none", 200},
		{"LOCALHOST.:80", "same-origin", 200},
		{"app.localhost:8000", "", 200},
		{"[::1]:8000", "", 200},
		{"192.0.2.7", "", 200},
		{"polls.example.org", "", 200},
		{"ddtb.test:8000", "", 200},
		{"evil.example", "", 403},
		{"localhost.evil.example", "", 403},
		{"polls.example.org.evil.example", "", 403},
		{"127.0.0.1.evil.example", "", 403},
		{"127.0.0.1", "same-site", 403},
		{"127.0.0.1", "cross-site", 403},
		{"127.0.0.1", "nonsense", 403},
	} {
		if got := at(c.host, c.fetchSite); got != c.want {
			t.Errorf("Host %q, Sec-Fetch-Site %q: %d, want %d", c.host, c.fetchSite, got, c.want)
		}
	}
	s.mustWarn("Forbidden", 7)
}

func TestAProxyThatRewritesTheHostIsNamedInTheLogAndBaseURLLetsItsFormsIn(t *testing.T) {
	t.Parallel()
	vote := url.Values{"choice": {"1"}}
	s := newSite(t, nil)
	a := s.post("/polls/1/vote/", vote, "Origin", "http://polls.example.org")
	if a.StatusCode != 403 {
		t.Errorf("%s", a.Status)
	}
	s.post("/admin/login/", vote, "Origin", "http://polls.example.org")
	if lines := s.log.Lines("level=WARN", "http://polls.example.org", strings.TrimPrefix(s.url, "http://"), "server.base_url", "request_id="+a.header("X-Request-Id")); len(lines) != 1 {
		t.Errorf("the log does not tell:\n%s", s.log)
	}
	s.mustWarn("Forbidden", 2)
	for _, base := range []string{"http://polls.example.org", "http://Polls.example.org:80/", "http://polls.example.org/app"} {
		s := newSite(t, func(c *config.Config) { c.Server.BaseURL = base })
		if a := s.post("/polls/1/vote/", vote, "Origin", "http://polls.example.org"); a.StatusCode != 302 {
			t.Errorf("base_url %s: %s", base, a.Status)
		}
		if a := s.post("/admin/login/", vote, "Origin", "http://polls.example.org"); a.StatusCode == 403 && strings.Contains(a.body, "another site") {
			t.Errorf("base_url %s: the login: %s", base, a.Status)
		}
		if a := s.post("/polls/1/vote/", vote, "Origin", "http://evil.example"); a.StatusCode != 403 {
			t.Errorf("base_url %s lets others in: %s", base, a.Status)
		}
	}
}

func TestWithVEachRequestIsLogged(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil) // whose log takes everything
	a := s.get("/polls/")
	dbtest.Eventually(t, "the log has it", func() bool {
		return s.log.Count("level=DEBUG", "msg=request", "path=/polls/", "status=200", "request_id="+a.header("X-Request-Id")) == 1
	})
}

func TestAStopIsSeenByBalancersBeforeItCutsAnything(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var clients sync.WaitGroup
	unready := make(chan struct{})
	told := sync.OnceFunc(func() { close(unready) })
	for range 24 {
		client := newClient()
		clients.Go(func() {
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				a, err := s.send(t.Context(), client, http.MethodGet, "/readyz", nil)
				if err != nil {
					t.Errorf("a request was cut: %v", err)
					return
				}
				if a.StatusCode == http.StatusServiceUnavailable && a.Close { // a balancer sends nothing more
					if !strings.Contains(a.body, "stopping") {
						t.Errorf("%v\n%s", a.Header, a.body)
					}
					told()
					return
				}
			}
		})
	}
	dbtest.Eventually(t, "requests are under way", func() bool { return s.get("/polls/").StatusCode == http.StatusOK })
	stopped := make(chan error, 1)
	began := time.Now()
	go func() { stopped <- s.stop() }()
	<-unready
	clients.Wait()
	if err := <-stopped; err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestAnUnusedServerStopsAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	began := time.Now()
	if err := s.stop(); err != nil || time.Since(began) > 400*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}
