package web

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/labstack/echo/v4"
)

const (
	urlencoded    = "application/x-www-form-urlencoded"
	multipartForm = "multipart/form-data"

	// maxFields bounds the page: a field of two bytes makes fifty of it.
	maxFields = 2000

	againKey = "ddtb.again" // *again in echo's context
)

// secretNames are fields that are never written into a page, in lower case. The token of a vote is none of them: the
// form counts once because it comes along.
var secretNames = map[string]bool{
	"password": true, "password1": true, "password2": true, "passwd": true, "secret": true,
	"old_password": true, "new_password1": true, "new_password2": true,
}

// again is a form that failed for a cause that passes, as its page offers it once more.
type again struct {
	Action  string // on this host, always
	Enctype string
	Fields  []field // in the order in which they came
	Why     string  // why it can't be offered; then there are no fields
}

type field struct{ Name, Value string }

// Why a form is not offered again.
const (
	whySecret = "What you sent holds a password, which is never written into a page."
	whyFile   = "What you sent holds a file, which a page can't give back."
	whyForm   = "What you sent can't be given back here as it was."
)

// KeepForms keeps what is read of a form that is posted, so that the page of a failure that passes can offer to send it again. It
// belongs within the middleware that limits the body, and costs what the handler reads, until the handler is done.
func KeepForms(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		kind, params, err := mime.ParseMediaType(r.Header.Get(echo.HeaderContentType))
		if r.Method != http.MethodPost || err != nil || kind != urlencoded && kind != multipartForm || WantsJSON(c) {
			return next(c)
		}
		body := &keptBody{ReadCloser: r.Body}
		r.Body = body
		if err = next(c); err == nil || c.Response().Committed || !ProblemOf(err).passes() {
			return err
		}
		fields, why := body.fields(kind, params["boundary"])
		c.Set(againKey, &again{"/" + strings.TrimLeft(r.URL.RequestURI(), "/"), kind, fields, why})
		return err
	}
}

// keptBody remembers what was read of it.
type keptBody struct {
	io.ReadCloser
	kept bytes.Buffer
}

func (b *keptBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.kept.Write(p[:n])
	return n, err
}

// fields reads the rest of the form, which the handler may not have come to, and takes it apart.
func (b *keptBody) fields(kind, boundary string) (fields []field, why string) {
	if _, err := io.Copy(io.Discard, b); err != nil {
		return nil, whyForm
	}
	switch {
	case kind == urlencoded:
		fields, why = urlencodedFields(b.kept.String())
	case !bytes.Contains(b.kept.Bytes(), []byte("--"+boundary+"--")): // cut off, which the reader may take for the end
		return nil, whyForm
	default:
		fields, why = multipartFields(multipart.NewReader(&b.kept, boundary))
	}
	if why == "" {
		why = whyNot(fields)
	}
	if why != "" {
		return nil, why
	}
	return fields, ""
}

// urlencodedFields is url.ParseQuery, but keeps the order.
func urlencodedFields(body string) (fields []field, why string) {
	for pair := range strings.SplitSeq(body, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, errName := url.QueryUnescape(name)
		value, errValue := url.QueryUnescape(value)
		if errName != nil || errValue != nil || len(fields) == maxFields {
			return nil, whyForm
		}
		fields = append(fields, field{name, value})
	}
	return fields, ""
}

func multipartFields(r *multipart.Reader) (fields []field, why string) {
	for {
		part, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return fields, ""
		}
		if err != nil || len(fields) == maxFields {
			return nil, whyForm
		}
		if part.FileName() != "" {
			return nil, whyFile
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return nil, whyForm
		}
		fields = append(fields, field{part.FormName(), string(value)})
	}
}

// whyNot finds what must not be in a page, or would come out of it as something else.
func whyNot(fields []field) string {
	why := ""
	for _, f := range fields {
		text := f.Name + f.Value
		switch {
		case secretNames[strings.ToLower(f.Name)]:
			return whySecret
		case f.Name == "" || !utf8.ValidString(text) || strings.ContainsRune(text, 0):
			why = whyForm
		}
	}
	return why
}
