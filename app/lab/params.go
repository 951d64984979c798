package lab

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"ddtb/app/fault"
	"ddtb/app/web"
	"ddtb/config"
	"ddtb/db"
)

// query reads the parameters of a test endpoint. The first one that is malformed, out of bounds or unknown becomes the
// error, with its bounds.
type query struct {
	values   url.Values
	known    []string
	err      error
	progress bool // the page of progress comes first
}

func newQuery(c echo.Context) *query {
	q := &query{
		// A person opened the address in a browser. A script's request has no page in between.
		progress: c.QueryParam(nowKey) == "" && web.WantsHTML(c) && c.Request().Header.Get("Sec-Fetch-Mode") == "navigate",
	}
	var err error
	if q.values, err = url.ParseQuery(c.QueryString()); err != nil {
		q.fail("The address can't be read: write its parameters as name=value, with & between them.")
	}
	q.values.Del(nowKey)
	return q
}

func (q *query) text(name string) string {
	q.known = append(q.known, name)
	return strings.TrimSpace(q.values.Get(name))
}

func (q *query) fail(format string, args ...any) {
	if q.err == nil {
		q.err = fault.New(fault.Invalid, format, args...)
	}
}

// number reads an integer from lo to hi.
func (q *query) number(name string, otherwise, lo, hi int) int {
	text := q.text(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < lo || n > hi {
		q.fail("%s=%s: give a whole number from %d to %d.", name, short(text), lo, hi)
		return otherwise
	}
	return n
}

// duration reads a Go duration ("10s") or a bare number of seconds, from lo to hi.
func (q *query) duration(name string, otherwise, lo, hi time.Duration) time.Duration {
	text := q.text(name)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if seconds, serr := strconv.ParseFloat(text, 64); serr == nil && seconds >= 0 && seconds < 1e9 {
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	if err != nil || d < lo || d > hi {
		q.fail("%s=%s: give a duration from %v to %v, such as 500ms or 10s.", name, short(text), lo, hi)
		return otherwise
	}
	return d
}

// withinOwn rejects a timeout longer than the live strategy's own, which ends the wait earlier.
func (q *query) withinOwn(timeout, own time.Duration) {
	if own > 0 && timeout > own {
		q.fail("timeout=%v: the current strategy gives up after %v. Give at most that, or raise its timeout in the configuration.", timeout, own)
	}
}

// choice reads one of the words.
func (q *query) choice(name, otherwise string, words ...string) string {
	text := q.text(name)
	if text == "" {
		return otherwise
	}
	if !slices.Contains(words, text) {
		q.fail("%s=%s: give one of %s.", name, short(text), strings.Join(words, ", "))
		return otherwise
	}
	return text
}

// end rejects unknown parameters: most are misspelled. It returns errProgress if the parameters are right, and a browser
// has to show the page of progress before the test runs.
func (q *query) end() error {
	for name, values := range q.values {
		if !slices.Contains(q.known, name) {
			q.fail("There is no parameter %s. There are %s.", short(name), strings.Join(q.known, ", "))
		}
		if len(values) > 1 {
			q.fail("%s is there %d times: give it once.", name, len(values))
		}
	}
	if q.err == nil && q.progress {
		return errProgress
	}
	return q.err
}

// short shortens quoted input to one line.
func short(text string) string {
	const most = 40
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return fmt.Sprintf("%q", text)
}

func specOf(cfg *config.Database) db.Spec {
	spec, _ := db.Lookup(cfg.Strategy)
	return spec
}

// setOwn changes a setting of cfg's strategy. The key is "" if the strategy has no such setting: nothing changes then.
func setOwn(cfg *config.Database, key, text string) {
	*cfg, _ = config.Edit(*cfg, map[string]string{key: text})
}

// private changes the configuration for a private instance, and reports whether one was requested.
func (q *query) private(cfg *config.Database, most int) bool {
	strategy := q.choice("strategy", "", db.Names()...)
	size := q.number("max_size", 0, 1, most)
	least := q.number("min_size", -1, 0, most)
	waiting := q.number("max_waiting", -1, 0, 10*most)
	if strategy == "" && size == 0 && least < 0 && waiting < 0 {
		return false
	}
	cfg.Strategy = cmp.Or(strategy, cfg.Strategy)
	if size > 0 {
		setOwn(cfg, specOf(cfg).SizeKey, strconv.Itoa(size))
	}
	if cfg.Pool.MaxSize != db.Auto {
		most = cfg.Pool.MaxSize
	}
	if least > most {
		q.fail("min_size=%d is more than max_size=%d.", least, most)
	}
	if least < 0 {
		least = min(cfg.Pool.MinSize, most)
	}
	cfg.Pool.MinSize = least
	if waiting >= 0 {
		cfg.Pool.MaxWaiting = waiting
	}
	cfg.ApplicationName += "-stress"
	return true
}
