package web

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/labstack/echo/v4"

	"ddtb/app/fault"
	"ddtb/db"
)

//go:embed templates/error.html
var errorFS embed.FS

var errorPages = MustTemplates(errorFS, nil)

// lastResort is the response when the error page can't be rendered.
const lastResort = "500: something went wrong on our side, and the error page failed too. Both have been logged.\n"

// retryAfter is the minimum Retry-After for a temporary cause. A busy pool or a restarting server has usually recovered
// by then.
const retryAfter = time.Second

// Problem is an error as a response: an RFC 9457 problem document, or a page.
type Problem struct {
	Status     int           `json:"status"`
	Title      string        `json:"title"`
	Detail     string        `json:"detail"`
	Cause      db.Cause      `json:"cause,omitempty"`
	RetryAfter time.Duration `json:"-"` // 0: not said
	Advice     string        `json:"-"` // whether waiting helps, for a page; "": not known

	unsure bool // a change may have been made
}

// statusClientGone is nginx's status for a client that closed the connection before its response. It is only logged.
const statusClientGone = 499

// ProblemOf returns the response for err. An unknown error is a bug: 500, and its text is only logged.
func ProblemOf(err error) Problem {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return outOfFiles // regardless of what was being opened
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return plain(http.StatusRequestEntityTooLarge, httpSentence(http.StatusRequestEntityTooLarge))
	}
	if ce, ok := errors.AsType[*db.ConnError](err); ok {
		return unavailable(ce)
	}
	if fe, ok := errors.AsType[*fault.Error](err); ok && fe.Kind != fault.Internal {
		p := plain(int(fe.Kind), fe.Public)
		p.RetryAfter = fe.RetryAfter
		if fe.Kind == fault.Busy {
			p.RetryAfter = retryAfter
		}
		return p
	}
	if he, ok := errors.AsType[*echo.HTTPError](err); ok && he.Code < http.StatusInternalServerError {
		return plain(he.Code, httpSentence(he.Code))
	}
	if f, ok := db.QueryFailureOf(err); ok {
		return ofQuery(f)
	}
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch {
		case pe.Code == pgerrcode.ForeignKeyViolation:
			return plain(http.StatusConflict, referredTo(pe))
		case pe.Code == pgerrcode.CheckViolation:
			return plain(http.StatusConflict, forbiddenBy(pe))
		case pgerrcode.IsIntegrityConstraintViolation(pe.Code):
			return plain(http.StatusConflict, "This contradicts what is stored: someone else may have changed it. Load the page again.")
		}
	}
	if errors.Is(err, db.ErrQueryTimeout) || errors.Is(err, context.DeadlineExceeded) {
		return late
	}
	return plain(http.StatusInternalServerError, "Something went wrong on our side. The error has been logged.")
}

// referredTo names the table whose foreign key prevents a change. The table may belong to another application. No page
// here shows its rows, so reloading the page would not help.
func referredTo(pe *pgconn.PgError) string {
	return fmt.Sprintf("This can't be stored or deleted: rows of the table “%s” depend on it, or it refers to a row that no longer exists "+
		"(constraint “%s”). Where that table belongs to another application, delete its rows there first.", Cut(pe.TableName), Cut(pe.ConstraintName))
}

// forbiddenBy names the rule of the database that a value breaks. Reloading the page would not help. A trigger may name
// no constraint.
func forbiddenBy(pe *pgconn.PgError) string {
	return fmt.Sprintf("A rule of the database (%s) does not allow this value, so nothing was changed.", Cut(cmp.Or(pe.ConstraintName, "in a trigger")))
}

// outOfFiles is this process running out of file descriptors.
var outOfFiles = Problem{
	Status: http.StatusServiceUnavailable, Title: "Too many open files", Cause: "out of file descriptors", RetryAfter: retryAfter,
	Detail: "This application has as many files and connections open as the system allows. The database is not the cause.",
}

// late is a deadline that ended a request.
var late = Problem{
	Status: http.StatusServiceUnavailable, Title: "This took too long", RetryAfter: retryAfter, unsure: true,
	Detail: "The database did not answer in time, so this request was abandoned.",
}

const countsOnceKey = "ddtb.counts-once"

// CountsOnce marks a request that may be repeated without harm, although it changes something. The page of a failure
// that leaves open whether the change was made then asks to send the form again, and not to check first.
func CountsOnce(c echo.Context) { c.Set(countsOnceKey, true) }

