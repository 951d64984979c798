package auth

import (
	_ "embed" // the common passwords
	"fmt"
	"regexp"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm" // Django stores usernames in NFKC, so that two that look alike are one
)

const minPassword = 8

// common.txt is from zxcvbn 4.4.2 by Dropbox: its 30,000 most common passwords without those that are too short
// anyway.
//
//go:embed common.txt
var commonText string

var common = sync.OnceValue(func() map[string]bool {
	set := make(map[string]bool)
	for line := range strings.Lines(commonText) {
		set[strings.TrimSuffix(line, "\n")] = true
	}
	return set
})

// ValidatePassword returns all problems of a password, under the rules of Django's four validators; none means that it
// is acceptable. It must not resemble its owner's username, names or email.
func ValidatePassword(password string, owner User) []string {
	var problems []string
	if attribute := resembles(password, owner); attribute != "" {
		problems = append(problems, fmt.Sprintf("The password is too similar to the %s.", attribute))
	}
	if utf8.RuneCountInString(password) < minPassword {
		problems = append(problems,
			fmt.Sprintf("This password is too short. It must contain at least %d characters.", minPassword))
	}
	if len(password) > MaxPassword {
		problems = append(problems,
			fmt.Sprintf("This password is too long. It must contain at most %d bytes.", MaxPassword))
	}
	if common()[strings.ToLower(strings.TrimSpace(password))] {
		problems = append(problems, "This password is too common.")
	}
	if password != "" && strings.TrimFunc(password, unicode.IsDigit) == "" {
		problems = append(problems, "This password is entirely numeric.")
	}
	return problems
}

// PasswordRules describes ValidatePassword's rules for users.
func PasswordRules() []string {
	return []string{
		"Your password can’t be too similar to your other personal information.",
		fmt.Sprintf("Your password must contain at least %d characters.", minPassword),
		"Your password can’t be a commonly used password.",
		"Your password can’t be entirely numeric.",
	}
}

var notWord = regexp.MustCompile(`[^\pL\pN_]+`)

// resembles returns the owner's attribute that the password resembles, in whole or in part.
func resembles(password string, owner User) string {
	if len(password) > MaxPassword {
		return "" // refused anyway; comparing it would only take time
	}
	password = strings.ToLower(password)
	for _, a := range []struct{ name, value string }{
		{"username", owner.Username},
		{"first name", owner.FirstName},
		{"last name", owner.LastName},
		{"email address", owner.Email},
	} {
		value := strings.ToLower(a.value)
		for _, part := range append(notWord.Split(value, -1), value) {
			if part != "" && similarity(password, part) >= 0.7 {
				return a.name
			}
		}
	}
	return ""
}

// similarity is difflib's quick_ratio: the share of characters that both have, in any order.
func similarity(a, b string) float64 {
	counts := map[rune]int{}
	for _, r := range b {
		counts[r]++
	}
	matches, length := 0, utf8.RuneCountInString(a)+utf8.RuneCountInString(b)
	for _, r := range a {
		if counts[r] > 0 {
			counts[r]--
			matches++
		}
	}
	return 2 * float64(matches) / float64(max(length, 1))
}

const maxUsername = 150

var usernameForm = regexp.MustCompile(`^[\pL\pN\pM_.@+-]+$`)

// NormalUsername returns the form in which a username is stored and looked up.
func NormalUsername(name string) string { return norm.NFKC.String(strings.TrimSpace(name)) }

// ValidateUsername returns the problem of a normalized username, or "".
func ValidateUsername(name string) string {
	switch {
	case name == "":
		return "This field is required."
	case utf8.RuneCountInString(name) > maxUsername:
		return fmt.Sprintf("Ensure this value has at most %d characters (it has %d).",
			maxUsername, utf8.RuneCountInString(name))
	case !usernameForm.MatchString(name):
		return "Enter a valid username. This value may contain only letters, numbers, and @/./+/-/_ characters."
	}
	return ""
}
