package dashboard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/labstack/echo/v4"

	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/db"
	"ddtb/db/activity"
)

// Who may view and change what, and the record of changes.

// page is a page for a user who is staff.
type page func(c echo.Context, user *auth.User) error

// forStaff wraps a page. Visitors who are not staff get the login, which returns here.
func (b *Board) forStaff(next page) echo.HandlerFunc {
	return func(c echo.Context) error {
		change := c.Request().Method == http.MethodPost
		if change {
			if _, err := c.FormParams(); err != nil {
				return fault.Wrap(fault.Invalid, err, "The form could not be read.")
			}
		}
		user, err := b.user(c.Request().Context(), change)
		switch {
		case err != nil:
			return fmt.Errorf("identify the dashboard's user: %w", err)
		case user == nil || !user.Staff:
			return toLogin(c)
		}
		return next(c, user)
	}
}

// forSuperusers is forStaff for a page on which only superusers may do what action says.
func (b *Board) forSuperusers(action string, next page) echo.HandlerFunc {
	return b.forStaff(func(c echo.Context, user *auth.User) error {
		if !user.Superuser {
			return fault.New(fault.Forbidden, "Only a superuser may %s. Ask one.", action)
		}
		return next(c, user)
	})
}

// user identifies the user, usually from auth's cache. If no connection is available soon, it uses a reserve, because the
// page is needed most then. So it does for each change by a superuser, whose permission is checked in the database.
func (b *Board) user(ctx context.Context, change bool) (*auth.User, error) {
	soon, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	user, err := auth.UserOnce(soon)
	recheck := err != nil || change && user != nil && user.Superuser
	switch {
	case !recheck:
		return user, err
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	reserve := b.ViewReserve
	if change {
		reserve = b.ChangeReserve
	}
	failed := reserve(ctx, func(ctx context.Context, q db.Querier) (err error) {
		user, err = auth.RecheckThrough(ctx, q)
		return err
	})
	switch {
	case failed == nil:
		return user, nil
	case err == nil:
		err = failed
	}
	return nil, activity.Unanswered(err)
}

// mostTyped is the maximum size of typed values in an address, in bytes: proxies refuse a much longer request line.
const mostTyped = 2 << 10

// toLogin redirects to the login, which returns here. The values typed into the control are in the address: none of them
// is secret.
func toLogin(c echo.Context) error {
	next, query := url.URL{Path: Path}, url.Values{}
	for key, text := range typed(c.Request().PostForm) {
		query.Set(key, text)
	}
	if encoded := query.Encode(); len(encoded) <= mostTyped {
		next.RawQuery = encoded
	}
	return c.Redirect(http.StatusFound, "/admin/login/?"+url.Values{"next": {next.String()}}.Encode())
}

// action is what a superuser did here.
type action struct {
	At         time.Time
	Sentence   string // "ada terminated session 123"
	Unrecorded string // why it is missing from the history; "": it is recorded
}

const recordTimeout = 3 * time.Second // for the history entry

// record writes an action into the history, over the monitoring connection. It returns why it could not, or "".
func (b *Board) record(ctx context.Context, user *auth.User, object, message string) (unrecorded string) {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	err := b.Monitor.Do(ctx, func(conn *pgx.Conn) error { return b.Record(ctx, conn, user, object, message) })
	if err == nil {
		return ""
	}
	b.Log.WarnContext(ctx, "a change on the dashboard could not be written into the history", "by", user.Username, "what", message, "error", err)
	return inShort(err)
}

// inShort is the part of an error that a page may show: its text can contain a role, a database or a host.
func inShort(err error) string {
	if cause := db.CauseOf(err); cause != "" {
		return string(cause)
	}
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return "SQLSTATE " + pe.Code
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "the server did not answer in time"
	}
	return inOurCode
}
