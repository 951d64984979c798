package admin_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"ddtb/db/dbtest"
)

// readingPages fills the site, and returns the pages that only read.
func (s *site) readingPages() []string {
	s.many(150)
	id := s.addQuestion("What is new?", time.Now(), "Nothing")
	s.addStaff("bob", "polls.view_question")
	question, bob := fmt.Sprintf("/admin/polls/question/%d/", id), ask[int64](s, `SELECT id FROM auth_user WHERE username = 'bob'`)
	return []string{
		"/admin/", "/admin/polls/question/", "/admin/polls/question/?pub_date__year=1999", "/admin/auth/user/",
		"/admin/auth/group/add/", question + "change/", question + "history/", question + "delete/",
		fmt.Sprintf("/admin/auth/user/%d/password/", bob),
	}
}

func TestARestartOfTheServerFailsNoPageThatReads(t *testing.T) {
	server := dbtest.NewServer(t, dbtest.Options{})
	s := newSiteOn(t, server.Config(t))
	s.within = 20 * time.Second // reads are retried until then
	paths := s.readingPages()
	v := s.as("ada")
	server.Stop(t, "fast")
	s.users.Forget() // each request reads its session
	begun := s.begun.Load()
	var pages sync.WaitGroup
	for _, path := range paths {
		pages.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			res, err := v.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			if _ = res.Body.Close(); res.StatusCode != http.StatusOK {
				t.Errorf("%s: %s", path, res.Status)
			}
		})
	}
	dbtest.Eventually(t, "every request has begun", func() bool { return int(s.begun.Load()-begun) == len(paths) })
	server.Start(t)
	pages.Wait()
}

func TestPagesThatReadWorkWhereNothingMayBeWritten(t *testing.T) {
	s := newSite(t)
	paths := s.readingPages()
	v := s.as("ada")
	cfg := s.db.Config()
	cfg.Options = "-c default_transaction_read_only=on"
	if err := s.db.Switch(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	s.users.Forget()
	for _, path := range paths {
		t.Run(path, func(t *testing.T) { v.get(path).want(http.StatusOK) })
	}
}
