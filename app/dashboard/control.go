package dashboard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/app/auth"
	"ddtb/app/web"
	"ddtb/config"
	"ddtb/db"
)

const switchTimeout = 5 * time.Second // for closing the old strategy's idle connections on the server

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
		return field{x, text, web.Capitalized(problems[x.Key])}
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

// change switches the strategy as the submitted control says.
func (b *Board) change(c echo.Context, user *auth.User) error {
	texts := typed(c.Request().PostForm)
	problems, changed := b.apply(c.Request().Context(), user, texts)
	switch {
	case len(problems) > 0:
		return b.render(c, user, b.newForm(texts, problems))
	case !changed:
		same := b.newForm(nil, nil)
		same.Same = true
		return b.render(c, user, same)
	}
	return c.Redirect(http.StatusSeeOther, Path)
}

var errMistakes = errors.New("the form has mistakes")

// apply switches first and writes the history afterwards: the switch may be what makes writing possible.
func (b *Board) apply(
	ctx context.Context, user *auth.User, texts map[string]string,
) (problems map[string]string, changed bool) {
	b.switching.Lock()
	defer b.switching.Unlock()
	ctx = context.WithoutCancel(ctx) // the switch must be completed
	limited, cancel := context.WithTimeout(ctx, switchTimeout)
	defer cancel()
	before, after, err := b.Switch(limited, func(now config.Database) (after config.Database, err error) {
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
	b.feed.publish()
	changes := differences(before, after)
	done := action{At: time.Now(), Sentence: user.Username + " switched " + changes}
	done.Unrecorded = b.record(ctx, user, "The strategy of database connections", "Switched "+changes+", until the next restart or change of the file.")
	b.switched.Store(&switched{done, after})
	b.Log.InfoContext(ctx, "the database settings were switched by hand, until the next restart or change of the file",
		"by", user.Username, "changes", changes)
	return nil, true
}

// switched is the last switch made here.
type switched struct {
	action
	to config.Database
}

// lastSwitch returns the switch that is in effect, or nil.
func (b *Board) lastSwitch() *action {
	if s := b.switched.Load(); s != nil && s.to == b.DB.Config() {
		return &s.action
	}
	return nil
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
