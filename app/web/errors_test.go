package web_test

import (
	"bytes"
	gocontext "context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/labstack/echo/v4"

	"ddtb/app/fault"
	"ddtb/app/report"
	"ddtb/app/web"
	"ddtb/db"
)

// secret stands for text that only the log may contain.
const secret = "relation polls_question of host 10.0.0.7"

// answers are errors, and the complete response to each.
var answers = map[string]struct {
	err        error
	status     int
	title      string
	detail     string // is in it
	retryAfter string
	level      slog.Level
}{
	"a busy pool": {
		&db.ConnError{Cause: db.PoolTimeout, Size: 3, Leases: 3, Waited: 10 * time.Second}, 503, "No database connection: pool timeout",
		"(3) were busy for 10.00 seconds.", "1", slog.LevelWarn,
	},
	"a full queue": {
		&db.ConnError{Cause: db.QueueFull, Size: 3, Leases: 3, Waiting: 100, RetryAfter: 2100 * time.Millisecond}, 503,
		"No database connection: queue full", "so many requests wait", "3", slog.LevelWarn,
	},
	"slots exhausted": {
		&db.ConnError{Cause: db.SlotsExhausted, Err: &pgconn.PgError{Code: "53300", Message: secret}}, 503,
		"No database connection: slots exhausted", "no connection slot left", "1", slog.LevelWarn,
	},
	"a server that is gone": {
		fmt.Errorf("latest polls: %w", &db.ConnError{Cause: db.ServerUnavailable, Err: errors.New(secret)}), 503,
		"No database connection: server unavailable", "does not answer, or is restarting", "1", slog.LevelWarn,
	},
	"an open circuit": {
		&db.ConnError{Cause: db.CircuitOpen, RetryAfter: 1001 * time.Millisecond, Err: errors.New(secret)}, 503,
		"No database connection: circuit open", "so this one was not made", "2", slog.LevelWarn,
	},
	"a certificate that is not trusted": {
		&db.ConnError{Cause: db.CertificateRejected, Err: errors.New(secret)}, 503,
		"No database connection: certificate rejected", "is not trusted: replace it", "", slog.LevelError,
	},
	"a name that can't be resolved": {
		&db.ConnError{Cause: db.ServerUnavailable, Err: &net.DNSError{Err: secret, IsNotFound: true}}, 503,
		"No database connection: server unavailable", "can't be resolved", "1", slog.LevelWarn,
	},
	"a query that was given up": {
		fmt.Errorf("latest polls: %w", db.ErrQueryTimeout), 503, "This took too long", "did not answer in time", "1", slog.LevelWarn,
	},
	"a table that is missing": {
		&pgconn.PgError{Code: "42P01", Message: secret}, 503, "The database is incomplete", "is missing from the database", "", slog.LevelError,
	},
	"a rejected login, which does not pass": {
		&db.ConnError{Cause: db.LoginRejected, Err: errors.New(secret)}, 503,
		"No database connection: login rejected", "an administrator has to check its login", "", slog.LevelError,
	},
	"what can't be read":     {fault.New(fault.Invalid, "threads=0: no."), 400, "Bad Request", "threads=0: no.", "", slog.LevelDebug},
	"what is not allowed":    {fault.Wrap(fault.Forbidden, errors.New(secret), "Not you."), 403, "Forbidden", "Not you.", "", slog.LevelWarn},
	"what this user may not": {fault.New(fault.Forbidden, "Not you."), 403, "Forbidden", "Not you.", "", slog.LevelDebug},
	"what is not there":      {fmt.Errorf("x: %w", fault.New(fault.NotFound, "No poll.")), 404, "Not Found", "No poll.", "", slog.LevelDebug},
	"a conflict":             {fault.New(fault.Conflict, "Changed."), 409, "Conflict", "Changed.", "", slog.LevelDebug},
	"a body too large":       {fault.New(fault.TooLarge, "Too much."), 413, "Request Entity Too Large", "Too much.", "", slog.LevelDebug},
	"a body cut by a limit": {
		fmt.Errorf("form: %w", &http.MaxBytesError{Limit: 1}), 413, "Request Entity Too Large", "1 MB", "", slog.LevelDebug,
	},
	"too many tries": {fault.New(fault.TooManyTries, "Wait."), 429, "Too Many Requests", "Wait.", "", slog.LevelWarn},
	"and for how long": {
		&fault.Error{Kind: fault.TooManyTries, Public: "Wait.", RetryAfter: 5 * time.Second}, 429, "Too Many Requests", "Wait.", "5", slog.LevelWarn,
	},
	"a file that can't be opened": {
		&db.ConnError{Cause: db.ServerUnavailable, Err: fmt.Errorf("dial: %w", syscall.EMFILE)}, 503, "Too many open files", "is not the cause", "1", slog.LevelWarn,
	},
	"a number that is too large": {&pgconn.PgError{Code: "22003", Message: secret}, 409, "Conflict", "larger than the database can store", "", slog.LevelDebug},
	"a text that is too long":    {&pgconn.PgError{Code: "22001", Message: secret}, 400, "Bad Request", "longer than the database", "", slog.LevelDebug},
	"a character that is none":   {&pgconn.PgError{Code: "22P05", Message: secret}, 400, "Bad Request", "character", "", slog.LevelDebug},
	"a stored text that is none": {&pgconn.PgError{Code: "22021", Message: secret}, 503, "A stored text can't be read", "is not in the database's encoding", "", slog.LevelError},
	"a body that was broken off": {
		fmt.Errorf("form: %w", fault.Wrap(fault.Invalid, io.ErrUnexpectedEOF, "It did not arrive whole.")), 400, "Bad Request", "not arrive whole", "", slog.LevelDebug,
	},
	"as many as may": {fault.New(fault.Busy, "Wait."), 503, "Service Unavailable", "Wait.", "1", slog.LevelWarn},
	"no such route":  {echo.ErrNotFound, 404, "Not Found", "no such page", "", slog.LevelDebug},
	"another method": {echo.ErrMethodNotAllowed, 405, "Method Not Allowed", "does not take that kind", "", slog.LevelDebug},
	"an unusual kind": {
		echo.NewHTTPError(http.StatusUnsupportedMediaType, secret), 415, "Unsupported Media Type", "can't be answered", "", slog.LevelDebug,
	},
	"a constraint": {
		&pgconn.PgError{Code: "23505", Message: secret}, 409, "Conflict", "someone else may have changed it", "", slog.LevelDebug,
	},
	"a deadlock":              {&pgconn.PgError{Code: "40P01", Message: secret}, 409, "Conflict", "was rolled back", "1", slog.LevelWarn},
	"a serialization failure": {&pgconn.PgError{Code: "40001", Message: secret}, 409, "Conflict", "was rolled back", "1", slog.LevelWarn},
	"a statement that took too long": {
		fmt.Errorf("x: %w", &pgconn.PgError{Code: "57014", Message: secret}), 503, "The database took too long", "longer than allowed", "1", slog.LevelWarn,
	},
	"a lock that was waited for": {
		&pgconn.PgError{Code: "55P03", Message: secret}, 503, "The database took too long", "has locked what this request needs", "1", slog.LevelWarn,
	},
	"a database that only reads": {
		&pgconn.PgError{Code: "25006", Message: secret}, 503, "The database is read-only", "accepts no changes", "1", slog.LevelWarn,
	},
	"a full disk, which does not pass": {
		&pgconn.PgError{Code: "53100", Message: secret}, 503, "The database's disk is full", "an administrator frees space", "", slog.LevelError,
	},
	"too little memory": {
		&pgconn.PgError{Code: "53200", Message: secret}, 503, "The database is short of memory", "too little memory", "1", slog.LevelWarn,
	},
	"a deadline": {
		fmt.Errorf("sessions of %s: %w", secret, gocontext.DeadlineExceeded), 503, "This took too long", "did not answer in time", "1", slog.LevelWarn,
	},
	"a bug":                          {errors.New(secret), 500, "Internal Server Error", "has been logged", "", slog.LevelError},
	"a bug that says so":             {fault.New(fault.Internal, secret), 500, "Internal Server Error", "has been logged", "", slog.LevelError},
	"a server error of a middleware": {echo.NewHTTPError(502, secret), 500, "Internal Server Error", "has been logged", "", slog.LevelError},
}

