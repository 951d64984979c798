package dashboard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/labstack/echo/v4"

	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/config"
	"ddtb/db"
)

const (
	switchTimeout = 5 * time.Second // for closing the old strategy's idle connections on the server
	recordTimeout = 3 * time.Second // for the history entry
)

// field is a setting that can be changed, as shown in the form.
type field struct {
	db.Setting

	Typed, Problem string
}

// ID returns the id of the input.
func (f field) ID() string { return "id_" + strings.ReplaceAll(f.Key, ".", "_") }

// Number reports whether the value is an integer.
func (f field) Number() bool { _, is := f.Value.(int); return is && !f.Auto }

// Check reports whether the value is a checkbox.
func (f field) Check() bool { _, is := f.Value.(bool); return is }

// group is the settings of one strategy.
type group struct {
	Strategy, Description string
	Fields                []field
}

const strategyKey = "strategy"

// ownSettings returns the settings of the strategy's own section. multiplex also uses the pool's, which are shown
// there.
func ownSettings(spec db.Spec, cfg config.Database) (own []db.Setting) {
	section := strings.ReplaceAll(spec.Name, "-", "_") + "."
	for _, x := range spec.Show(cfg) {
		if strings.HasPrefix(x.Key, section) {
			own = append(own, x)
		}
	}
	return own
}

// form is the control with its values.
type form struct {
	Strategy field
	Groups   []group
	Mistakes int
	Same     bool // no value was changed
	Kept     bool // typed before a login
}

// newForm fills the control with the typed values, and with the current settings for the rest.
func (b *Board) newForm(texts, problems map[string]string) *form {
	f, cfg := &form{Mistakes: len(problems)}, b.DB.Config()
	fill := func(x db.Setting) field {
		text, is := texts[x.Key]
		if !is {
			text = config.Text(cfg, x.Key)
		}
		return field{x, text, upper(problems[x.Key])}
	}
	f.Strategy = fill(db.Setting{Key: strategyKey, Choices: db.Names()})
	for _, spec := range db.Strategies() {
		filled := group{Strategy: spec.Name, Description: spec.Description}
		for _, x := range ownSettings(spec, cfg) {
			filled.Fields = append(filled.Fields, fill(x))
		}
		f.Groups = append(f.Groups, filled)
	}
	return f
}

// keys returns the keys of the control.
func keys() []string {
	all := []string{strategyKey}
	for _, spec := range db.Strategies() {
		for _, x := range ownSettings(spec, db.DefaultSettings()) {
			all = append(all, x.Key)
		}
	}
	return all
}

// typed returns the submitted values by key. A key that was not submitted keeps its value. The last value of a checkbox
// counts: the first, hidden one says that the checkbox was in the form.
func typed(sent url.Values) map[string]string {
	texts := map[string]string{}
	for _, key := range keys() {
		if values := sent[key]; len(values) > 0 {
			texts[key] = values[len(values)-1]
		}
	}
	return texts
}

// handSwitch is a switch made on the dashboard.
type handSwitch struct {
	At         time.Time
	By         string
	To         config.Database
	Changes    string
	Unrecorded string // why it is missing from the history; "": it is recorded
}

// Clock returns the time of the switch.
func (h handSwitch) Clock() string { return clock(h.At) }

// change handles the submitted control.
func (b *Board) change(c echo.Context) error {
	if _, err := c.FormParams(); err != nil {
		return fault.Wrap(fault.Invalid, err, "The form could not be read.")
	}
	texts := typed(c.Request().PostForm)
	ctx := c.Request().Context()
	user, err := b.whoSwitches(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("ask who switches the strategy: %w", unanswered(err))
	case user == nil || !user.Staff:
		return toLogin(c, texts)
	case !user.Superuser:
		return fault.New(fault.Forbidden, "Only a superuser may switch the strategy. Ask one.")
	}
	problems, changed := b.apply(ctx, user, texts)
	switch {
	case len(problems) > 0:
		return b.render(c, http.StatusOK, user, b.newForm(texts, problems))
	case !changed:
		same := b.newForm(nil, nil)
		same.Same = true
		return b.render(c, http.StatusOK, user, same)
	}
	return c.Redirect(http.StatusSeeOther, Path)
}

// whoSwitches identifies the user over a reserve, because the control is needed when no other connection is available.
// The reserve is not used for users who are known to lack the permission.
func (b *Board) whoSwitches(ctx context.Context) (user *auth.User, err error) {
	soon, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	user, err = auth.UserFrom(soon)
	if ctx.Err() != nil || err == nil && (user == nil || !user.Superuser) {
		return user, err
	}
	err = b.SwitchReserve(ctx, func(ctx context.Context, q db.Querier) error {
		user, err = auth.RecheckThrough(ctx, q)
		return err
	})
	return user, err
}

var errMistakes = errors.New("the form has mistakes")

// apply switches first and writes the history afterwards: the switch may be what makes writing possible.
func (b *Board) apply(
	ctx context.Context, user *auth.User, texts map[string]string,
) (problems map[string]string, changed bool) {
	b.switching.Lock()
	defer b.switching.Unlock()
	ctx = context.WithoutCancel(ctx) // the switch must be completed
	patience, cancel := context.WithTimeout(ctx, switchTimeout)
	defer cancel()
	before, after, err := b.Switch(patience, func(now config.Database) (after config.Database, err error) {
		if after, problems = config.Edit(now, texts); len(problems) > 0 {
			return now, errMistakes
		}
		return after, nil
	})
	switch {
	case len(problems) > 0:
		return problems, false
	case err != nil:
		return map[string]string{strategyKey: err.Error()}, false
	case before == after:
		return nil, false
	}
	b.feed.tell(false)
	h := handSwitch{At: time.Now(), By: user.Username, To: after, Changes: differences(before, after)}
	err = b.recordIn(ctx, user, "The strategy of database connections", "Switched "+h.Changes+", until the next restart or change of the file.")
	if err != nil {
		h.Unrecorded = inShort(err)
		b.Log.WarnContext(ctx, "the switch could not be written into the history", "by", user.Username, "error", err)
	}
	b.byHand.Store(&h)
	b.Log.InfoContext(ctx, "the database settings were switched by hand, until the next restart or change of the file",
		"by", user.Username, "changes", h.Changes)
	return nil, true
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

// differences lists the changed keys with their old and new values.
func differences(before, after config.Database) string {
	var all []string
	for _, key := range keys() {
		if from, to := config.Text(before, key), config.Text(after, key); from != to {
			all = append(all, fmt.Sprintf("%s from %s to %s", key, from, to))
		}
	}
	return strings.Join(all, ", ")
}

// recordIn writes a history entry over the monitoring connection.
func (b *Board) recordIn(ctx context.Context, user *auth.User, object, message string) error {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	return b.Server.Do(ctx, func(conn *pgx.Conn) error { return b.Record(ctx, conn, user, object, message) })
}

// lastSwitch returns the switch that is in effect, or nil.
func (b *Board) lastSwitch() *handSwitch {
	if h := b.byHand.Load(); h != nil && h.To == b.DB.Config() {
		return h
	}
	return nil
}