// forChange adds to an unsure problem what the sender of a change should do.
func (p Problem) forChange(c echo.Context) Problem {
	switch {
	case !p.unsure || c.Request().Method != http.MethodPost:
	case c.Get(countsOnceKey) != nil:
		p.Advice = "This may or may not have been counted. Send it again in a moment: it counts only once."
	default:
		p.Advice = "This change may or may not have been made: check that before you send it again."
	}
	return p
}

func ofQuery(f db.QueryFailure) Problem {
	p := plain(f.Status, f.Sentence)
	p.Title = cmp.Or(f.Title, p.Title)
	if f.Passes {
		p.RetryAfter = retryAfter
	}
	return p
}

// passes reports whether the same request may succeed later, so that its form is worth keeping: by itself, or, without
// a RetryAfter, after the cause has been fixed.
func (p Problem) passes() bool { return p.Status == http.StatusServiceUnavailable || p.RetryAfter > 0 }

func plain(status int, detail string) Problem {
	return Problem{Status: status, Title: http.StatusText(status), Detail: detail}
}

func httpSentence(status int) string {
	switch status {
	case http.StatusNotFound:
		return "There is no such page."
	case http.StatusMethodNotAllowed:
		return "This page does not take that kind of request."
	case http.StatusRequestEntityTooLarge:
		return "That is more than is taken here: the limit is 1 MB."
	}
	return "This request can't be answered: " + http.StatusText(status) + "."
}

func unavailable(ce *db.ConnError) Problem {
	spec := ce.Cause.Spec()
	p := Problem{
		Status: http.StatusServiceUnavailable, Title: "No database connection: " + string(ce.Cause),
		Detail: spec.Sentence(ce), Cause: ce.Cause, Advice: cmp.Or(spec.Advice, tryAgain), unsure: ce.Sent,
	}
	if ce.Stalled >= stalledFor {
		p.Advice = "None of them was released in that time, so waiting may not help: an administrator has to find out what holds them."
	}
	if !spec.Lasts {
		p.RetryAfter = max(ce.RetryAfter, retryAfter)
	}
	return p
}

// stalledFor is how long a pool must have granted no lease before a page says that waiting may not help.
const stalledFor = 3 * time.Second

const tryAgain = "Please try again in a moment."

// HandleErrors is the echo.HTTPErrorHandler, and the only place that answers errors. Each error is logged, including
// what the client must not see. Refusals that can occur a thousand times a second are logged as one line per second and
// kind, with their number. report, if not nil, is called for our own failures: status 500 and above, except deliberate
// limits.
func HandleErrors(log *slog.Logger, report func(echo.Context, error)) echo.HTTPErrorHandler {
	return (&errorHandler{log: log, report: report}).handle
}

type errorHandler struct {
	log    *slog.Logger
	report func(echo.Context, error)
	quiet  quietLog
}

func (h *errorHandler) handle(err error, c echo.Context) {
	ctx := c.Request().Context()
	p := ProblemOf(err).forChange(c)
	if errors.Is(ctx.Err(), context.Canceled) && abandoned(err) {
		h.clientGone(c, err)
		return
	}
	if c.Response().Committed && writeFailed(err) {
		h.log.DebugContext(ctx, "the client did not take its answer", logAttrs(c, c.Response().Status, err)...)
		return
	}
	if h.report != nil && p.Status >= http.StatusInternalServerError && fault.KindOf(err) != fault.Busy {
		h.report(c, err)
	}
	if c.Response().Committed {
		h.log.ErrorContext(ctx, "the response had begun, and was cut", logAttrs(c, c.Response().Status, err)...)
		panic(http.ErrAbortHandler) // net/http closes the connection: the client sees an incomplete response
	}
	logged := h.logProblem(ctx, c, p, err)
	if werr := p.write(c, logged); werr != nil && !writeFailed(werr) {
		h.log.ErrorContext(ctx, "could not write the error page", "error", werr)
		http.Error(c.Response(), lastResort, http.StatusInternalServerError)
	}
}

// abandoned reports whether err comes from a context that was canceled, or from a query or connection that this has ended.
func abandoned(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, pgconn.ErrConnClosed) || sqlState(err) == pgerrcode.QueryCanceled
}

// clientGone answers a client that has closed its side. It may still read, and must not mistake an empty response for
// success.
func (h *errorHandler) clientGone(c echo.Context, err error) {
	h.log.DebugContext(c.Request().Context(), "the client went away", logAttrs(c, statusClientGone, err)...)
	if !c.Response().Committed {
		_ = c.String(statusClientGone, "You closed the connection before the answer was ready.\n") // it may not be read
	}
}

// writeFailed reports whether err means that the client does not accept the response: it disconnected, or reads too
// slowly.
func writeFailed(err error) bool {
	oe, ok := errors.AsType[*net.OpError](err)
	return ok && oe.Op == "write" && db.CauseOf(err) == ""
}

