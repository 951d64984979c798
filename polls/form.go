package polls

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
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
// body is not a valid vote. err means that the body did not arrive whole or is too large.
func readBallot(w http.ResponseWriter, r *http.Request) (b ballot, complaint string, err error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	err = errors.Join(r.ParseForm(), r.ParseMultipartForm(maxForm)) // a file is not written to disk: it can't be larger
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return ballot{}, "", fault.New(fault.TooLarge, "The form is larger than %d kB: a vote is one choice.", maxForm>>10)
	}
	if fault.KindOf(err) != fault.Internal {
		return ballot{}, "", err
	}
	b, complaint = parseBallot(r.PostForm) // malformed values are missing
	return b, complaint, nil
}

// parseBallot accepts exactly one field "choice" with an id, and at most one field "token". An invalid token is
// rejected: without its token, a repeated vote would count twice.
func parseBallot(form url.Values) (b ballot, complaint string) {
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

// Token identifies one rendering of the form, so that the same vote from the same form counts once, however often it is
// submitted. A different choice from that form is a different vote, as in Django. A token proves nothing: a user can
// vote twice by loading the page twice.
type Token [16]byte

func newToken() (t Token) {
	_, _ = rand.Read(t[:]) // never fails
	return t
}

// String returns the token as in forms.
func (t Token) String() string { return hex.EncodeToString(t[:]) }

// parseToken parses exactly the output of String.
func parseToken(text string) (t Token, ok bool) {
	if len(text) != hex.EncodedLen(len(t)) {
		return Token{}, false
	}
	if _, err := hex.Decode(t[:], []byte(text)); err != nil {
		return Token{}, false
	}
	return t, t != Token{}
}
