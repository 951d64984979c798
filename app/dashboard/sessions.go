package dashboard

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/app/web"
	"ddtb/db/activity"
)

const (
	sessionPath  = "/admin/connections/session/"
	mostSessions = 50 // in the list
	mostQuery    = 120
	endedFor     = 5 * time.Minute // how long the dashboard shows an action on a session
	findTimeout  = 3 * time.Second
)

// sessionRows lists the client sessions, the most conspicuous first, without the monitoring session.
func sessionRows(now activity.Snapshot) (rows [][]string) {
	sessions := slices.Clone(now.Sessions)
	sessions = slices.DeleteFunc(sessions, func(x activity.Session) bool { return !endable(now, x) })
	slices.SortStableFunc(sessions, func(a, b activity.Session) int {
		return cmp.Or(cmp.Compare(urgency(b), urgency(a)), cmp.Compare(b.InState, a.InState))
	})
	for _, x := range sessions {
		rows = append(rows, []string{
			strconv.Itoa(int(x.PID)), cmp.Or(x.Application, "(no name)"), x.User + "@" + x.Database, x.ClientAddress(),
			sessionState(x), age(x.InState), activity.FirstWords(x.Query, mostQuery),
		})
	}
	return rows
}

// endable reports whether the session is in the list: a client's, and not a monitor of this application.
func endable(now activity.Snapshot, x activity.Session) bool {
	return x.Client() && !x.Self && !now.IsMonitor(x)
}

func urgency(x activity.Session) int {
	switch {
	case x.Waits, len(x.BlockedBy) > 0:
		return 3
	case x.InTransactionIdle():
		return 2
	case x.State == activity.Active:
		return 1
	}
	return 0
}

func sessionState(x activity.Session) string {
	switch {
	case x.Hidden:
		return "(not visible)"
	case len(x.BlockedBy) > 0:
		return fmt.Sprintf("%s, waits for %d", x.State, x.BlockedBy[0])
	case x.Waits:
		return x.State + ", waits for a lock"
	}
	return x.State
}

// askAboutSession shows one session and the available actions.
func (b *Board) askAboutSession(c echo.Context, user *auth.User) error {
	pid, err := pidOf(c.QueryParam("pid"))
	if err != nil {
		return err
	}
	x, err := b.session(c.Request().Context(), pid)
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	return pages.Render(c, http.StatusOK, "session.html", map[string]any{"User": user, "Session": x, "PID": pid})
}

func pidOf(text string) (int, error) {
	pid, err := strconv.ParseInt(text, 10, 32)
	if err != nil || pid <= 0 {
		return 0, fault.New(fault.Invalid, "A session is named by its pid: choose one from the list.")
	}
	return int(pid), nil
}

// session looks up a session over the monitoring connection. It returns nil if the session has ended or is not in the
// list.
func (b *Board) session(ctx context.Context, pid int) (*activity.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	now, err := b.Monitor.Snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("find session %d: %w", pid, activity.Unanswered(err))
	}
	i := slices.IndexFunc(now.Sessions, func(x activity.Session) bool { return int(x.PID) == pid && endable(now, x) })
	if i < 0 {
		return nil, nil //nolint:nilnil // it is gone, which is no failure
	}
	return &now.Sessions[i], nil
}

// lastEnding returns the last action on a session while the page shows it, or nil.
func (b *Board) lastEnding() *action {
	if d := b.ended.Load(); d != nil && time.Since(d.At) < endedFor {
		return d
	}
	return nil
}

// endSession cancels a session's query, or terminates the session, over the monitoring connection.
func (b *Board) endSession(c echo.Context, user *auth.User) error {
	ctx := c.Request().Context()
	order, verb, err := orderOf(c)
	if err != nil {
		return err
	}
	x, err := b.session(ctx, int(order.PID))
	if err != nil {
		return err
	}
	if err := b.carryOut(context.WithoutCancel(ctx), user, order, verb, x); err != nil { // an action that was started is recorded
		return err
	}
	return c.Redirect(http.StatusSeeOther, Path+"#ended")
}

const notWhole = "The form is not whole. Choose the session from the list again."

// orderOf parses the form. The session must still be the one that was shown, for its pid may have been reused, and a query
// that is cancelled must be the one that was shown.
func orderOf(c echo.Context) (order activity.Order, verb string, err error) {
	pid, err := pidOf(c.FormValue("pid"))
	if err != nil {
		return order, "", err
	}
	order.PID = int32(pid)
	order.Started, err = time.Parse(time.RFC3339Nano, c.FormValue("started"))
	if err != nil {
		return order, "", fault.Wrap(fault.Invalid, err, notWhole)
	}
	switch c.FormValue("do") {
	case "cancel":
		order.Cancel, order.States = true, []string{activity.Active}
		if order.Since, err = time.Parse(time.RFC3339Nano, c.FormValue("since")); err != nil {
			return order, "", fault.Wrap(fault.Invalid, err, notWhole)
		}
		return order, "cancelled the query of", nil
	case "terminate":
		return order, "terminated", nil
	}
	return order, "", fault.New(fault.Invalid, "Choose to cancel the query, or to terminate the session.")
}

// carryOut executes the order, and records the result in the history and the log.
func (b *Board) carryOut(ctx context.Context, user *auth.User, order activity.Order, verb string, x *activity.Session) error {
	what, outcome := fmt.Sprintf("%s session %d", verb, order.PID), activity.Gone
	if x != nil {
		what += fmt.Sprintf(" of %s, user %s, from %s", cmp.Or(x.Application, "(no name)"), x.User, cmp.Or(x.ClientAddress(), "an unknown address"))
		var err error
		if outcome, err = b.Monitor.Signal(ctx, order); err != nil {
			return activity.Unanswered(err)
		}
	}
	done := action{At: time.Now(), Sentence: user.Username + " " + what}
	if outcome == activity.Cancelled || outcome == activity.Signalled {
		done.Unrecorded = b.record(ctx, user, fmt.Sprintf("Session %d", order.PID), web.Capitalized(what)+".")
	} else {
		done.Sentence = "Nothing was done: " + cmp.Or(whyNothing[outcome], string(outcome))
	}
	b.ended.Store(&done)
	b.Log.InfoContext(ctx, "a session was to be ended by hand", "by", user.Username, "what", what, "outcome", outcome)
	return nil
}

// whyNothing says why an action had no effect.
var whyNothing = map[activity.Outcome]string{
	activity.Gone:    "the session had ended by itself",
	activity.Changed: "the session is no longer as it was shown, or belongs to a superuser, whom this page leaves alone",
	activity.Refused: "the application’s role may not end that session; a role with pg_signal_backend may",
}