// logProblem reports whether it logged a line with the request's id.
func (h *errorHandler) logProblem(ctx context.Context, c echo.Context, p Problem, err error) bool {
	level := p.level(err)
	if !h.log.Enabled(ctx, level) {
		return false
	}
	if level == slog.LevelWarn || p.Status == http.StatusServiceUnavailable {
		if !h.quiet.first(kindOfLine{level, p.Status, p.Title, string(p.Cause), sqlState(err)}, h.logMore) {
			return false
		}
	}
	h.log.Log(ctx, level, p.Title, logAttrs(c, p.Status, err)...)
	return true
}

func (h *errorHandler) logMore(k kindOfLine, count int) {
	h.log.Log(context.Background(), k.level, k.title+": more of them within a second", "status", k.status, "cause", k.cause, "sqlstate", k.sqlState, "count", count)
}

// level returns the log level of the problem. A client's error is for debugging. A refusal that may be a mistake in the
// configuration is for the operator.
func (p Problem) level(err error) slog.Level {
	switch {
	case p.RetryAfter > 0, p.Status == http.StatusTooManyRequests:
		return slog.LevelWarn
	case p.Status >= http.StatusInternalServerError:
		return slog.LevelError
	case sqlState(err) == pgerrcode.ForeignKeyViolation, sqlState(err) == pgerrcode.CheckViolation:
		return slog.LevelWarn
	case p.Status == http.StatusForbidden:
		if fe, ok := errors.AsType[*fault.Error](err); ok && fe.Err != nil {
			return slog.LevelWarn
		}
	}
	return slog.LevelDebug
}

func sqlState(err error) string {
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pe.Code
	}
	return ""
}

func logAttrs(c echo.Context, status int, err error) []any {
	r := c.Request()
	attrs := []any{
		"method", Cut(r.Method), "path", Cut(r.URL.Path), "status", status, "client", c.RealIP(),
		"request_id", c.Response().Header().Get(echo.HeaderXRequestID), "error", err,
	}
	if ce, ok := errors.AsType[*db.ConnError](err); ok {
		attrs = append(attrs, "cause", ce.Cause, "sqlstate", ce.SQLState(), "server", ce.Server, "strategy", ce.Strategy,
			"waited", ce.Waited, "leases", ce.Leases, "size", ce.Size, "waiting", ce.Waiting)
	} else if code := sqlState(err); code != "" {
		attrs = append(attrs, "sqlstate", code)
		if hint := db.Hint(err); hint != "" {
			attrs = append(attrs, "hint", hint)
		}
	}
	return attrs
}

// SetRetryAfter sets the header Retry-After, in whole seconds: at least one.
func SetRetryAfter(c echo.Context, after time.Duration) {
	c.Response().Header().Set(echo.HeaderRetryAfter, strconv.Itoa(max(1, int(math.Ceil(after.Seconds())))))
}

var noStore = []string{"no-store"}

// write sends the response. logged means that the log has a line with the request's id.
func (p Problem) write(c echo.Context, logged bool) error {
	h := c.Response().Header()
	h[echo.HeaderCacheControl] = noStore
	if p.RetryAfter > 0 {
		SetRetryAfter(c, p.RetryAfter)
	}
	if WantsJSON(c) || forCurl(c) {
		h.Set(echo.HeaderContentType, "application/problem+json")
		if p.unsure && p.Advice != "" && c.Request().Method == http.MethodPost {
			p.Detail += " " + p.Advice
		}
		return c.JSON(p.Status, p)
	}
	form, _ := c.Get(againKey).(*again)
	if p.Advice == "" && p.RetryAfter > 0 {
		p.Advice = tryAgain
	}
	page := struct {
		Problem
		Again *again
		ID    string // the request's id, if it leads to a line of the log
	}{p, form, ""}
	if refusal := refusals[p.Cause]; refusal != nil && form == nil {
		page.RetryAfter = retryAfter // otherwise the page would be rendered for each request
		return refusal.Render(c, p.Status, page)
	}
	if logged && p.Status >= http.StatusInternalServerError {
		page.ID = h.Get(echo.HeaderXRequestID)
	}
	return errorPages.Render(c, p.Status, "error.html", page)
}

// refusals are the pages of causes that refuse requests at once. Each is rendered once, so that a refusal costs a
// fraction of serving a request.
var refusals = func() map[db.Cause]*Memo {
	memos := map[db.Cause]*Memo{}
	for _, c := range db.Causes {
		if c.AtOnce {
			memos[c.Cause] = errorPages.Memo("error.html")
		}
	}
	return memos
}()