// causeOf is the cause in the answer.
func causeOf(err error) db.Cause {
	if errors.Is(err, syscall.EMFILE) {
		return "out of file descriptors"
	}
	return db.CauseOf(err)
}

// fail is the answer to err for a client with that Accept header, and what was logged.
func fail(t *testing.T, err error, accept string) (*httptest.ResponseRecorder, map[string]any) {
	t.Helper()
	c, rec := context(t, "/polls/")
	c.Request().Header.Set("Accept", accept)
	c.Response().Header().Set(echo.HeaderXRequestID, "abc")
	var log bytes.Buffer
	told := 0
	tell := func(_ echo.Context, about error) {
		told++
		if about != err { //nolint:errorlint // the very same
			t.Errorf("told of %v", about)
		}
	}
	web.HandleErrors(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), tell)(err, c)
	if ours := rec.Code >= http.StatusInternalServerError && fault.KindOf(err) != fault.Busy; (told == 1) != ours || told > 1 {
		t.Errorf("%d: told %d times", rec.Code, told)
	}
	var line map[string]any
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatalf("the log is not one line: %v\n%s", err, &log)
	}
	return rec, line
}

func TestAnErrorIsAPageWithAStatusOfItsOwn(t *testing.T) {
	for name, want := range answers {
		t.Run(name, func(t *testing.T) {
			rec, line := fail(t, want.err, "text/html")
			body, doc := rec.Body.String(), document(t, rec)
			if rec.Code != want.status || rec.Header().Get("Retry-After") != want.retryAfter || rec.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("%d, %v", rec.Code, rec.Header())
			}
			if h1 := doc.Find("h1").Text(); h1 != want.title || doc.Find("title").Text() != want.title {
				t.Errorf("the title is %q", h1)
			}
			if !strings.Contains(doc.Find(".lead").Text(), want.detail) || strings.Contains(body, secret) {
				t.Errorf("the page says: %s", body)
			}
			needsSomebody := strings.Contains(name, "slots exhausted")
			if passes := strings.Contains(body, "Please try again"); passes != (want.retryAfter != "" && !needsSomebody) {
				t.Errorf("that it passes is said: %v", passes)
			}
			if strings.Contains(body, "<code>abc</code>") != (want.status >= 500 && !causeOf(want.err).Spec().AtOnce) {
				t.Errorf("the request's id is for 5xx that are not refused at once:\n%s", body)
			}
			if line["level"] != want.level.String() || line["status"] != float64(want.status) || line["path"] != "/polls/" ||
				line["request_id"] != "abc" || line["error"] != want.err.Error() {
				t.Errorf("the log says: %v", line)
			}
		})
	}
}

