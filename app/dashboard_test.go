package app_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/PuerkitoBio/goquery"
	"github.com/jackc/pgx/v5"

	"ddtb/app"
	"ddtb/app/auth"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

const (
	connections  = "/admin/connections/"
	eventStream  = "/admin/connections/stream"
	testPassword = "correct horse battery"
)

// boardOn starts the application on a database with a superuser and demo polls, and takes a snapshot every tenth of a
// second.
func boardOn(t testing.TB, cfg config.Database, set func(*config.Config)) *site {
	t.Helper()
	s := siteOn(t, cfg, func(c *config.Config) {
		c.Monitor.Interval = 100 * time.Millisecond
		c.Test.Enabled = true
		if set != nil {
			set(c)
		}
	})
	s.loadDemo()
	if _, err := s.accounts().CreateSuperuser(t.Context(), "ada", "", testPassword, false); err != nil {
		t.Fatal(err)
	}
	return s
}

func newBoard(t testing.TB, set func(*config.Config)) *site { return boardOn(t, dbtest.Config(t), set) }

func (s *site) accounts() *auth.Service {
	return auth.New(s.DB(), config.Admin{SessionAge: time.Hour}, nil)
}

// login returns the cookie of a session.
func (s *site) login(name string) (cookie string) {
	s.t.Helper()
	a := s.post("/admin/login/", url.Values{"username": {name}, "password": {testPassword}})
	for _, c := range a.Cookies() {
		if c.Name == "ddtb_session" {
			return c.Name + "=" + c.Value
		}
	}
	s.t.Fatalf("no session: %s\n%s", a.Status, a.body)
	return ""
}

// addStaff creates a user with access to the admin and no permissions.
func (s *site) addStaff(control *pgx.Conn, name string) {
	s.t.Helper()
	if _, err := s.accounts().CreateSuperuser(s.t.Context(), name, "", testPassword, false); err != nil {
		s.t.Fatal(err)
	}
	s.sql(control, `UPDATE auth_user SET is_superuser = false WHERE username = $1`, name)
}

func (s *site) sql(control *pgx.Conn, sql string, args ...any) {
	s.t.Helper()
	if _, err := control.Exec(context.Background(), sql, args...); err != nil {
		s.t.Fatal(err)
	}
}

// event is an event of the stream.
type event struct {
	id, kind, data string
	Columns        map[string][]*float64
	Level          string
	Texts          map[string]string
	Tables         map[string][][]string
}

// last returns the newest value of a line; nil: not known.
func (e event) last(line string) *float64 {
	c := e.Columns[line]
	return c[len(c)-1]
}

// viewer reads the stream.
type viewer struct {
	t    testing.TB
	resp *http.Response
	in   *bufio.Reader
}

func (s *site) watch(cookie string) *viewer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.url+eventStream, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Cookie", cookie)
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := fresh.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = resp.Body.Close() })
	return &viewer{s.t, resp, bufio.NewReader(resp.Body)}
}

// next returns the next event, or the error at the end of the stream.
func (v *viewer) next() (e event, err error) {
	for {
		line, err := v.in.ReadString('\n')
		if err != nil {
			return e, err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			e.id = value
		case "event":
			e.kind = value
		case "data":
			e.data = value
		case "":
			if e.kind != "" {
				return e, json.Unmarshal([]byte(e.data), &e)
			}
		}
	}
}

func (v *viewer) mustNext() event {
	v.t.Helper()
	e, err := v.next()
	if err != nil {
		v.t.Fatal(err)
	}
	return e
}

// until reads events until ok returns true. A silent stream ends with the test.
func (v *viewer) until(what string, ok func(event) bool) event {
	v.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		if e := v.mustNext(); ok(e) {
			return e
		} else if time.Now().After(end) {
			v.t.Fatalf("still not so after 30 s: %s\n%s", what, e.data)
		}
	}
}

// ends reads until the end of the stream, which must come.
func (v *viewer) ends() (last event) {
	cut := time.AfterFunc(30*time.Second, func() {
		v.t.Error("the stream does not end")
		_ = v.resp.Body.Close()
	})
	defer cut.Stop()
	for {
		e, err := v.next()
		if err != nil {
			return last
		}
		last = e
	}
}

