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
	switchTimeout = 5 * time.Second // for the idle connections of the old strategy to be closed on the server
	recordTimeout = 3 * time.Second // for the entry in the history
)

// field is one of the settings that can be switched, as the form shows it.
type field struct {
	db.Setting

	Typed, Problem string
}

// ID is that of the input.
func (f field) ID() string { return "id_" + strings.ReplaceAll(f.Key, ".", "_") }

// Number reports whether the value is a whole number.
func (f field) Number() bool { _, is := f.Value.(int); return is && !f.Auto }

// Check reports whether the value is a checkbox.
func (f field) Check() bool { _, is := f.Value.(bool); return is }

// group is the settings of one strategy.
type group struct {
	Strategy, Description string
	Fields                []field
}

const strategyKey = "strategy"

// ownSettings are those of the strategy's own section: multiplex has the pool's as well, which are shown there.
func ownSettings(spec db.Spec, cfg config.Database) (own []db.Setting) {
	section := strings.ReplaceAll(spec.Name, "-", "_") + "."
	for _, x := range spec.Show(cfg) {
		if strings.HasPrefix(x.Key, section) {
			own = append(own, x)
		}
	}
	return own
}

// form is the control, filled in.
type form struct {
	Strategy field
	Groups   []group
	Mistakes int
	Same     bool // nothing was changed
	Kept     bool // from before a login
}

// newForm fills the control with what was typed, and for the rest with what is in force.
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

// keys are those of the control.
func keys() []string {
	all := []string{strategyKey}
	for _, spec := range db.Strategies() {
		for _, x := range ownSettings(spec, db.DefaultSettings()) {
			all = append(all, x.Key)
		}
	}
	return all
}

// typed are the keys of the control as they were sent; what was not sent stays. Of a checkbox that is checked the last
// value counts: the first says that it was there.
func typed(sent url.Values) map[string]string {
	texts := map[string]string{}
	for _, key := range keys() {
		if values := sent[key]; len(values) > 0 {
			texts[key] = values[len(values)-1]
		}
	}
	return texts
}

// handSwitch is a switch that was made here.
type handSwitch struct {
	At         time.Time
	By         string
	To         config.Database
	Changes    string
	Unrecorded string // why it is not in the history; "": it is
}

// Clock is when.
func (h handSwitch) Clock() string { return clock(h.At) }

// change answers the control.
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

// whoSwitches is who sent the control, asked over a reserve: the control is needed when no other connection can be had.
// It is left alone when it is known that they may not.
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

// apply switches first and writes the history afterwards: the switch may be what makes that possible.
func (b *Board) apply(
	ctx context.Context, user *auth.User, texts map[string]string,
) (problems map[string]string, changed bool) {
	b.switching.Lock()
	defer b.switching.Unlock()
	ctx = context.WithoutCancel(ctx) // half a switch helps nobody
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

// inShort is what a page may say of an error: its text can name a role, a database or a host.
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

// differences tells each key that was changed, from what to what.
func differences(before, after config.Database) string {
	var all []string
	for _, key := range keys() {
		if from, to := config.Text(before, key), config.Text(after, key); from != to {
			all = append(all, fmt.Sprintf("%s from %s to %s", key, from, to))
		}
	}
	return strings.Join(all, ", ")
}

// recordIn writes an entry of the history over the monitoring connection.
func (b *Board) recordIn(ctx context.Context, user *auth.User, object, message string) error {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	return b.Server.Do(ctx, func(conn *pgx.Conn) error { return b.Record(ctx, conn, user, object, message) })
}

// lastSwitch is the switch that is in force, or nil.
func (b *Board) lastSwitch() *handSwitch {
	if h := b.byHand.Load(); h != nil && h.To == b.DB.Config() {
		return h
	}
	return nil
}