func TestAnErrorIsAProblemDocumentForWhoAsksForJSON(t *testing.T) {
	for name, want := range answers {
		t.Run(name, func(t *testing.T) {
			rec, _ := fail(t, want.err, "application/json")
			var p struct {
				Status        int
				Title, Detail string
				Cause         db.Cause
			}
			if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil {
				t.Fatalf("%v: %s", err, rec.Body)
			}
			if rec.Code != want.status || rec.Header().Get("Content-Type") != "application/problem+json" ||
				rec.Header().Get("Retry-After") != want.retryAfter {
				t.Errorf("%d, %v", rec.Code, rec.Header())
			}
			if p.Status != want.status || p.Title != want.title || p.Cause != causeOf(want.err) || !strings.Contains(p.Detail, want.detail) {
				t.Errorf("%s", rec.Body)
			}
			if strings.Contains(rec.Body.String(), secret) {
				t.Errorf("it tells what only the log should: %s", rec.Body)
			}
		})
	}
}

func TestTheSenderOfAChangeAloneIsAskedToCheckWhetherItWasMade(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for _, accepted := range []string{"text/html", "application/json"} {
			c, rec := context(t, "/polls/")
			c.Request().Method = method
			c.Request().Header.Set("Accept", accepted)
			web.HandleErrors(slog.New(slog.DiscardHandler), nil)(db.ErrQueryTimeout, c)
			if asks := strings.Contains(rec.Body.String(), "check"); asks != (method == http.MethodPost) {
				t.Errorf("%s as %s:\n%s", method, accepted, rec.Body)
			}
		}
	}
}

func TestWhatIsReportedAsABugIsAnsweredAsOne(t *testing.T) {
	for name, want := range answers {
		if fault.KindOf(want.err) == fault.Busy {
			continue // not reported
		}
		if want.status >= http.StatusInternalServerError && (report.CauseOf(want.err) == report.InternalError) != (want.status == http.StatusInternalServerError) {
			t.Errorf("%s is answered with %d, and told as %q", name, want.status, report.CauseOf(want.err))
		}
	}
}

func TestAMissingConnectionIsLoggedWithTheNumbersThatMatter(t *testing.T) {
	_, line := fail(t, &db.ConnError{
		Cause: db.PoolTimeout, Strategy: "pool", Waited: time.Second, Size: 3, Leases: 3, Waiting: 9,
		Err: &pgconn.PgError{Code: "53300"},
	}, "")
	for key, want := range map[string]any{
		"cause": "pool timeout", "sqlstate": "53300", "strategy": "pool", "waited": float64(time.Second), "size": 3.0, "leases": 3.0, "waiting": 9.0,
	} {
		if line[key] != want {
			t.Errorf("%s is %v, want %v", key, line[key], want)
		}
	}
}

func TestAClientThatWentAwayIsNoFailure(t *testing.T) {
	c, rec := context(t, "/polls/")
	ctx, cancel := gocontext.WithCancel(c.Request().Context())
	cancel()
	c.SetRequest(c.Request().WithContext(ctx))
	var log bytes.Buffer
	web.HandleErrors(slog.New(slog.NewTextHandler(&log, nil)), nil)(gocontext.Canceled, c)
	if log.Len() > 0 || rec.Code != 499 { // a half-closed client may still read: an empty 200 would be wrong
		t.Errorf("logged: %s\nanswered: %d %s", &log, rec.Code, rec.Body)
	}
}