func TestTheDashboardSendsWhatTheSamplerSees(t *testing.T) {
	dbtest.NoLeaks(t)
	s := newBoard(t, nil)
	cookie := s.login("ada")
	s.until(cookie, "the server was looked at", func(a answer) bool { return strings.Contains(a.body, "monitor") })
	v := s.watch(cookie)
	if ct, enc := v.resp.Header.Get("Content-Type"), v.resp.Header.Get("Content-Encoding"); ct != "text/event-stream" || enc != "" {
		t.Errorf("content type %q, encoding %q", ct, enc)
	}
	first := v.mustNext()
	if first.kind != "history" || len(first.Columns) != 15 || len(first.Columns["time"]) == 0 {
		t.Fatalf("the first event is %s with %d columns", first.kind, len(first.Columns))
	}
	second := v.mustNext()
	if second.kind != "now" || second.id <= first.id && len(second.id) <= len(first.id) || len(second.Columns) != 15 || *second.last("usable") < 10 {
		t.Errorf("the second event: %+v", second)
	}

	lease, err := s.DB().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	e := v.until("the lease is seen", func(e event) bool { return len(e.Tables["holders"][0]) == 4 })
	if holder := e.Tables["holders"][0]; !strings.Contains(holder[1], "dashboard_test.go:") || holder[2] != fmt.Sprint(lease.PID()) || *e.last("leases") != 1 {
		t.Errorf("the holder is %q, the figures %v", holder, e.Columns)
	}
	s.get("/error/", "Accept", "text/html")
	e = v.until("the failure is seen", func(e event) bool { return len(e.Tables["causes"][0]) > 1 })
	if cause := e.Tables["causes"][0]; cause[0] != "error in the application" || cause[1] != "1" || cause[3] != "/error/" {
		t.Errorf("the failure is %q", cause)
	}
	again := s.watch(cookie)
	if e := again.mustNext(); e.kind != "history" || len(e.Columns["time"]) < len(first.Columns["time"]) {
		t.Error("who comes back does not get the history again")
	}
}

// waitsTold matches the dashboard's text about the waits for a lease.
var waitsTold = regexp.MustCompile(`^p50 ≤ \S+ m?s, p99 ≤ \S+ m?s, the longest ≤ (\S+ m?s); (\d+) asked in the last (?:minute|\d+ s)$`)

// waits returns the longest wait in an event, and the number of waits.
func (e event) waits(t *testing.T) (longest time.Duration, asked int) {
	t.Helper()
	if e.Texts["waits"] == "–" {
		return 0, 0
	}
	m := waitsTold.FindStringSubmatch(strings.ReplaceAll(e.Texts["waits_more"], "\u00a0", " "))
	if m == nil {
		t.Fatalf("%q", e.Texts["waits_more"])
	}
	longest, err1 := time.ParseDuration(strings.ReplaceAll(m[1], " ", ""))
	asked, err2 := strconv.Atoi(m[2])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return longest, asked
}

func TestTheDashboardShowsPercentilesOfTheWaitsUnderTheCurrentSettings(t *testing.T) {
	t.Parallel()
	const timeout = 300 * time.Millisecond
	s := newBoard(t, func(c *config.Config) {
		setDatabase(c, func(d *config.Database) { pool(d); d.Pool.MaxSize, d.Pool.Timeout = 1, timeout })
	})
	cookie := s.login("ada")
	v := s.watch(cookie)
	v.mustNext()
	lease := s.mustAcquire()
	for range 3 {
		if _, err := s.DB().Acquire(t.Context()); db.CauseOf(err) != db.PoolTimeout {
			t.Fatal(err)
		}
	}
	lease.Release()
	e := v.until("the waits are told", func(e event) bool { longest, _ := e.waits(t); return longest > timeout })
	_, before := e.waits(t)
	if before < 4 {
		t.Errorf("%d were asked for", before)
	}
	row := e.Tables["chart-leases"][0]
	if ms, err := strconv.ParseFloat(row[len(row)-1], 64); err != nil || ms <= 300 {
		t.Errorf("the table says %q: %v", row, err)
	}
	if page := s.get(connections, "Cookie", cookie); !strings.Contains(page.body, "asked in the last") {
		t.Errorf("the page does not tell:\n%s", page.body)
	}
	for _, to := range []string{"persistent", "pool"} {
		s.post(connections, url.Values{"strategy": {to}}, "Cookie", cookie)
		e := v.until(to+" is in force", func(e event) bool { return e.Texts["strategy"] == to })
		if longest, asked := e.waits(t); asked >= before {
			t.Errorf("after the switch to %s: %d waits up to %v, of before", to, asked, longest)
		}
	}
}

// until loads the page until ok returns true.
func (s *site) until(cookie, what string, ok func(answer) bool) answer {
	s.t.Helper()
	var a answer
	dbtest.Eventually(s.t, what, func() bool { a = s.get(connections, "Cookie", cookie); return ok(a) })
	return a
}

