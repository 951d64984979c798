package main

import (
	"strings"
	"testing"

	"ddtb/db/dbtest"
)

const (
	goodPassword = "tall-heron-42-lamp"
	newPassword  = "quiet-otter-17-rope"
)

func TestASuperuserIsAskedForTwiceAndWeakPasswordsAreRefused(t *testing.T) {
	t.Parallel()
	m, cfg := withDatabase(t)
	m.secrets = append(m.secrets, goodPassword, newPassword)
	made := m.run("ada\nada@example.org\n"+
		"short\nshort\nn\n"+ // too short
		"password\npassword\n\n"+ // too common
		goodPassword+"\n"+newPassword+"\n"+ // not the same
		goodPassword+"\n"+goodPassword+"\n", "createsuperuser")
	made.must(exitFine, "Username: ", "Email address", "Password: ", "Password (again): ",
		"too short", "too common", "The two passwords are not the same.", "Superuser ada was made.")
	m.run("ada\n Ada \n", "createsuperuser").must(exitFailed, "username is already taken", "Email address", "no answer")
	m.run("", "createsuperuser", "--username", "ada").must(exitFailed, `"ada" can't be had: That username is already taken.`)
	m.run("", "createsuperuser", "--username", "bad name").must(exitFailed, "Enter a valid username.")
	m.run("bad name!\nbob\nno mail\n\n"+goodPassword+"\n"+goodPassword+"\n", "createsuperuser").
		must(exitFine, "Enter a valid username.", "Enter a valid email address.", "Superuser bob was made.")
	m.run("", "createsuperuser").must(exitFailed, "no answer", "--noinput")
	mailed := m.run("", "createsuperuser", "--username", "joe", "--email", "nope")
	mailed.must(exitFailed, `"nope" can't be used`)
	if strings.Contains(mailed.out, "Password") {
		t.Errorf("a password is asked for before the address is refused:\n%s", mailed.out)
	}
	m.run("eve\n", "createsuperuser").must(exitFailed, "no answer")
	m.run(goodPassword+"\n"+goodPassword, "createsuperuser", "--username", "joe", "--email", "joe@example.org").
		must(exitFine, "Superuser joe was made.")
	var n int
	if err := dbtest.Control(t, cfg).QueryRow(t.Context(),
		"SELECT count(*) FROM auth_user WHERE is_superuser AND is_staff AND is_active").Scan(&n); err != nil || n != 3 {
		t.Errorf("%d superusers, %v", n, err)
	}
}

func TestWhoMakesASuperuserMayInsistOnAWeakPassword(t *testing.T) {
	t.Parallel()
	m, _ := withDatabase(t)
	m.run("admin\n\nadmin\nadmin\ny\n", "createsuperuser").
		must(exitFine, "too short", "Bypass password validation and create user anyway? [y/N]: ", "Superuser admin was made.")
	if at, _ := m.serving("runserver", "127.0.0.1:0").browser(t).login("admin", "admin"); at != "/admin/" {
		t.Errorf("the login leads to %s", at)
	}
}

func TestASuperuserIsMadeFromTheEnvironment(t *testing.T) {
	t.Parallel()
	m, _ := withDatabase(t)
	m.secrets = append(m.secrets, goodPassword)
	env := func(password string) []string {
		return []string{"DJANGO_SUPERUSER_USERNAME=ada", "DJANGO_SUPERUSER_EMAIL=ada@example.org", "DJANGO_SUPERUSER_PASSWORD=" + password}
	}
	m.run("", "createsuperuser", "--noinput").must(exitFailed, "--username or DJANGO_SUPERUSER_USERNAME, and DJANGO_SUPERUSER_PASSWORD")
	public := append(env("12345678"), "DDTB_SERVER_ADDR=0.0.0.0:8000")
	m.runWith(public, "", "createsuperuser", "--noinput").must(exitFailed, "common")
	proxied := append(env("12345678"), "DDTB_SERVER_BASE_URL=https://polls.example.org")
	m.runWith(proxied, "", "createsuperuser", "--noinput").must(exitFailed, "common")
	m.runWith([]string{"DJANGO_SUPERUSER_USERNAME=admin", "DJANGO_SUPERUSER_PASSWORD=admin"}, "", "createsuperuser", "--noinput").
		must(exitFine, "Superuser admin was made.", "the password is weak", "too short")
	m.runWith(env(goodPassword), "", "createsuperuser", "--noinput").must(exitFine, "Superuser ada was made.")
	m.runWith(env(goodPassword), "", "createsuperuser", "--noinput").must(exitFine, "There is a user ada already")
}

func TestAPasswordIsChanged(t *testing.T) {
	t.Parallel()
	m, cfg := withDatabase(t)
	m.secrets = append(m.secrets, goodPassword, newPassword)
	m.run("ada\n\n"+goodPassword+"\n"+goodPassword+"\n", "createsuperuser").must(exitFine)
	hash := func() (h string) {
		if err := dbtest.Control(t, cfg).QueryRow(t.Context(), "SELECT password FROM auth_user").Scan(&h); err != nil {
			t.Fatal(err)
		}
		return h
	}
	before := hash()
	m.run("", "changepassword", "bob").must(exitFailed, "there is no user \"bob\": `ddtb createsuperuser` makes one")
	m.run("ada\nada\n", "changepassword", "ada").must(exitFailed, "too short", "no answer")
	if hash() != before {
		t.Error("a refused password was set")
	}
	m.run(newPassword+"\n"+newPassword+"\n", "changepassword", "ada").must(exitFine, "The password of ada was changed")
	if hash() == before {
		t.Error("the password is still the old one")
	}
}
