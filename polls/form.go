package polls

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"

	"ddtb/app/fault"
	"ddtb/app/web"
)

// maxForm is how much of a vote's body is read: the form has one short field.
const maxForm = 64 << 10

// readChoice reads which choice was sent in the body; an address with ?choice= is no vote. That the body says
// nothing usable is no error; that it can't be read, or is too large, is.
func readChoice(r *http.Request) (id int64, ok bool, err error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxForm+1))
	if err != nil {
		return 0, false, fmt.Errorf("read the vote's form: %w", err)
	}
	if len(body) > maxForm {
		return 0, false, fault.New(fault.TooLarge, "The form is larger than %d kB: a vote is one choice.", maxForm>>10)
	}
	id, ok = parseChoice(r.Header.Get("Content-Type"), body)
	return id, ok, nil
}

// parseChoice is the id in the field "choice", if there is exactly one and it can be an id.
func parseChoice(contentType string, body []byte) (id int64, ok bool) {
	choices := formValues(contentType, body)
	if len(choices) != 1 {
		return 0, false
	}
	return web.ParseID(choices[0])
}

// formValues are the values of "choice" in a form of either encoding. What is malformed is left out.
func formValues(contentType string, body []byte) []string {
	kind, params, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil:
		return nil
	case kind == "application/x-www-form-urlencoded":
		values, _ := url.ParseQuery(string(body))
		return values["choice"]
	case kind == "multipart/form-data":
		return multipartValues(multipart.NewReader(bytes.NewReader(body), params["boundary"]))
	}
	return nil
}

// multipartValues does without http.Request.ParseMultipartForm, which writes files that were sent to the disk.
func multipartValues(r *multipart.Reader) (values []string) {
	for {
		part, err := r.NextPart()
		if err != nil {
			return values
		}
		value, err := io.ReadAll(part)
		if err == nil && part.FormName() == "choice" && part.FileName() == "" {
			values = append(values, string(value))
		}
	}
}