func TestTheDashboardIsForStaffAndItsControlForSuperusers(t *testing.T) {
	t.Parallel()
	s := newBoard(t, nil)
	control := dbtest.Control(t, s.cfg.Databases["default"])
	s.addStaff(control, "grace")
	switchIt := url.Values{"strategy": {"persistent"}}
	for _, cookie := range []string{"", "ddtb_session=nonsense"} {
		if a := s.get(connections, "Cookie", cookie); a.StatusCode != 302 || a.header("Location") != "/admin/login/?next=%2Fadmin%2Fconnections%2F" {
			t.Errorf("not signed in: %s to %s", a.Status, a.header("Location"))
		}
		if a := s.get(eventStream, "Cookie", cookie); a.StatusCode != 401 {
			t.Errorf("the stream, not signed in: %s", a.Status)
		}
		if a := s.post(connections, switchIt, "Cookie", cookie); a.StatusCode != 302 || !strings.HasPrefix(a.header("Location"), "/admin/login/") {
			t.Errorf("the control, not signed in: %s to %s", a.Status, a.header("Location"))
		}
	}
	grace, ada := s.login("grace"), s.login("ada")
	if a := s.get(connections, "Cookie", grace); a.StatusCode != 200 || strings.Contains(a.body, "control-form") {
		t.Errorf("staff: %s, or with the control", a.Status)
	}
	if e := s.watch(grace).mustNext(); e.kind != "history" {
		t.Errorf("staff can't watch: %s", e.kind)
	}
	if a := s.post(connections, switchIt, "Cookie", grace); a.StatusCode != 403 {
		t.Errorf("the control, as staff: %s", a.Status)
	}
	if a := s.post(connections, switchIt, "Cookie", ada, "Origin", "https://evil.example"); a.StatusCode != 403 {
		t.Errorf("the control, from another site: %s", a.Status)
	}
	s.get(connections, "Cookie", ada)                                                  // remembered as a superuser
	s.sql(control, `UPDATE auth_user SET is_superuser = false WHERE username = 'ada'`) // by another process
	if a := s.post(connections, switchIt, "Cookie", ada); a.StatusCode != 403 {
		t.Errorf("the control, as who was a superuser: %s", a.Status)
	}
	if got := s.DB().Config().Strategy; got != "pool" {
		t.Errorf("the strategy is %s", got)
	}
	if a := s.get("/admin/connections"); a.StatusCode != 301 || a.header("Location") != connections {
		t.Errorf("without the slash: %s to %s", a.Status, a.header("Location"))
	}
	if a := s.do(http.MethodHead, eventStream, nil, "Cookie", grace); a.StatusCode != 200 {
		t.Errorf("HEAD of the stream: %s", a.Status)
	}
}

func TestAStreamEndsWithTheRightToWatch(t *testing.T) {
	dbtest.NoLeaks(t)
	s := newBoard(t, nil)
	cookie := s.login("ada")
	v := s.watch(cookie)
	v.mustNext()
	s.post("/admin/logout/", nil, "Cookie", cookie)
	if last := v.ends(); last.kind != "bye" {
		t.Errorf("the last event is %q", last.kind)
	}
}

func TestStreamsEndWithTheServer(t *testing.T) {
	dbtest.NoLeaks(t)
	s := newBoard(t, func(c *config.Config) { c.Server.ShutdownTimeout = time.Minute })
	cookie := s.login("ada")
	var viewers sync.WaitGroup
	for range 5 {
		v := s.watch(cookie)
		v.mustNext()
		viewers.Go(func() { v.ends() })
	}
	s.client.CloseIdleConnections()
	began := time.Now()
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	viewers.Wait()
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the end took %v: the streams held it up", took)
	}
}

func TestNoMoreThanAHundredWatchAndOfOneUserNoMoreThanTwenty(t *testing.T) {
	t.Parallel()
	s := newBoard(t, nil)
	control := dbtest.Control(t, s.cfg.Databases["default"])
	var viewers []*viewer
	var cookie string
	for user := range 5 {
		name := fmt.Sprint("watcher", user)
		s.addStaff(control, name)
		cookie = s.login(name)
		for range 20 {
			v := s.watch(cookie)
			if v.resp.StatusCode != 200 {
				t.Fatal(v.resp.Status)
			}
			viewers = append(viewers, v)
		}
		if user == 0 {
			if a := s.get(eventStream, "Cookie", cookie); a.StatusCode != 503 || !strings.Contains(a.body, "in 20 windows already") {
				t.Errorf("the 21st of one user: %s\n%s", a.Status, a.body)
			}
		}
	}
	last := s.login("ada")
	if a := s.get(eventStream, "Cookie", last); a.StatusCode != 503 || a.header("Retry-After") == "" || !strings.Contains(a.body, "maximum of 100 viewers") {
		t.Errorf("the 101st: %s\n%s", a.Status, a.body)
	}
	if st := s.DB().Stat(); st.Leases > 0 || st.Open() > 2 {
		t.Errorf("a hundred viewers take connections: %+v", st)
	}
	_ = viewers[0].resp.Body.Close()
	dbtest.Eventually(t, "when one leaves, there is room for another", func() bool {
		v := s.watch(last)
		defer func() { _ = v.resp.Body.Close() }()
		return v.resp.StatusCode == 200
	})
	for _, v := range viewers {
		_ = v.resp.Body.Close()
	}
}

