package auth_test

import (
	"errors"
	"strings"
	"testing"

	"ddtb/app/auth"
)

// heron is a password, and its hashes as the programs make them that Django calls.
const heron = "tall-heron-42-lamp"

var heronHashes = map[string]string{
	"argon2 at Django's cost":         "argon2$argon2id$v=19$m=102400,t=2,p=8$c2Vhc2FsdHNlYXNhbHQ$0pxS8daOgIpMVwng7EhRrQ",
	"pbkdf2_sha256":                   "pbkdf2_sha256$1000$seasalt$RXo2lf7/oseIynfxesrn+DLBOVrxPSQR/dERjOrb5tA=",
	"pbkdf2_sha1":                     "pbkdf2_sha1$1000$seasalt$LjwpXee0EvVs7T+c+nwzLoeFuXE=",
	"scrypt of Django 4":              "scrypt$16384$seasalt$8$1$9tSPJic1viBo+lhP7N3O5LIC3gTccs1hTLLgMcFNy6ZKZoqz/lU1nsRiFJWtPMOsk3FXLe+w7eBq3tLa4zoPLg==",
	"scrypt of Django 5.1":            "scrypt$16384$seasalt$8$5$7JiyaTKoW2mC7JKAyXgVxx9e0xs19OEwpJbb1h9+PDtpLbO0TFh5lkROyWMuZf1QuBqJhJCsl0rZNp9t/g3X6A==",
	"bcrypt":                          "bcrypt$$2b$04$abcdefghijklmnopqrstuuNW1CqIFsJIl0ZkifrcAIFtz9wUKrhj6",
	"bcrypt_sha256":                   "bcrypt_sha256$$2b$04$abcdefghijklmnopqrstuuzBIzQg8K02Fd8agj/5zxGg.q20Z6nju",
	"bcrypt, of which 72 bytes count": "bcrypt$$2b$04$abcdefghijklmnopqrstuuIBTy0gOR0vzNT88q4lSQMrq64MVPt9u",
}

func TestEveryHasherOfDjangoIsChecked(t *testing.T) {
	s, d := open(t)
	for name, hash := range heronHashes {
		t.Run(name, func(t *testing.T) {
			password := heron
			if strings.Contains(name, "72") {
				password = strings.Repeat(heron, 5)
			}
			exec(t, d, `UPDATE auth_user SET password = $1`, hash)
			if _, err := s.Login(t.Context(), "ada", password, here, ""); err != nil {
				t.Errorf("the right password: %v", err)
			}
			if _, err := s.Login(t.Context(), "ada", password[1:], here, ""); !errors.Is(err, auth.ErrWrongLogin) {
				t.Errorf("a wrong password: %v", err)
			}
		})
	}
}

func TestTheLogSaysWhyALoginWasRefusedAndThePageDoesNot(t *testing.T) {
	s, d := open(t)
	for name, c := range map[string]struct{ set, user, reason string }{
		"no such user":               {"", "s3cr3t", "there is no such user"},
		"wrong password":             {"", "ada", "the password is wrong"},
		"not active":                 {"is_active = false", "ada", "not active"},
		"not staff":                  {"is_staff = false", "ada", "not staff"},
		"no password":                {"password = '!abc'", "ada", "has no password: give it one with `ddtb changepassword`"},
		"an unknown hasher":          {"password = 'md5$salt$abc'", "ada", `hashed with "md5", which can't be checked here`},
		"a hash that costs too much": {"password = 'bcrypt$$2b$31$abcdefghijklmnopqrstuuNW1CqIFsJIl0ZkifrcAIFtz9wUKrhj6'", "ada", "costs more than is allowed"},
		"not a hash":                 {"password = 'open sesame'", "ada", "in a form that can't be checked"},
	} {
		t.Run(name, func(t *testing.T) {
			exec(t, d, `UPDATE auth_user SET password = $1, is_active = true, is_staff = true`, heronHashes["pbkdf2_sha256"])
			if c.set != "" {
				exec(t, d, `UPDATE auth_user SET `+c.set)
			}
			_, err := s.Login(t.Context(), c.user, "wrong", name, "")
			username, reason := auth.RefusalReason(err)
			if !strings.Contains(reason, c.reason) || username != strings.ReplaceAll(c.user, "s3cr3t", "") {
				t.Errorf("for the log: %q, %q", username, reason)
			}
			if !errors.Is(err, auth.ErrWrongLogin) || err.Error() != auth.ErrWrongLogin.Error() {
				t.Errorf("for the person: %v", err)
			}
		})
	}
}
