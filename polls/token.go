package polls

import (
	"crypto/rand"
	"encoding/hex"
)

// Token identifies one rendering of the form, so that the same vote from the same form counts once, however often it is
// submitted. A different choice from that form is a different vote, as in Django. A token proves nothing: a user can
// vote twice by loading the page twice.
type Token [16]byte

// newToken returns a unique token.
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