// tight is a listener whose connections buffer little unread data.
type tight struct{ net.Listener }

func (l tight) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		_ = c.(*net.TCPConn).SetWriteBuffer(4 << 10)
	}
	return c, err
}

func TestAViewerThatDoesNotReadIsDroppedAndDelaysNoOther(t *testing.T) {
	t.Parallel()
	s := newBoard(t, nil)
	cookie := s.login("ada")
	l, err := app.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(tight{l}) }()
	defer func() { _, _ = server.Close(), <-served }()

	var d net.Dialer
	slow, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Close() }()
	_ = slow.(*net.TCPConn).SetReadBuffer(4 << 10)
	if _, err := fmt.Fprintf(slow, "GET %s HTTP/1.1\r\nHost: test\r\nCookie: %s\r\n\r\n", eventStream, cookie); err != nil {
		t.Fatal(err)
	}
	fast := s.watch(cookie)
	dbtest.Eventually(t, "the slow viewer is dropped, and the other gets each event", func() bool {
		if e := fast.mustNext(); e.kind == "bye" {
			t.Fatal("the other was dropped")
		}
		return s.log.Count("took too long to read, and was dropped", "user=ada") == 1
	})
	if _, err := io.Copy(io.Discard, slow); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
}

func TestTheStrategyIsSwitchedUnderLoadWithoutAFailedRequest(t *testing.T) {
	t.Parallel()
	s := newBoard(t, nil)
	control := dbtest.Control(t, s.cfg.Databases["default"])
	cookie := s.login("ada")
	ctx, enough := context.WithCancel(t.Context())
	var load sync.WaitGroup
	defer load.Wait()
	defer enough()
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				a, err := s.send(context.WithoutCancel(ctx), s.client, http.MethodGet, "/polls/", nil)
				if err != nil || a.StatusCode != 200 {
					t.Errorf("%v %s\n%s", err, a.Status, a.body)
					return
				}
			}
		})
	}
	for _, to := range []url.Values{
		{"strategy": {"per-request"}, "per_request.max_size": {"5"}, "per_request.timeout": {"30s"}},
		{"strategy": {"persistent"}, "persistent.workers": {"3"}, "persistent.conn_max_age": {"none"}, "persistent.reap": {"true"}},
		{"strategy": {"pool"}, "pool.max_size": {"4"}, "pool.timeout": {"30"}, "pool.max_waiting": {"0"}, "pool.hold": {"request"}},
	} {
		a := s.post(connections, to, "Cookie", cookie)
		if a.StatusCode != 303 || a.header("Location") != connections {
			t.Fatalf("%s\n%s", a.Status, a.body)
		}
		cfg := s.DB().Config()
		for key := range to {
			want := strings.Replace(to.Get(key), "30", "30s", 1)
			if got := config.Text(cfg, key); got != strings.Replace(want, "ss", "s", 1) {
				t.Errorf("%s is %q, want %q", key, got, want)
			}
		}
		served := s.DB().Stat().Acquired
		dbtest.Eventually(t, "requests are served by "+to.Get("strategy"), func() bool { return s.DB().Stat().Acquired > served+20 })
	}
	if page := s.get(connections, "Cookie", cookie); !strings.Contains(page.body, "ada switched strategy from persistent to pool, pool.max_size from 10 to 4") ||
		!strings.Contains(page.body, "until the next restart") {
		t.Errorf("the page does not tell of the switch:\n%s", page.body)
	}
	entries, err := control.Query(t.Context(), `SELECT change_message FROM django_admin_log l JOIN auth_user u ON u.id = l.user_id
		WHERE username = 'ada' AND action_flag = 2 ORDER BY l.id`)
	if err != nil {
		t.Fatal(err)
	}
	told, err := pgx.CollectRows(entries, pgx.RowTo[string])
	if err != nil || len(told) != 3 || !strings.HasPrefix(told[0], "Switched strategy from pool to per-request, per_request.max_size from 0 to 5, per_request.timeout from 10s to 30s, until") {
		t.Errorf("the history: %v %q", err, told)
	}
	if a := s.get("/admin/", "Cookie", cookie); !strings.Contains(a.body, "The strategy of database connections") || !strings.Contains(a.body, connections) {
		t.Error("the admin's index shows neither the switch nor a link here")
	}
	if a := s.get("/admin/admin/logentry/", "Cookie", cookie); !strings.Contains(a.body, "Switched strategy from pool to per-request") {
		t.Errorf("the log does not show the switch: %s", a.Status)
	}

	same := s.post(connections, url.Values{"strategy": {"pool"}, "persistent.reap": {"false", "true"}}, "Cookie", cookie)
	mustContain(t, same, 200, "Nothing was changed")
	s.reconfigure(pool) // the file is saved again
	if got := s.DB().Config().Pool.MaxSize; got != 5 {
		t.Errorf("the file does not win: max_size is %d", got)
	}
	if page := s.get(connections, "Cookie", cookie); strings.Contains(page.body, "ada switched") {
		t.Error("the page reports a switch that is not in force any more")
	}
}

