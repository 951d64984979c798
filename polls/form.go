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

// maxForm is the maximum size of a vote's body: the form has two short fields.
const maxForm = 64 << 10

// ballot is the content of a vote's form.
type ballot struct {
	choice int64
	token  Token // zero: none was sent, as by Django's form or curl
}

// The messages for a form that is not a valid vote.
const (
	noChoice = "You didn't select a choice."
	noToken  = "This form did not arrive as it was sent, so nothing was counted. Please choose again."
)

// readBallot parses the vote in the body; ?choice= in an address is not a vote. complaint is a message for a user whose
// body is not a valid vote. err means that the body can't be read or is too large.
func readBallot(r *http.Request) (b ballot, complaint string, err error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxForm+1))
	if err != nil {
		return ballot{}, "", fmt.Errorf("read the vote's form: %w", err)
	}
	if len(body) > maxForm {
		return ballot{}, "", fault.New(fault.TooLarge, "The form is larger than %d kB: a vote is one choice.", maxForm>>10)
	}
	b, complaint = parseBallot(r.Header.Get("Content-Type"), body)
	return b, complaint, nil
}

// parseBallot accepts exactly one field "choice" with an id, and at most one field "token". An invalid token is
// rejected: without its token, a repeated vote would count twice.
func parseBallot(contentType string, body []byte) (b ballot, complaint string) {
	form := formValues(contentType, body)
	if len(form["choice"]) != 1 {
		return ballot{}, noChoice
	}
	ok := false
	if b.choice, ok = web.ParseID(form["choice"][0]); !ok {
		return ballot{}, noChoice
	}
	if len(form["token"]) == 0 {
		return b, ""
	}
	if b.token, ok = parseToken(form["token"][0]); !ok || len(form["token"]) > 1 {
		return ballot{}, noToken
	}
	return b, ""
}

// formValues returns the values of a form in either encoding, without malformed ones.
func formValues(contentType string, body []byte) url.Values {
	kind, params, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil:
		return nil
	case kind == "application/x-www-form-urlencoded":
		values, _ := url.ParseQuery(string(body))
		return values
	case kind == "multipart/form-data":
		return multipartValues(multipart.NewReader(bytes.NewReader(body), params["boundary"]))
	}
	return nil
}

// multipartValues replaces http.Request.ParseMultipartForm, which writes uploaded files to disk.
func multipartValues(r *multipart.Reader) url.Values {
	values := url.Values{}
	for {
		part, err := r.NextPart()
		if err != nil {
			return values
		}
		value, err := io.ReadAll(part)
		if err == nil && part.FileName() == "" {
			values.Add(part.FormName(), string(value))
		}
	}
}
