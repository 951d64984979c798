package auth_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"ddtb/app/auth"
	"ddtb/app/fault"
	"ddtb/config"
	"ddtb/db"
	"ddtb/db/dbtest"
)

func TestMain(m *testing.M) { dbtest.Run(m) }

const (
	here  = "192.0.2.1"
	there = "198.51.100.7"
	good  = "correct horse battery"
)

// open is a service with the superuser "ada".
func open(t *testing.T) (*auth.Service, *db.DB) {
	t.Helper()
	d := dbtest.Open(t)
	s := auth.New(d, config.Admin{SessionAge: time.Hour}, nil)
	if _, err := s.CreateSuperuser(t.Context(), "ada", "ada@example.org", good, false); err != nil {
		t.Fatal(err)
	}
	return s, d
}

func login(t *testing.T, s *auth.Service, password string) auth.Session {
	t.Helper()
	session, err := s.Login(t.Context(), "ada", password, here, "")
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func exec(t *testing.T, d *db.DB, sql string, args ...any) {
	t.Helper()
	if _, err := d.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func TestASuperuserIsCreatedWithDjangosEncodingAndMayDoEverything(t *testing.T) {
	s, d := open(t)
	var hash string
	if err := d.QueryRow(t.Context(), `SELECT password FROM auth_user`).Scan(&hash); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(hash, "argon2$argon2id$v=19$m=19456,t=2,p=1$") || len(hash) > 128 {
		t.Errorf("got %q", hash)
	}
	u, err := s.UserByName(t.Context(), "ada")
	if err != nil || !u.Superuser || !u.Staff || !u.Can("polls.add_question") {
		t.Errorf("got %+v, %v", u, err)
	}
}

func TestASuperuserIsRefusedForAWeakPasswordABadNameOrOneThatIsTaken(t *testing.T) {
	s, _ := open(t)
	for _, c := range []struct {
		name, email, password string
		kind                  fault.Kind
		says                  string
	}{
		{"bob", "", "sh0rt", fault.Invalid, "at least 8 characters"},
		{"bob", "", "password123", fault.Invalid, "too common"},
		{"bob", "", "8462015973", fault.Invalid, "entirely numeric"},
		{"bobsmith", "", "bobsmith1", fault.Invalid, "too similar to the username"},
		{"bob", "robertson@example.org", "robertson!", fault.Invalid, "too similar to the email address"},
		{"bob", "", strings.Repeat("x", 1025), fault.Invalid, "at most 1024 bytes"},
		{"", "", good, fault.Invalid, "required"},
		{"bob smith", "", good, fault.Invalid, "valid username"},
		{"bob\x00", "", good, fault.Invalid, "valid username"},
		{strings.Repeat("b", 151), "", good, fault.Invalid, "at most 150"},
		{"bob", "nonsense", good, fault.Invalid, "valid email"},
		{"ada", "", good, fault.Conflict, "taken"},
		{"ａｄａ", "", good, fault.Conflict, "taken"}, // NFKC makes it "ada"
	} {
		_, err := s.CreateSuperuser(t.Context(), c.name, c.email, c.password, false)
		if fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q %q: got %v", c.name, c.email, err)
		}
		if err != nil && strings.Contains(err.Error(), c.password) {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestAFailedLoginDoesNotRevealWhichPartWasWrong(t *testing.T) {
	s, d := open(t)
	exec(t, d, `INSERT INTO auth_user (username, password, is_superuser, is_staff, is_active, first_name, last_name, email, date_joined)
		SELECT n, password, false, n <> 'visitor', n <> 'gone', '', '', '', now() FROM auth_user, unnest(ARRAY['visitor', 'gone']) n`)
	exec(t, d, `INSERT INTO auth_user (username, password, is_superuser, is_staff, is_active, first_name, last_name, email, date_joined)
		VALUES ('unusable', '!', false, true, true, '', '', '', now()), ('odd', 'md5$x$y', false, true, true, '', '', '', now())`)
	for _, c := range [][2]string{
		{"ada", "wrong"},
		{"nobody", good},
		{"visitor", good},
		{"gone", good},
		{"unusable", ""},
		{"unusable", good},
		{"odd", good},
		{"", ""},
		{"ada", ""},
		{"ada\x00", good},
		{"ADA", good},
		{"\xff", good},
		{"ada", good + "\x00"},
		{strings.Repeat("a", 100_000), good},
		{"ada", strings.Repeat("a", 100_000)},
		{"' OR 1=1 --", good},
	} {
		session, err := s.Login(t.Context(), c[0], c[1], here+c[0], "")
		if !errors.Is(err, auth.ErrWrongLogin) || session.Secret != "" {
			t.Errorf("%.20q: got %v", c[0], err)
		}
	}
}

func TestDjangosOwnHashesSignIn(t *testing.T) {
	s, d := open(t)
	for name, hash := range map[string]string{
		"pbkdf2_sha256": "pbkdf2_sha256$1000$saltsaltsalt$GacV8oEzUl3KM0Mwey9yrMcTPKpkL4jXrFpbKB8oOnI=",
	} {
		exec(t, d, `UPDATE auth_user SET password = $1`, hash)
		if _, err := s.Login(t.Context(), "ada", good, here, ""); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.Login(t.Context(), "ada", good+"x", here, ""); !errors.Is(err, auth.ErrWrongLogin) {
			t.Errorf("%s: a wrong password: %v", name, err)
		}
	}
}

func TestTheTableOfSessionsDoesNotHaveTheSecret(t *testing.T) {
	s, d := open(t)
	secret := login(t, s, good).Secret
	var row string
	if err := d.QueryRow(t.Context(), `SELECT s::text || encode(secret_hash, 'base64') FROM ddtb_session s`).Scan(&row); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(row, secret) || len(secret) < 43 {
		t.Errorf("the row %s has the secret %s", row, secret)
	}
}

func TestLoginMakesANewSecretAndEndsTheOldSession(t *testing.T) {
	s, d := open(t)
	first := login(t, s, good)
	second, err := s.Login(t.Context(), "ada", good, here, first.Secret)
	if err != nil || second.Secret == first.Secret {
		t.Fatalf("got %v, %v", second, err)
	}
	if who(t, s, first.Secret) != nil || who(t, s, second.Secret) == nil {
		t.Error("the old session lives, or the new one does not")
	}
	var sessions int
	if err := d.QueryRow(t.Context(), `SELECT count(*) FROM ddtb_session`).Scan(&sessions); err != nil || sessions != 1 {
		t.Errorf("%d sessions, %v", sessions, err)
	}
}

func TestASessionEndsAtOnceOnThisProcess(t *testing.T) {
	for how, end := range map[string]func(*testing.T, *auth.Service, *db.DB, string){
		"by logout": func(t *testing.T, s *auth.Service, _ *db.DB, secret string) {
			if err := s.Logout(t.Context(), secret); err != nil {
				t.Fatal(err)
			}
		},
		"by a password set for the user": func(t *testing.T, s *auth.Service, _ *db.DB, _ string) {
			if err := s.SetPassword(t.Context(), "ada", "another long password"); err != nil {
				t.Fatal(err)
			}
		},
		"by the user's own change of password": func(t *testing.T, s *auth.Service, _ *db.DB, secret string) {
			session, err := s.ChangePassword(t.Context(), who(t, s, secret), good, "another long password", here)
			if err != nil {
				t.Fatal(err)
			}
			if who(t, s, session.Secret) == nil {
				t.Error("the new session does not work")
			}
		},
		"by a password changed elsewhere": func(t *testing.T, s *auth.Service, d *db.DB, _ string) {
			exec(t, d, `UPDATE auth_user SET password = 'argon2$changed by Django'`)
			s.Forget()
		},
		"by deactivation": func(t *testing.T, s *auth.Service, d *db.DB, _ string) {
			exec(t, d, `UPDATE auth_user SET is_active = false`)
			s.Forget()
		},
		"by its age": func(t *testing.T, s *auth.Service, d *db.DB, _ string) {
			exec(t, d, `UPDATE ddtb_session SET expires = now()`)
			s.Forget()
		},
		"with its user": func(t *testing.T, s *auth.Service, d *db.DB, _ string) {
			exec(t, d, `DELETE FROM auth_user`)
			s.Forget()
		},
	} {
		t.Run(how, func(t *testing.T) {
			s, d := open(t)
			secret := login(t, s, good).Secret
			if who(t, s, secret) == nil {
				t.Fatal("not signed in")
			}
			end(t, s, d, secret)
			if u := who(t, s, secret); u != nil {
				t.Errorf("still %s", u.Username)
			}
		})
	}
}

func TestTheOldPasswordIsAskedForAndTheNewOneMustBeGood(t *testing.T) {
	s, _ := open(t)
	u := who(t, s, login(t, s, good).Secret)
	if _, err := s.ChangePassword(t.Context(), u, "wrong", "another long password", here); !errors.Is(err, auth.ErrWrongPassword) {
		t.Errorf("a wrong old password: %v", err)
	}
	if _, err := s.ChangePassword(t.Context(), u, good, "short", here); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a short new one: %v", err)
	}
	login(t, s, good)
}

func TestFailuresSlowDownTheirAddressAndNotTheOwnerElsewhere(t *testing.T) {
	s, _ := open(t)
	for range 5 {
		if _, err := s.Login(t.Context(), "ada", "wrong", here, ""); !errors.Is(err, auth.ErrWrongLogin) {
			t.Fatal(err)
		}
	}
	_, err := s.Login(t.Context(), "ada", good, here, "")
	slow, ok := errors.AsType[*fault.Error](err)
	if !ok || slow.Kind != fault.TooManyTries || slow.RetryAfter <= 0 || slow.RetryAfter > 5*time.Minute {
		t.Errorf("the sixth from here: %v", err)
	}
	if _, err := s.Login(t.Context(), "ada", good, there, ""); err != nil {
		t.Errorf("the owner elsewhere: %v", err)
	}
	if _, err := s.Login(t.Context(), "bob", "wrong", here, ""); !errors.Is(err, auth.ErrWrongLogin) {
		t.Errorf("another name from here: %v", err)
	}
}

func TestPermissionsComeFromTheUserAndFromGroups(t *testing.T) {
	s, d := open(t)
	exec(t, d, `UPDATE auth_user SET is_superuser = false`)
	exec(t, d, `INSERT INTO auth_group (name) VALUES ('editors')`)
	exec(t, d, `INSERT INTO auth_user_groups (user_id, group_id) SELECT u.id, g.id FROM auth_user u, auth_group g`)
	exec(t, d, `INSERT INTO auth_group_permissions (group_id, permission_id)
		SELECT g.id, p.id FROM auth_group g, auth_permission p WHERE codename = 'change_question'`)
	exec(t, d, `INSERT INTO auth_user_user_permissions (user_id, permission_id)
		SELECT u.id, p.id FROM auth_user u, auth_permission p WHERE codename = 'view_choice'`)
	u, err := s.UserByName(t.Context(), "ada")
	if err != nil {
		t.Fatal(err)
	}
	for permission, want := range map[string]bool{
		"polls.change_question": true, "polls.view_choice": true, "polls.delete_question": false, "auth.change_user": false, "": false,
	} {
		if u.Can(permission) != want {
			t.Errorf("%q: got %v", permission, !want)
		}
	}
	if u.CanAll([]string{"polls.change_question", "polls.add_choice"}) || !u.CanAll([]string{"polls.view_choice"}) {
		t.Error("CanAll")
	}
}

func TestALoginThatCanNotSucceedIsHashedAllTheSame(t *testing.T) {
	s, d := open(t)
	exec(t, d, `UPDATE auth_user SET is_active = false`)
	for _, name := range []string{"ada", "nobody", "\x00"} {
		entered, leave := auth.OccupyHasher(s)
		done := make(chan error)
		go func() {
			_, err := s.Login(t.Context(), name, good, here, "")
			done <- err
		}()
		select {
		case <-entered:
			leave()
			if err := <-done; !errors.Is(err, auth.ErrWrongLogin) {
				t.Errorf("%q: %v", name, err)
			}
		case err := <-done:
			t.Fatalf("%q is answered without hashing: %v", name, err)
		}
	}
}

func TestNoLeaseIsHeldWhileAPasswordIsHashed(t *testing.T) {
	cfg := dbtest.Config(t)
	cfg.Pool.MaxSize, cfg.Pool.Hold = 1, db.HoldRequest
	d, err := db.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(context.WithoutCancel(t.Context()))
	s := auth.New(d, config.Admin{SessionAge: time.Hour}, nil)
	if _, err := s.CreateSuperuser(t.Context(), "ada", "", good, false); err != nil {
		t.Fatal(err)
	}
	entered, leave := auth.OccupyHasher(s)
	done := make(chan error)
	go func() {
		ctx, end := d.Begin(t.Context())
		defer end()
		_, err := s.Login(ctx, "ada", good, here, "")
		done <- err
	}()
	<-entered // the login waits for its turn to hash, after its first query
	if err := d.QueryRow(t.Context(), `SELECT 1`).Scan(new(int)); err != nil {
		t.Errorf("the only lease is not free: %v", err)
	}
	leave()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