func TestTheProcessesOwnFiguresAreNewHoweverSeldomTheServerIsLookedAt(t *testing.T) {
	t.Parallel()
	s := newBoard(t, func(c *config.Config) { c.Monitor.Interval = time.Hour })
	cookie := s.login("ada")
	s.until(cookie, "the server was looked at", func(a answer) bool { return strings.Contains(a.body, "monitor") })
	v := s.watch(cookie)
	v.mustNext()
	if a := s.post(connections, url.Values{"strategy": {"per-request"}, "per_request.max_size": {"7"}}, "Cookie", cookie); a.StatusCode != 303 {
		t.Fatalf("%s\n%s", a.Status, a.body)
	}
	mustContain(t, s.get(connections, "Cookie", cookie), 200, "ada switched", `<span data-text="strategy">per-request</span>`, "0 of 7")
	if e := v.until("the switch is seen", func(e event) bool { return e.Texts["strategy"] == "per-request" }); e.last("used") == nil {
		t.Errorf("what was seen of the server is lost: %s", e.data)
	}
	lease, err := s.DB().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	v.until("the lease is seen", func(e event) bool { return e.Texts["leases"] == "1 of 7" && e.last("used") != nil })
}

func TestASwitchByHandUndoesNoReload(t *testing.T) {
	t.Parallel()
	s := newBoard(t, func(c *config.Config) {
		setDatabase(c, func(d *config.Database) { d.Pool.MaxSize, d.Pool.MaxIdle = 20, time.Hour })
	})
	cookie := s.login("ada")
	for i := range 20 {
		var idle []*db.Lease // a reload takes as long as it takes to close them
		for range 10 {
			l, err := s.DB().Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			idle = append(idle, l)
		}
		for _, l := range idle {
			l.Release()
		}
		name := fmt.Sprintf("reload%d", i)
		var both sync.WaitGroup
		both.Go(func() { s.reconfigure(func(c *config.Database) { c.ApplicationName = name }) })
		both.Go(func() {
			s.post(connections, url.Values{"strategy": {"pool"}, "pool.max_size": {strconv.Itoa(20 + i)}}, "Cookie", cookie)
		})
		both.Wait()
		if got := s.DB().Config().ApplicationName; got != name {
			t.Fatalf("after the reload with %q, and a switch of a size, %q is in force", name, got)
		}
	}
}

func TestAMistakeInTheControlComesBackWithWhatWasTyped(t *testing.T) {
	t.Parallel()
	s := newBoard(t, nil)
	cookie := s.login("ada")
	a := s.post(connections, url.Values{
		"strategy": {"pool"}, "pool.max_size": {"<script>alert(1)"}, "pool.timeout": {"7s"}, "pool.hold": {"query"}, "pool.max_waiting": {"-1"},
	}, "Cookie", cookie)
	mustContain(t, a, 200, "Please correct the 2 errors below", "a whole number from 1 to 10000")
	doc, err := goquery.NewDocumentFromReader(strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"#id_pool_max_size": "<script>alert(1)", "#id_pool_timeout": "7s", "#id_pool_max_waiting": "-1"} {
		if got := doc.Find(id).AttrOr("value", ""); got != want {
			t.Errorf("%s holds %q, want %q", id, got, want)
		}
	}
	if doc.Find(`#id_pool_max_size[aria-invalid="true"][aria-describedby~="id_pool_max_size_error"]`).Length() != 1 {
		t.Error("the mistake is not told at its field")
	}
	if s.DB().Config().Pool.Timeout != 10*time.Second {
		t.Error("a form with a mistake changed something")
	}
}

