package web

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"
)

const (
	urlencoded    = "application/x-www-form-urlencoded"
	multipartForm = "multipart/form-data"

	// maxFields limits the page: a field of two bytes in the form takes fifty in the page.
	maxFields = 2000

	againKey = "ddtb.again" // *again in echo's context
)

// secretNames are the fields, in lower case, that are never written into a page. A vote's token is not one of them: it
// makes the vote count only once.
var secretNames = map[string]bool{
	"password": true, "password1": true, "password2": true, "passwd": true, "secret": true,
	"old_password": true, "new_password1": true, "new_password2": true,
}

// IsSecret reports whether the input of that name is never written into a page.
func IsSecret(name string) bool { return secretNames[strings.ToLower(name)] }

// again is a form that failed for a temporary cause, for its error page to offer again.
type again struct {
	Action string  // always on this host
	Fields []field // in their original order
	Why    string  // why it can't be offered; then there are no fields
}

type field struct{ Name, Value string }

// Why a form can't be offered again.
const (
	whySecret = "What you sent holds a password, which is never written into a page."
	whyForm   = "What you sent can't be given back here as it was."
)

// KeepForms keeps the part of a posted form that the handler reads, so that the page of a temporary failure can offer
// to send it again. Place it inside the middleware that limits the body. It keeps that part in memory until the handler
// returns. A multipart form is not offered again, and the page says so: no form here is multipart.
func KeepForms(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		kind, _, err := mime.ParseMediaType(r.Header.Get(echo.HeaderContentType))
		if r.Method != http.MethodPost || err != nil || kind != urlencoded && kind != multipartForm || WantsJSON(c) {
			return next(c)
		}
		body := &keptBody{ReadCloser: r.Body}
		r.Body = body
		if err = next(c); err == nil || c.Response().Committed || !ProblemOf(err).passes() {
			return err
		}
		form := &again{Action: "/" + strings.TrimLeft(r.URL.RequestURI(), "/"), Why: whyForm}
		if kind == urlencoded {
			form.Fields, form.Why = body.fields()
		}
		c.Set(againKey, form)
		return err
	}
}

// keptBody keeps what was read from it.
type keptBody struct {
	io.ReadCloser
	kept bytes.Buffer
}

func (b *keptBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.kept.Write(p[:n])
	return n, err
}

// fields reads the rest of the form, which the handler may not have read, and parses it.
func (b *keptBody) fields() (fields []field, why string) {
	if _, err := io.Copy(io.Discard, b); err != nil {
		return nil, whyForm
	}
	for pair := range strings.SplitSeq(b.kept.String(), "&") { // url.ParseQuery would lose the order
		if pair == "" {
			continue
		}
		f, ok := parseField(pair)
		switch {
		case IsSecret(f.Name):
			return nil, whySecret
		case !ok || len(fields) == maxFields:
			why = whyForm
		default:
			fields = append(fields, f)
		}
	}
	if why != "" {
		return nil, why
	}
	return fields, ""
}

// parseField parses NAME=VALUE. ok means that a page would not change it.
func parseField(pair string) (f field, ok bool) {
	name, value, _ := strings.Cut(pair, "=")
	name, err1 := url.QueryUnescape(name)
	value, err2 := url.QueryUnescape(value)
	return field{name, value}, err1 == nil && err2 == nil && name != "" && IsText(name) && IsText(value)
}
