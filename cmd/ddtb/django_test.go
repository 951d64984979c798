package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ddtb/config"
	"ddtb/db/dbtest"
)

// python has Django and psycopg2: Debian's python3-django, python3-psycopg2 and python3-argon2.
const python = "/usr/bin/python3"

// django is a project of a real Django on a database.
type django struct {
	*testing.T
	dir     string
	cfg     config.Database
	auto    string // the class of ids: AutoField or BigAutoField
	hashers string // the first one hashes, the others are checked
}

// newDjango copies the project, and writes its migration as a user would.
func newDjango(t *testing.T, cfg config.Database, auto string) *django {
	t.Helper()
	d := &django{t, t.TempDir(), cfg, auto, "PBKDF2,Argon2"}
	if err := os.CopyFS(d.dir, os.DirFS("testdata/django")); err != nil {
		t.Fatal(err)
	}
	d.manage("makemigrations", "polls")
	return d
}

// manage runs manage.py, which must succeed.
func (d *django) manage(args ...string) string {
	d.Helper()
	out, err := d.python(append([]string{"manage.py"}, args...)...)
	if err != nil {
		d.Fatalf("manage.py %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// shell runs a line of Python in the project.
func (d *django) shell(line string) string {
	d.Helper()
	return strings.TrimSpace(d.manage("shell", "-c", line))
}

func (d *django) python(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(d.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, python, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = d.dir, &out, &out
	cmd.Env = []string{
		"PGDATABASE=" + d.cfg.Name, "PGUSER=" + d.cfg.User, "PGPASSWORD=" + d.cfg.Password.Reveal(), "PGHOST=" + d.cfg.Host,
		"PGPORT=" + strconv.Itoa(d.cfg.Port), "AUTO_FIELD=" + d.auto, "HASHERS=" + d.hashers, "LANG=C.UTF-8",
	}
	err := cmd.Run()
	return out.String(), err
}

// edit replaces text in the project's models, and migrates.
func (d *django) edit(old, replacement string) {
	d.Helper()
	path := filepath.Join(d.dir, "polls", "models.py")
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), old) {
		d.Fatalf("no %q in %s: %v", old, path, err)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), old, replacement)), 0o600); err != nil {
		d.Fatal(err)
	}
	d.manage("makemigrations", "polls")
	d.manage("migrate")
}

// empty takes ddtb's tables out of the database.
func empty(t *testing.T, cfg config.Database) *pgx.Conn {
	t.Helper()
	control := dbtest.Control(t, cfg)
	run(t, control, "DROP OWNED BY ddtb_owner CASCADE")
	return control
}

func run(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// scanned is the one value of a query.
func scanned[T comparable](t *testing.T, conn *pgx.Conn, sql string) (v T) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// browser keeps its cookies.
type browser struct {
	*testing.T
	client *http.Client
	url    string
}

func (p *process) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, &http.Client{Jar: jar}, p.url}
}

// get returns the page after redirects, and its path.
func (b *browser) get(path string) (at, body string) {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, b.url+path, nil)
	if err != nil {
		b.Fatal(err)
	}
	return b.do(req)
}

func (b *browser) post(path string, form url.Values) (at, body string) {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, b.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(req)
}

func (b *browser) do(req *http.Request) (at, body string) {
	b.Helper()
	resp, err := b.client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		b.Errorf("%s %s: %s\n%s", req.Method, req.URL, resp.Status, text)
	}
	return resp.Request.URL.Path, string(text)
}

func (b *browser) login(name, password string) (at, body string) {
	b.Helper()
	return b.post("/admin/login/", url.Values{"username": {name}, "password": {password}})
}

// change asks for a change that is refused. Unlike a page, it asks the database whose session it is.
func (b *browser) change() {
	b.Helper()
	resp, err := b.client.PostForm(b.url+"/admin/polls/question/add/", nil) //nolint:noctx // the client has a deadline
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusForbidden {
		b.Errorf("a change without a session: %s", resp.Status)
	}
}

// mustServe goes through what people do: sign in, add a question with a choice, see it, vote.
func mustServe(t *testing.T, p *process, name, password, text string) {
	t.Helper()
	b := p.browser(t)
	if at, body := b.login(name, password); at != "/admin/" {
		t.Fatalf("%s could not sign in, and is at %s:\n%s", name, at, body)
	}
	at, body := b.post("/admin/polls/question/add/", url.Values{
		"question_text": {text}, "pub_date_0": {"2020-01-02"}, "pub_date_1": {"03:04:05"},
		"choice_set-TOTAL_FORMS": {"1"}, "choice_set-INITIAL_FORMS": {"0"}, "choice_set-0-choice_text": {"Yes"}, "choice_set-0-votes": {"0"},
	})
	if at != "/admin/polls/question/" || !strings.Contains(body, text) {
		t.Fatalf("the question was not added; at %s:\n%s", at, body)
	}
	if status, list := p.page("/polls/"); status != http.StatusOK || !strings.Contains(list, text) {
		t.Errorf("the list of polls: %d\n%s", status, list)
	}
}

const sharedSecond = `SELECT count(*) FROM pg_index i JOIN pg_index j USING (indrelid, indkey, indclass)
	WHERE i.indexrelid < j.indexrelid AND i.indpred IS NULL AND j.indpred IS NULL AND NOT i.indisunique AND NOT j.indisunique
	AND indrelid::regclass::text ~ '^(polls|auth|django)_'`