func TestWhatWasTypedOutlivesTheSession(t *testing.T) {
	t.Parallel()
	s := newBoard(t, nil)
	a := s.post(connections, url.Values{"strategy": {"pool"}, "pool.max_size": {"7"}, "password": {"no"}})
	to, err := url.Parse(a.header("Location"))
	if err != nil || a.StatusCode != 302 || to.Path != "/admin/login/" {
		t.Fatalf("%v %s to %s", err, a.Status, to)
	}
	a = s.post("/admin/login/", url.Values{"username": {"ada"}, "password": {testPassword}, "next": {to.Query().Get("next")}})
	if want := connections + "?pool.max_size=7&strategy=pool"; a.header("Location") != want {
		t.Fatalf("after the login %q, want %q", a.header("Location"), want)
	}
	cookie, _, _ := strings.Cut(a.header("Set-Cookie"), ";")
	a = s.get(a.header("Location"), "Cookie", cookie)
	mustContain(t, a, 200, "nothing is switched yet", `name="pool.max_size" id="id_pool_max_size" value="7"`)
	if got := s.DB().Config().Pool.MaxSize; got != 10 {
		t.Errorf("a link switched something: max_size is %d", got)
	}
}

func TestTooMuchThatWasTypedIsNotPutIntoAnAddress(t *testing.T) {
	t.Parallel()
	s := newBoard(t, nil)
	a := s.post(connections, url.Values{"strategy": {"pool"}, "pool.timeout": {strings.Repeat("é", 100_000)}})
	if to := a.header("Location"); a.StatusCode != 302 || to != "/admin/login/?next=%2Fadmin%2Fconnections%2F" {
		t.Errorf("%s to %.200s (%d bytes)", a.Status, to, len(to))
	}
}

func TestWhoIsUnknownDoesNotHoldUpTheMonitoringConnection(t *testing.T) {
	t.Parallel()
	s := newBoard(t, nil)
	cfg := s.cfg.Databases["default"]
	control := dbtest.Control(t, cfg)
	s.until(s.login("ada"), "the server was looked at", func(a answer) bool { return strings.Contains(a.body, "monitor") })
	const monitor = `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%/monitor'`
	var before, after int
	if err := control.QueryRow(t.Context(), monitor).Scan(&before); err != nil {
		t.Fatal(err)
	}
	s.sql(control, `BEGIN`)
	s.sql(control, `LOCK ddtb_session`)
	var posts sync.WaitGroup
	for i := range 6 {
		posts.Go(func() {
			ctx := t.Context()
			if i == 0 { // the client that disconnects
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 2300*time.Millisecond)
				defer cancel()
			}
			unknown := fmt.Sprintf("ddtb_session=%043d", i)
			a, err := s.send(ctx, fresh, http.MethodPost, connections, strings.NewReader("strategy=persistent"),
				"Cookie", unknown, "Content-Type", "application/x-www-form-urlencoded")
			if i > 0 && (err != nil || a.StatusCode != 503 || a.header("Retry-After") == "") {
				t.Errorf("%v %s\n%s", err, a.Status, a.body)
			}
		})
	}
	posts.Wait()
	if a := s.get("/readyz"); a.StatusCode != 200 {
		t.Errorf("/readyz: %s\n%s", a.Status, a.body)
	}
	s.sql(control, `ROLLBACK`)
	if err := control.QueryRow(t.Context(), monitor).Scan(&after); err != nil || after != before {
		t.Errorf("the monitoring connection was backend %d, and is now %d: %v", before, after, err)
	}
	if got := s.DB().Config().Strategy; got != "pool" {
		t.Errorf("the strategy is %s", got)
	}
}

func TestAnApplicationsNameIsTextOnTheDashboard(t *testing.T) {
	t.Parallel()
	s := newBoard(t, nil)
	control := dbtest.Control(t, s.cfg.Databases["default"])
	s.sql(control, `SET application_name = '<script>alert(1)</script>'`)
	cookie := s.login("ada")
	a := s.until(cookie, "the name is there", func(a answer) bool { return strings.Contains(a.body, "alert(1)") })
	if !strings.Contains(a.body, "&lt;script&gt;alert(1)&lt;/script&gt;") {
		t.Error(a.body)
	}
	e := s.watch(cookie).until("it is in an event", func(e event) bool { return strings.Contains(e.data, "alert(1)") })
	if strings.Contains(e.data, "<") {
		t.Error(e.data)
	}
}