func TestABugIsReportedThoughItsClientHasLeft(t *testing.T) {
	for name, err := range map[string]error{
		"a panic":       errors.New("panic: index out of range"),
		"a lost server": &db.ConnError{Cause: db.ServerUnavailable, Err: io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			c, rec := context(t, "/polls/")
			ctx, cancel := gocontext.WithCancel(c.Request().Context())
			cancel()
			c.SetRequest(c.Request().WithContext(ctx))
			var log bytes.Buffer
			var reported error
			report := func(_ echo.Context, err error) { reported = err }
			web.HandleErrors(slog.New(slog.NewTextHandler(&log, nil)), report)(err, c)
			if reported == nil || log.Len() == 0 {
				t.Errorf("reported: %v\nlogged: %s", reported, &log)
			}
			if want := web.ProblemOf(err).Status; rec.Code != want {
				t.Errorf("status: %d, want %d", rec.Code, want)
			}
		})
	}
}

func TestAnErrorAfterTheResponseHasBegunCutsIt(t *testing.T) {
	e := echo.New()
	told := make(chan error, 1)
	e.HTTPErrorHandler = web.HandleErrors(slog.New(slog.DiscardHandler), func(_ echo.Context, err error) { told <- err })
	e.GET("/", func(c echo.Context) error {
		c.Response().WriteHeader(http.StatusOK)
		c.Response().Flush()
		return errors.New("too late")
	})
	srv := httptest.NewServer(e)
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the client takes it for whole: %v", err)
	}
	if err := <-told; err.Error() != "too late" {
		t.Errorf("told of %v", err)
	}
}

func TestTheJSONOfAnUnsureChangeSaysWhetherToSendItAgain(t *testing.T) {
	for advice, handler := range map[string]func(echo.Context) error{
		"it counts only once": func(c echo.Context) error {
			web.CountsOnce(c)
			return &db.ConnError{Cause: db.ServerUnavailable, Sent: true}
		},
		"check that before you send it again": func(echo.Context) error {
			return &db.ConnError{Cause: db.ServerUnavailable, Sent: true}
		},
	} {
		e := echo.New()
		e.HTTPErrorHandler = web.HandleErrors(slog.New(slog.DiscardHandler), nil)
		e.POST("/", handler)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		r.Header.Set(echo.HeaderAccept, "application/json")
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		if !strings.Contains(w.Body.String(), advice) {
			t.Errorf("without %q: %s", advice, w.Body)
		}
	}
}

func TestAPageSaysThatWaitingHelpsOnlyWhereItDoes(t *testing.T) {
	const moves, stands, person = "fewer requests come at once", "None of them was released in that time", "has to change a setting"
	for name, c := range map[string]struct {
		err  *db.ConnError
		says string
	}{
		"a pool whose leases come back": {&db.ConnError{Cause: db.PoolTimeout, Stalled: time.Second}, moves},
		"a pool whose leases don't":     {&db.ConnError{Cause: db.PoolTimeout, Stalled: 10 * time.Second}, stands},
		"a queue that moves":            {&db.ConnError{Cause: db.QueueFull}, moves},
		"a queue that stands":           {&db.ConnError{Cause: db.QueueFull, Stalled: 10 * time.Second}, stands},
		"a wrong password":              {&db.ConnError{Cause: db.LoginRejected}, person},
		"a server that restarts":        {&db.ConnError{Cause: db.ServerUnavailable}, "when the server answers again"},
		"no slot":                       {&db.ConnError{Cause: db.SlotsExhausted}, "an administrator has to close some"},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the second may come from memory
				rec, _ := fail(t, c.err, "text/html")
				for _, says := range []string{moves, stands, person} {
					if strings.Contains(rec.Body.String(), says) != (says == c.says) {
						t.Errorf("%q is said, or not, in\n%s", says, rec.Body)
					}
				}
				if !strings.Contains(rec.Body.String(), c.says) || !strings.Contains(rec.Body.String(), `href="/admin/connections/"`) {
					t.Errorf("want %q and the dashboard in\n%s", c.says, rec.Body)
				}
			}
		})
	}
}

func TestAClientsTextIsCutBetweenLetters(t *testing.T) {
	long := "/" + strings.Repeat("é", 150)
	if got := web.Cut(long); !utf8.ValidString(got) || !strings.HasSuffix(got, "é…") || len(got) >= len(long) {
		t.Errorf("got %q", got)
	}
	if got := web.Cut("/é"); got != "/é" {
		t.Errorf("a short one is %q", got)
	}
}