func TestADatabaseIsSharedWithARealDjango(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, auto string }{
		{"with integer ids", "AutoField"}, {"with bigint ids", "BigAutoField"},
	} {
		t.Run("Django first, "+c.name, func(t *testing.T) {
			t.Parallel()
			m, cfg := withDatabase(t)
			control := empty(t, cfg)
			d := newDjango(t, cfg, c.auto)
			d.manage("migrate")
			m.run("", "migrate").must(exitFine, "Applied 00001_polls.sql")
			mustShare(t, m, d, control)
		})
		t.Run("ddtb first, "+c.name, func(t *testing.T) {
			t.Parallel()
			m, cfg := withDatabase(t)
			control := empty(t, cfg)
			m.run("", "migrate").must(exitFine, "Applied 00001_polls.sql")
			d := newDjango(t, cfg, c.auto)
			d.manage("migrate", "--fake", "contenttypes")
			d.manage("migrate", "--fake-initial")
			mustShare(t, m, d, control)
		})
	}
}

// mustShare has both programs work on the database, and changes it as Django's users do.
func mustShare(t *testing.T, m *machine, d *django, control *pgx.Conn) {
	t.Helper()
	m = m.in(t)
	if n := scanned[int](t, control, sharedSecond); n != 0 {
		t.Errorf("%d indexes are there twice", n)
	}
	d.shell("from django.contrib.auth.models import User; User.objects.create_superuser('grace', '', '" + goodPassword + "')")
	m.runWith([]string{"DJANGO_SUPERUSER_USERNAME=ada", "DJANGO_SUPERUSER_PASSWORD=" + newPassword}, "", "createsuperuser", "--noinput").must(exitFine)
	p := m.serving("runserver", "127.0.0.1:0")
	mustServe(t, p, "grace", goodPassword, "A question by grace?")
	mustServe(t, p, "ada", newPassword, "A question by ada?")
	const add = "from polls.models import Question as Q; from django.utils.timezone import now; " +
		"q = Q.objects.create(question_text='Of Django?', pub_date=now()); q.choice_set.create(choice_text='Yes'); print(Q.objects.count())"
	if n := d.shell(add); n != "3" {
		t.Errorf("Django sees %s questions", n)
	}
	if _, list := p.page("/polls/"); !strings.Contains(list, "Of Django?") {
		t.Errorf("a question that Django added is not in the list:\n%s", list)
	}
	d.auto = "BigAutoField"
	d.edit("CharField(max_length=200)\n    pub_date", "CharField(max_length=400)\n    note = models.CharField(max_length=20, null=True)\n    pub_date")
	mustServe(t, p, "ada", newPassword, "After the changes?")
	if n := p.log.Count("level=ERROR"); n != 0 {
		t.Errorf("Django's migrations cost %d errors:\n%s", n, p.log)
	}
	d.manage("flush", "--noinput")
	if n := scanned[int](t, control, "SELECT count(*) FROM auth_user"); n != 0 {
		t.Errorf("%d users after the flush", n)
	}
	d.shell("from django.contrib.auth.models import User; User.objects.create_superuser('first', '', '" + goodPassword + "')")
	mustServe(t, p, "first", goodPassword, "After the flush?")
}

// TestALoginAtDjangoEndsNoSessionInSilence has Django store a password anew, as it does at a login where another hasher, or
// another cost, is its first.
func TestALoginAtDjangoEndsNoSessionInSilence(t *testing.T) {
	t.Parallel()
	m, cfg := withDatabase(t)
	d := newDjango(t, cfg, "BigAutoField")
	m.runWith([]string{"DJANGO_SUPERUSER_USERNAME=ada", "DJANGO_SUPERUSER_PASSWORD=" + goodPassword}, "", "createsuperuser", "--noinput").must(exitFine)
	p := m.serving("runserver", "127.0.0.1:0")
	for n, hashers := range []string{"Argon2,PBKDF2", "PBKDF2,Argon2", "PBKDF2SHA1,PBKDF2,Argon2"} {
		b := p.browser(t)
		if at, body := b.login("ada", goodPassword); at != "/admin/" {
			t.Fatalf("at %s:\n%s", at, body)
		}
		d.hashers = hashers
		if ok := d.shell("from django.contrib.auth import authenticate; print(authenticate(username='ada', password='" + goodPassword + "'))"); ok != "ada" {
			t.Errorf("Django's login with %s: %s", hashers, ok)
		}
		b.change()
		if at, body := b.get("/admin/"); at != "/admin/login/" || !strings.Contains(body, "another application that shares these accounts has stored it anew") {
			t.Errorf("with %s: at %s:\n%s", hashers, at, body)
		}
		p.logs(n+1, "a session ended", "username=ada")
	}
	if at, _ := p.browser(t).login("ada", goodPassword); at != "/admin/" {
		t.Error("the password is not checked with pbkdf2_sha1")
	}
	d.shell("from django.contrib.auth.models import User; User.objects.update(password='md5$salt$abc')")
	p.browser(t).login("ada", goodPassword)
	p.logs(1, "a login was refused", "username=ada", "md5", "ddtb changepassword")
}