func TestTheDashboardLivesWhileEverySlotIsTaken(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{MaxConnections: smallSlots})
	for _, strategy := range strategies {
		t.Run(strategy.name, func(t *testing.T) {
			cfg := server.Config(t)
			s := boardOn(t, cfg, func(c *config.Config) { setDatabase(c, strategy.set) })
			cookie := s.login("ada")
			s.client.CloseIdleConnections()
			v := s.watch(cookie)
			v.mustNext()
			s.reconfigure(func(c *config.Database) { strategy.set(c); c.Pool.MaxIdle++ }) // which closes idle connections
			fillUp(t, cfg)
			e := v.until("every slot is taken", func(e event) bool { return strings.HasPrefix(e.Texts["slots"], "17 of 17") })
			if e.Level != "critical" {
				t.Errorf("the level is %s", e.Level)
			}
			if a := s.get("/polls/", "Accept", "text/html"); a.StatusCode != 503 {
				t.Errorf("a page that needs a connection: %s", a.Status)
			}
			a := s.until(cookie, "the page reports the failure", func(a answer) bool { return strings.Contains(a.body, "slots exhausted") })
			mustContain(t, a, 200, "17 of 17", "Critical")
			if e := s.watch(cookie).mustNext(); e.kind != "history" {
				t.Errorf("who comes now gets %s", e.kind)
			}
			v.until("the failure is told", func(e event) bool { return e.Tables["causes"][0][0] == "slots exhausted" })
			mustContain(t, s.get(connections, "Cookie", s.login("ada")), 200, "17 of 17") // who signs in only now
			mustContain(t, s.get("/admin/", "Accept", "text/html", "Cookie", cookie), 503, "slots exhausted")

			a = s.post(connections, url.Values{"strategy": {"pool"}, "pool.max_size": {"2"}, "pool.timeout": {"9s"}}, "Cookie", cookie)
			if a.StatusCode != 303 {
				t.Fatalf("the switch: %s\n%s", a.Status, a.body)
			}
			page := s.get(connections, "Cookie", cookie)
			if mustContain(t, page, 200, "ada switched"); strings.Contains(page.body, "could not be written") {
				t.Errorf("the switch is not in the history:\n%s", page.body)
			}
			v.until("it is in force", func(e event) bool { return strings.HasPrefix(e.Texts["leases"], "0 of 2") })
		})
	}
}

func TestTheMonitoringConnectionOutlivesALoginThatFindsItsTableLocked(t *testing.T) {
	t.Parallel()
	s := newBoard(t, func(c *config.Config) {
		setDatabase(c, func(d *config.Database) { pool(d); d.Pool.MaxSize = 1 })
		c.Monitor.Interval = time.Hour // so that the sampler does not interfere
	})
	s.reconfigure(func(d *config.Database) { d.Pool.Timeout = 100 * time.Millisecond })
	control := dbtest.Control(t, s.cfg.Databases["default"])
	backend := func() (pid int) {
		if err := s.Monitor().Do(t.Context(), func(c *pgx.Conn) error {
			return c.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid)
		}); err != nil {
			t.Error(err)
		}
		return pid
	}
	before := backend()
	defer s.mustAcquire().Release()
	s.sql(control, `BEGIN`)
	s.sql(control, `LOCK TABLE auth_user`)
	looked := make(chan error, 1)
	go func() { // another login takes the turn until most of the wait of the first is over
		looked <- s.Monitor().Do(t.Context(), func(c *pgx.Conn) error {
			_, err := c.Exec(t.Context(), "SELECT pg_sleep(1.9)")
			return err
		})
	}()
	dbtest.Eventually(t, "the other has the turn", func() bool {
		var n int
		err := control.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'", before).Scan(&n)
		return err == nil && n == 1
	})
	mustContain(t, s.post("/admin/login/", url.Values{"username": {"ada"}, "password": {testPassword}}), 503, "pool timeout")
	if err := <-looked; err != nil {
		t.Error(err)
	}
	s.sql(control, `ROLLBACK`)
	if after := backend(); after != before {
		t.Errorf("the monitoring connection was backend %d, and is now %d", before, after)
	}
}

// fillUp takes every slot available to an ordinary role until the end of the test.
func fillUp(t *testing.T, cfg config.Database) {
	t.Helper()
	cc, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d dbname=%s user=%s password=%s sslmode=%s application_name=crowd",
		cfg.Host, cfg.Port, cfg.Name, cfg.User, cfg.Password.Reveal(), cfg.SSLMode))
	if err != nil {
		t.Fatal(err)
	}
	for range smallSlots {
		c, err := pgx.ConnectConfig(t.Context(), cc)
		if err != nil {
			return
		}
		t.Cleanup(func() { _ = c.Close(context.Background()) })
	}
	t.Fatal("there is no end of slots")
}

