package auth

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // pbkdf2_sha1, of old Django projects
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"
)

// The cost of a new password: 19 MiB and two passes, as OWASP recommends for argon2id.
const (
	memoryKiB = 19 << 10
	passes    = 2
	lanes     = 1
	saltSize  = 16
	keySize   = 32
)

// The maximum cost of a stored hash: other applications write the table too. Django's default is 100 MiB, 2 passes, 8
// lanes; its PBKDF2 has nearly a million and a half iterations.
const (
	maxMemoryKiB  = 256 << 10
	maxPasses     = 16
	maxLanes      = 16
	maxIterations = 10_000_000
	maxBcryptCost = 16
)

// MaxPassword is the maximum length of a password in bytes. A longer one is rejected without hashing.
const MaxPassword = 1024

// dummy is compared with the password of an unknown user.
var dummy = encode(make([]byte, saltSize), make([]byte, keySize))

// hash encodes the password like Django's Argon2PasswordHasher.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if err := h.enter(ctx, 0); err != nil { // a user who sets a password is signed in
		return "", err
	}
	defer h.leave()
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails: it ends the program instead
	return encode(salt, argon2.IDKey([]byte(password), salt, passes, memoryKiB, lanes, keySize)), nil
}

func encode(salt, key []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("argon2$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, memoryKiB, passes, lanes, b64.EncodeToString(salt), b64.EncodeToString(key))
}

// verify reports whether the password matches the encoded one. If there is no usable hash (no such user, an unknown
// kind of hash, or Django's mark for "no password"), it takes the same time and returns false.
func (h *hasher) verify(ctx context.Context, suspicion int, password, encoded string) (bool, error) {
	derive, key := parse(encoded)
	usable := derive != nil && len(password) <= MaxPassword
	if !usable {
		derive, key = parse(dummy)
		password = ""
	}
	if err := h.enter(ctx, suspicion); err != nil {
		return false, err
	}
	defer h.leave()
	return subtle.ConstantTimeCompare(derive(password), key) == 1 && usable, nil
}

// parsers parse Django's encodings, by the hash's first part. A parser returns a function that derives a key from a
// password, and the expected key. It returns nil if the hash is invalid or exceeds the limits.
var parsers = map[string]func(rest string) (derive func(string) []byte, key []byte){
	"argon2":        parseArgon2,
	"pbkdf2_sha256": func(rest string) (func(string) []byte, []byte) { return parsePBKDF2(sha256.New, rest) }, // Django's default
	"pbkdf2_sha1":   func(rest string) (func(string) []byte, []byte) { return parsePBKDF2(sha1.New, rest) },
	"scrypt":        parseScrypt,
	"bcrypt_sha256": func(rest string) (func(string) []byte, []byte) { return parseBcrypt(hexOfSHA256, rest) },
	"bcrypt":        func(rest string) (func(string) []byte, []byte) { return parseBcrypt(first72, rest) },
}

func parse(encoded string) (derive func(string) []byte, key []byte) {
	algorithm, rest, _ := strings.Cut(encoded, "$")
	if parser := parsers[algorithm]; parser != nil {
		return parser(rest)
	}
	return nil, nil
}

// whyNot returns, for the log, why no password, or not this one, matches the hash.
func whyNot(encoded string) string {
	if derive, _ := parse(encoded); derive != nil {
		return "the password is wrong"
	}
	algorithm, _, ok := strings.Cut(encoded, "$")
	switch {
	case encoded == "", strings.HasPrefix(encoded, "!"):
		return "the account has no password: give it one with `ddtb changepassword`"
	case ok && parsers[algorithm] != nil:
		return "the password hash (" + algorithm + ") is damaged, or costs more than is allowed here: give the account a new password with `ddtb changepassword`"
	case ok && len(algorithm) <= 40:
		return fmt.Sprintf("the password is hashed with %q, which can't be checked here: give the account a new one with `ddtb changepassword`", algorithm)
	}
	return "the password is stored in a form that can't be checked here: give the account a new one with `ddtb changepassword`"
}

func parseArgon2(rest string) (func(string) []byte, []byte) {
	var version, m, t, p int
	parts := strings.Split(rest, "$")
	if len(parts) != 5 || parts[0] != "argon2id" {
		return nil, nil
	}
	if n, err := fmt.Sscanf(parts[1]+" "+parts[2], "v=%d m=%d,t=%d,p=%d", &version, &m, &t, &p); n != 4 || err != nil {
		return nil, nil
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[3])
	key, err2 := base64.RawStdEncoding.DecodeString(parts[4])
	if err1 != nil || err2 != nil || len(key) < saltSize || version != argon2.Version ||
		m < 8*p || m > maxMemoryKiB || t < 1 || t > maxPasses || p < 1 || p > maxLanes {
		return nil, nil
	}
	return func(password string) []byte {
		return argon2.IDKey([]byte(password), salt, uint32(t), uint32(m), uint8(p), uint32(len(key)))
	}, key
}

func parsePBKDF2(newHash func() hash.Hash, rest string) (func(string) []byte, []byte) {
	parts := strings.Split(rest, "$")
	if len(parts) != 3 {
		return nil, nil
	}
	iterations, err1 := strconv.Atoi(parts[0])
	key, err2 := base64.StdEncoding.DecodeString(parts[2])
	if err1 != nil || err2 != nil || iterations < 1 || iterations > maxIterations || len(key) != newHash().Size() {
		return nil, nil
	}
	return func(password string) []byte {
		derived, _ := pbkdf2.Key(newHash, password, []byte(parts[1]), iterations, len(key)) // nil if FIPS mode rejects it as too short
		return derived
	}, key
}

// parseScrypt parses N$salt$r$p$key.
func parseScrypt(rest string) (func(string) []byte, []byte) {
	parts := strings.Split(rest, "$")
	if len(parts) != 5 {
		return nil, nil
	}
	n, err1 := strconv.Atoi(parts[0])
	r, err2 := strconv.Atoi(parts[2])
	p, err3 := strconv.Atoi(parts[3])
	key, err4 := base64.StdEncoding.DecodeString(parts[4])
	if err := errors.Join(err1, err2, err3, err4); err != nil || len(key) < keySize || len(key) > 128 || r < 1 || r > 32 || p < 1 || p > maxLanes ||
		n < 2 || n&(n-1) != 0 || n > maxMemoryKiB<<10/(128*r) {
		return nil, nil
	}
	return func(password string) []byte {
		derived, _ := scrypt.Key([]byte(password), []byte(parts[1]), n, r, p, len(key)) // the parameters are within its bounds
		return derived
	}, key
}

// parseBcrypt parses $2b$cost$salt-and-key; prepare transforms the password first. The key is the whole hash, because
// bcrypt does the comparison.
func parseBcrypt(prepare func(string) []byte, rest string) (func(string) []byte, []byte) {
	key := []byte(rest)
	cost, err := bcrypt.Cost(key)
	if err != nil || cost > maxBcryptCost || len(key) != 60 {
		return nil, nil
	}
	return func(password string) []byte {
		if bcrypt.CompareHashAndPassword(key, prepare(password)) != nil {
			return nil
		}
		return key
	}, key
}

func hexOfSHA256(password string) []byte {
	return fmt.Appendf(nil, "%x", sha256.Sum256([]byte(password)))
}

// first72 returns the bytes that bcrypt uses.
func first72(password string) []byte { return []byte(password[:min(len(password), 72)]) }
