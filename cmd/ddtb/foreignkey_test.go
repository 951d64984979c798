package main

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"ddtb/db/dbtest"
)

func TestARowThatAnotherApplicationsTableNeedsIsKeptAndTheTableIsNamed(t *testing.T) {
	t.Parallel()
	m, cfg := withDatabase(t)
	control := dbtest.Control(t, cfg)
	run(t, control, `INSERT INTO polls_question (question_text, pub_date) VALUES ('Referred to?', now())`)
	run(t, control, `CREATE TABLE "shop <b>order" (question_id bigint REFERENCES polls_question (id) DEFERRABLE INITIALLY DEFERRED)`)
	run(t, control, `INSERT INTO "shop <b>order" SELECT id FROM polls_question`)
	m.runWith([]string{"DJANGO_SUPERUSER_USERNAME=ada", "DJANGO_SUPERUSER_PASSWORD=" + goodPassword}, "", "createsuperuser", "--noinput").must(exitFine)
	p := m.serving("runserver", "127.0.0.1:0")
	b := p.browser(t)
	b.login("ada", goodPassword)
	resp, err := b.client.PostForm(p.url+"/admin/polls/question/1/delete/", url.Values{"post": {"yes"}}) //nolint:noctx // the client has a deadline
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusConflict || !strings.Contains(string(text), "shop &lt;b&gt;order") {
		t.Errorf("%s, %v\n%s", resp.Status, err, text)
	}
	p.logs(1, "level=WARN", "shop <b>order")
}