func TestTheDashboardGoesOnWhileTheServerHangs(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{})
	s := boardOn(t, server.Config(t), nil)
	cookie := s.login("ada")
	v := s.watch(cookie)
	v.until("the server is seen", func(e event) bool { return e.kind == "now" && e.last("used") != nil })
	lease, err := s.DB().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	server.Pause(t)
	defer server.Resume(t)
	e := v.until("the page says so", func(e event) bool { return strings.Contains(e.Texts["verdict"], "takes long to answer") })
	if e.Level != "unknown" || e.last("used") != nil || *e.last("leases") != 1 || e.Tables["holders"][0][2] != fmt.Sprint(lease.PID()) {
		t.Errorf("what this process knows by itself is not told: %s", e.data)
	}
	mustContain(t, s.get(connections, "Cookie", cookie), 200, "takes long to answer")
	server.Resume(t)
	v.until("the server is seen again", func(e event) bool { return e.kind == "now" && e.last("used") != nil })
}

func TestASwitchThatCanNotBeRecordedIsMadeAndThePageSaysSo(t *testing.T) {
	t.Parallel()
	s := newBoard(t, nil)
	s.sql(dbtest.Control(t, s.cfg.Databases["default"]), `ALTER TABLE django_admin_log RENAME TO elsewhere`)
	cookie := s.login("ada")
	if a := s.post(connections, url.Values{"strategy": {"per-request"}}, "Cookie", cookie); a.StatusCode != 303 {
		t.Fatalf("%s\n%s", a.Status, a.body)
	}
	if got := s.DB().Config().Strategy; got != "per-request" {
		t.Errorf("the strategy is %s", got)
	}
	page := s.get(connections, "Cookie", cookie)
	mustContain(t, page, 200, "ada switched strategy from pool to per-request", "could not be written into the history: SQLSTATE 42P01.")
	if strings.Contains(page.body, "django_admin_log") {
		t.Error("the page has the text of the error")
	}
	if s.log.Count("level=WARN", "could not be written into the history", "by=ada") != 1 {
		t.Errorf("the log does not tell:\n%s", s.log)
	}
}

func TestWhoWatchesPinsNoConnectionOfTheirWorker(t *testing.T) {
	t.Parallel()
	s := newBoard(t, func(c *config.Config) { setDatabase(c, persistent) })
	control := dbtest.Control(t, s.cfg.Databases["default"])
	var cookie string
	var viewers []*viewer
	for range 8 {
		cookie = s.login("ada") // the session is not cached yet
		v := s.watch(cookie)
		v.mustNext()
		viewers = append(viewers, v)
	}
	dbtest.Eventually(t, "those over which they asked first are closed", func() bool { return s.backends(control) <= 2 })
	acquired := s.DB().Stat().Acquired
	a := s.post("/admin/auth/group/add/", url.Values{"name": {"Editors"}, "_save": {"Save"}}, "Cookie", cookie) // which forgets who everybody is
	if a.StatusCode != 302 {
		t.Fatalf("%s\n%s", a.Status, a.body)
	}
	pastNow(viewers)
	if s.DB().Stat().Acquired == acquired {
		t.Fatal("nobody asked again: the test sees nothing")
	}
	dbtest.Eventually(t, "the connections over which they asked are closed", func() bool { return s.backends(control) <= 2 })
}

// pastNow reads every stream up to events made after the call.
func pastNow(viewers []*viewer) {
	now := float64(time.Now().UnixMilli()) / 1000
	for _, v := range viewers {
		v.until("what comes is new", func(e event) bool { return e.kind == "now" && *e.last("time") > now })
		v.mustNext()
	}
}

func TestViewersAskForTheirRightsOneAfterAnother(t *testing.T) {
	t.Parallel()
	s := newBoard(t, func(c *config.Config) { setDatabase(c, perRequest) })
	cookie := s.login("ada")
	var viewers []*viewer
	for range 20 { // the limit per user
		v := s.watch(cookie)
		v.mustNext()
		viewers = append(viewers, v)
	}
	before := s.DB().Stat().Connects
	s.post("/admin/auth/group/add/", url.Values{"name": {"Editors"}, "_save": {"Save"}}, "Cookie", cookie) // which forgets who everybody is
	pastNow(viewers)
	if asked := s.DB().Stat().Connects - before; asked < 2 || asked > 6 {
		t.Errorf("a change of a group and 20 viewers of one session made %d attempts to connect", asked)
	}
}

func TestTheDashboardOfALostServerDoesNotWaitForItToIdentifyAVisitor(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t, dbtest.Options{})
	s := boardOn(t, server.Config(t), nil)
	cookie := s.login("ada") // not cached yet
	server.Stop(t, "fast")
	dbtest.Eventually(t, "no connection is attempted", func() bool {
		_, err := s.DB().Exec(t.Context(), "SELECT")
		return db.CauseOf(err) == db.CircuitOpen
	})
	began := time.Now()
	mustContain(t, s.get(connections, "Cookie", cookie), http.StatusServiceUnavailable)
	if took := time.Since(began); took > 1900*time.Millisecond { // 2 s is the limit of a lookup
		t.Errorf("it took %s", took)
	}
}
