package admin_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"testing"

	"ddtb/db"
	"ddtb/db/dbtest"
)

func TestAListTakesOneLeaseForEachOfItsQueries(t *testing.T) {
	cfg := dbtest.Config(t)
	cfg.Pool.Hold = db.HoldQuery
	s := newSiteOn(t, cfg)
	s.many(150)
	v := s.as("ada")
	v.get("/admin/") // the user is remembered
	for path, want := range map[string]int64{
		"/admin/polls/question/?pub_date__year=1999": 2, // and the number of all rows
		"/admin/polls/question/":                     3, // and the number of all rows, and the years
		"/admin/auth/group/":                         1,
		"/admin/auth/user/":                          2, // and the groups, for the filter
		"/admin/polls/question/add/":                 0,
	} {
		t.Run(path, func(t *testing.T) {
			before := s.db.Stat().Acquired
			v.get(path).want(http.StatusOK)
			if got := s.db.Stat().Acquired - before; got != want {
				t.Errorf("it took %d leases, want %d", got, want)
			}
		})
	}
}

func TestABulkDeletionIsConfirmedOnOneLease(t *testing.T) {
	cfg := dbtest.Config(t)
	cfg.Pool.Hold = db.HoldQuery
	s := newSiteOn(t, cfg)
	s.addStaff("helper", "auth.view_user", "auth.delete_user")
	chosen := url.Values{"action": {"delete_selected"}}
	for i := range 5 {
		name := fmt.Sprint("user", i)
		s.addStaff(name)
		chosen.Add("_selected_action", strconv.FormatInt(ask[int64](s, `SELECT id FROM auth_user WHERE username = $1`, name), 10))
	}
	v := s.as("helper")
	v.get("/admin/") // the user is remembered
	before := s.db.Stat().Acquired
	v.post("/admin/auth/user/", chosen).want(http.StatusOK).says("Users: 5")
	if got := s.db.Stat().Acquired - before; got != 2 { // and the check of the user
		t.Errorf("it took %d leases, want 2", got)
	}
}
