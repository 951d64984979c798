package admin

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"ddtb/app/auth"
)

// message is shown on the next page: what was done to which object. It is stored in a cookie, signed with the secret of
// the visitor's session against forgery.
type message struct {
	Class  string // of the note: "good", "warn" or "bad"
	Before string
	Object string // the object's name, a link if there is a Path
	Path   string
	After  string
}

const messageCookie = "ddtb_messages"

func (r *request) notify(m message) {
	if len(m.Object) > 600 { // a cookie is limited to 4 KB
		m.Object = strings.ToValidUTF8(m.Object[:600], "") + "…"
	}
	body, _ := json.Marshal(m) // none of its types can fail
	b64 := base64.RawURLEncoding
	r.setMessage(b64.EncodeToString(body)+"."+b64.EncodeToString(r.sign(body)), 0)
}

func (r *request) setMessage(value string, age int) {
	r.SetCookie(&http.Cookie{
		Name: messageCookie, Value: value, Path: root, MaxAge: age,
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: auth.OverTLS(r.Request()),
	})
}

// takeMessage returns and removes the stored message, or returns nil.
func (r *request) takeMessage() *message {
	cookie, err := r.Cookie(messageCookie)
	if err != nil {
		return nil
	}
	r.setMessage("", -1)
	text, signature, _ := strings.Cut(cookie.Value, ".")
	body, err1 := base64.RawURLEncoding.DecodeString(text)
	mac, err2 := base64.RawURLEncoding.DecodeString(signature)
	m := new(message)
	if err1 != nil || err2 != nil || !hmac.Equal(mac, r.sign(body)) || json.Unmarshal(body, m) != nil {
		return nil
	}
	return m
}

func (r *request) sign(body []byte) []byte {
	mac := hmac.New(sha256.New, []byte(auth.Secret(r.ctx)))
	mac.Write(body)
	return mac.Sum(nil)
}
