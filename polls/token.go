package polls

import (
	"crypto/rand"
	"encoding/hex"
)

// Token names one rendering of the form, so that the same vote from the same form counts once, however often it
// arrives. Another choice from that form is another vote, as in Django: it tells the two apart from a repetition.
// It is no proof of anything: who wants to vote twice loads the page twice.
type Token [16]byte

// newToken is one that no other form has.
func newToken() (t Token) {
	_, _ = rand.Read(t[:]) // which never fails
	return t
}

// String is the token as forms carry it.
func (t Token) String() string { return hex.EncodeToString(t[:]) }

// parseToken reads what String wrote, and nothing else.
func parseToken(text string) (t Token, ok bool) {
	if len(text) != hex.EncodedLen(len(t)) {
		return Token{}, false
	}
	if _, err := hex.Decode(t[:], []byte(text)); err != nil {
		return Token{}, false
	}
	return t, t != Token{}
}
